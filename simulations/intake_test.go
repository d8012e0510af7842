package simulations

import (
	"testing"
	"time"
)

func TestMeasureIntake(t *testing.T) {
	const p, c = 180 * time.Millisecond, 37 * time.Millisecond
	rtts := RTTs{{"node", "sin"}: p, {"hkg", "sin"}: c}
	fresh, warm, err := MeasureIntake(rtts, Path{"node", "sin", "hkg"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Times{To202: 2 * p, Acknowledged: p*3/2 + c, Loop: 2*p + c}); fresh != want {
		t.Errorf("fresh: got %v, want %v", fresh, want)
	}
	if want := (Times{To202: p, Acknowledged: p/2 + c, Loop: p + c}); warm != want {
		t.Errorf("warm: got %v, want %v", warm, want)
	}
}
