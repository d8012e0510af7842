package simulations

import (
	"testing"
	"time"
)

// TestResumedPosts wants a post on a new connection to take one round trip with early data, and two without.
func TestResumedPosts(t *testing.T) {
	const roundTrip = 180 * time.Millisecond
	early, waits, err := MeasureResumed(RTTs{{"node", "sin"}: roundTrip, {"hkg", "sin"}: 37 * time.Millisecond}, Path{"node", "sin", "hkg"})
	if err != nil {
		t.Fatal(err)
	}
	if early != roundTrip || waits != 2*roundTrip {
		t.Errorf("to the 202 it took %v with early data and %v without, want %v and %v", early, waits, roundTrip, 2*roundTrip)
	}
}
