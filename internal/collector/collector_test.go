package collector

import (
	"context"
	"runtime/debug"
	"testing"
)

func TestPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 16 << 20: 400, 32 << 20: 200, 48 << 20: 125, 64 << 20: 100, 1 << 40: 100} {
		if got := percent(live); got != want {
			t.Errorf("%d bytes alive: got %d, want %d", live, got, want)
		}
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	t.Setenv("GOGC", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC is %d afterwards", got)
	}
}
