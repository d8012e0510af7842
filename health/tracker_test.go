package health

import (
	"testing"
	"time"
)

func TestTracker(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	target := Target{PoP, "sin1"}
	for _, test := range []struct {
		name  string
		seen  string // + success, - failure, one a second
		want  Status
		since int // the second at which the status became what it is
	}{
		{"nothing but one failure", "-", Unknown, 0},
		{"first success", "+", Up, 0},
		{"failure and success", "-+", Up, 1},
		{"failures from the start", "--", Down, 1},
		{"one failure of one that is up", "+-", Up, 0},
		{"two in a row", "+--", Down, 2},
		{"two, but not in a row", "+-+-", Up, 0},
		{"one success of one that is down", "--+", Down, 1},
		{"back after two", "--++", Up, 3},
		{"back, but not in a row", "--+-+", Down, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			tracker := NewTracker(Thresholds{})
			changes, last := 0, Unknown
			for i, c := range test.seen {
				changed := tracker.Observe(Observation{
					Target: target, OK: c == '+', Reason: string(c), At: start.Add(time.Duration(i) * time.Second),
				})
				now := tracker.Verdicts()[target].Status
				if changed != (now != last) {
					t.Errorf("observation %d: changed = %v, but the status went from %s to %s", i, changed, last, now)
				}
				if changed {
					changes++
				}
				last = now
			}
			got := tracker.Verdicts()[target]
			if got.Status != test.want {
				t.Errorf("after %s: got %s, want %s", test.seen, got.Status, test.want)
			}
			if since := start.Add(time.Duration(test.since) * time.Second); !got.Since.Equal(since) {
				t.Errorf("after %s: since %v, want %v", test.seen, got.Since, since)
			}
		})
	}
}

func TestTrackerKeepsWhatItPublished(t *testing.T) {
	target := Target{Cluster, "ap"}
	tracker := NewTracker(Thresholds{Rise: 1, Fall: 1})
	tracker.Observe(Observation{Target: target, OK: true})
	published := tracker.Verdicts()
	tracker.Observe(Observation{Target: target})
	if published.IsDown(target) || !tracker.Verdicts().IsDown(target) {
		t.Errorf("got published %v, now %v; want the published verdicts unchanged", published, tracker.Verdicts())
	}
	if !tracker.Retain(func(Target) bool { return false }) || len(tracker.Verdicts()) != 0 {
		t.Errorf("Retain kept %v", tracker.Verdicts())
	}
	if tracker.Retain(func(Target) bool { return false }) {
		t.Error("Retain of nothing reports a change")
	}
}
