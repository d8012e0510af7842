package main

import (
	"testing"
	"time"
)

// TestKeepPause holds the pauses between snapshots on disk to a twentieth of one core.
func TestKeepPause(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{0: time.Second, 10 * time.Millisecond: time.Second, time.Second: 19 * time.Second} {
		if got := keepPause(took); got != want || float64(took)/float64(took+got) > 0.05 {
			t.Errorf("after %v: %v, want %v", took, got, want)
		}
	}
}
