package health

import (
	"testing"
	"time"
)

// due counts how often a target is probed in a span.
func due(s *Schedule, t Target, from, until time.Time) (n int) {
	for now := from; now.Before(until); now = now.Add(10 * time.Millisecond) {
		targets, _ := s.Due(now)
		for _, one := range targets {
			if one == t {
				n++
			}
		}
	}
	return n
}

func TestBursts(t *testing.T) {
	targets, vantages := world(9)
	target := targets[0]
	order := Assign(target, vantages, 7)
	newSchedule := func() *Schedule {
		s := NewSchedule(order[0].Name, Timing{})
		s.Assign(targets, vantages, epoch)
		due(s, target, epoch, epoch.Add(time.Second)) // the first one
		return s
	}
	up, down := Statement{Target: target, Status: Up}, Statement{Target: target, Status: Down, Failures: 2}
	late, failed := Statement{Target: target, Status: Up, Late: true}, Statement{Target: target, Status: Up, Failures: 1}
	now := epoch.Add(2 * time.Second)
	for _, test := range []struct {
		name         string
		theirs, mine Statement
		want         bool
	}{
		{"they agree", up, up, false},
		{"late", late, up, true},
		{"failed", failed, up, true},
		{"down", down, up, true},
		{"down for both", down, down, false},
		{"suspected, and here already down", failed, down, false},
		{"suspected by both", failed, late, false},
		{"up again", up, down, true},
	} {
		s := newSchedule()
		if got := s.Heard(order[1].Name, test.theirs, test.mine, now); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
		want := 0
		if test.want {
			want = burstProbes
		}
		if got := due(s, target, now, now.Add(time.Second)); got > want+1 || got < want {
			t.Errorf("%s: probed %d times at once, want %d", test.name, got, want)
		}
	}
	s := newSchedule()
	if s.Heard("pop:stranger", down, up, now) {
		t.Error("a vantage that is not assigned causes a burst")
	}
	for i := range 100 { // a liar begins anew again and again
		s.Heard(order[1].Name, late, up, now.Add(time.Duration(i)*100*time.Millisecond))
		s.Heard(order[1].Name, up, up, now.Add(time.Duration(i)*100*time.Millisecond))
	}
	if got := due(s, target, now, now.Add(10*time.Second)); got > burstProbes+3 {
		t.Errorf("a liar causes %d probes in 10 s", got)
	}
	if !s.Heard(order[2].Name, late, up, now.Add(10*time.Second)) {
		t.Error("behind the liar an honest vantage is not heard")
	}
	s = newSchedule()
	for i, step := range []struct {
		theirs Statement
		want   bool
	}{{late, true}, {up, false}, {failed, false}, {down, true}, {down, false}, {up, false}, {failed, false}, {down, false}} {
		if got := s.Heard(order[1].Name, step.theirs, up, now.Add(time.Duration(i)*time.Second)); got != step.want {
			t.Errorf("who gave a false alarm and then says down is heard once more: step %d: got %v", i, got)
		}
	}
	s = newSchedule()
	begun := 0
	for i, v := range order[1:] {
		if s.Heard(v.Name, late, up, now.Add(time.Duration(i)*1500*time.Millisecond)) {
			begun++
		}
	}
	if begun != burstsPerQuiet {
		t.Errorf("many that suspect cause %d bursts, want %d", begun, burstsPerQuiet)
	}
	s = newSchedule()
	s.Confirm(target, now)
	s.Confirm(target, now.Add(10*time.Millisecond))
	if got := due(s, target, now, now.Add(500*time.Millisecond)); got < burstProbes || got > burstProbes+1 {
		t.Errorf("to confirm, it probes %d times, want %d", got, burstProbes)
	}
}

func TestScheduleKeepsItsPlaceWhenTheClockIsSet(t *testing.T) {
	targets, vantages := world(3)
	s := NewSchedule(vantages[0].Name, Timing{})
	s.Assign(targets, vantages, epoch)
	before := due(s, targets[1], epoch, epoch.Add(20*time.Second))
	after := due(s, targets[1], epoch.Add(-time.Hour), epoch.Add(-time.Hour+20*time.Second))
	if before < 9 || after < 9 {
		t.Errorf("probed %d times in 20 s, and %d after the clock was set back", before, after)
	}
	s.Assign(nil, vantages, epoch)
	if targets, again := s.Due(epoch); len(targets) != 0 || !again.IsZero() || s.Assigned(targetOf(vantages[1])) {
		t.Error("it probes what is not there any more")
	}
}

func targetOf(v Vantage) Target { return Target{PoP, v.Name[len("pop:"):]} }
