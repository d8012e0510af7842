package simulations

import (
	"testing"
	"time"
)

func TestMeasureIntake(t *testing.T) {
	const p, c = 180 * time.Millisecond, 37 * time.Millisecond
	rtts := RTTs{{"node", "sin"}: p, {"hkg", "sin"}: c}
	for over, handshake := range map[Transport]time.Duration{QUIC: p, TCP: 2 * p} {
		fresh, warm, err := MeasureIntake(rtts, Path{"node", "sin", "hkg"}, over)
		if err != nil {
			t.Fatal(err)
		}
		if want := (Times{To202: handshake + p, Acknowledged: handshake + p/2 + c, Loop: handshake + p + c}); fresh != want {
			t.Errorf("fresh over %s: got %v, want %v", over, fresh, want)
		}
		if want := (Times{To202: p, Acknowledged: p/2 + c, Loop: p + c}); warm != want {
			t.Errorf("warm over %s: got %v, want %v", over, warm, want)
		}
	}
}
