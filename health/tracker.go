package health

import (
	"cmp"
	"maps"
)

// Thresholds say how many observations in a row change a verdict. The zero value stands for two of each.
type Thresholds struct {
	Rise int // successes that bring a target up that was down
	Fall int // failures that take a target down
}

// Tracker makes verdicts of one vantage's observations. A target is unknown until its first success, which brings it up at
// once, or until Fall failures. A Tracker is not safe for concurrent use; what Verdicts returns is.
type Tracker struct {
	thresholds Thresholds
	targets    map[Target]*streak
}

// streak is a verdict with the observations in a row that contradict it.
type streak struct {
	verdict Verdict
	against int
}

// NewTracker returns a Tracker that has seen nothing.
func NewTracker(t Thresholds) *Tracker {
	return &Tracker{
		thresholds: Thresholds{Rise: cmp.Or(t.Rise, 2), Fall: cmp.Or(t.Fall, 2)},
		targets:    map[Target]*streak{},
	}
}

// Observe takes an observation into account and reports whether the target's status changed.
func (t *Tracker) Observe(o Observation) bool {
	s := t.targets[o.Target]
	if s == nil {
		s = &streak{verdict: Verdict{Status: Unknown, Since: o.At}}
		t.targets[o.Target] = s
	}
	v := &s.verdict
	v.Seen, v.LastTook = o.At, o.Took
	wanted, enough := Up, t.thresholds.Rise
	if !o.OK {
		wanted, enough = Down, t.thresholds.Fall
	} else if v.Status == Unknown {
		enough = 1
	}
	if v.Status == wanted {
		s.against = 0
		v.Reason = o.Reason
		return false
	}
	s.against++ // all of one kind: whatever agrees with the verdict ended the streak, and a first success decides at once
	if s.against < enough {
		if v.Status == Unknown {
			v.Reason = o.Reason
		}
		return false
	}
	*v = Verdict{Status: wanted, Reason: o.Reason, Since: o.At, Seen: o.At, LastTook: o.Took}
	s.against = 0
	return true
}

// Retain forgets all targets but those for which keep is true, and reports whether there were any to forget.
func (t *Tracker) Retain(keep func(Target) bool) bool {
	before := len(t.targets)
	maps.DeleteFunc(t.targets, func(target Target, _ *streak) bool { return !keep(target) })
	return len(t.targets) < before
}

// Verdicts returns a copy of the present verdicts.
func (t *Tracker) Verdicts() Verdicts {
	verdicts := make(Verdicts, len(t.targets))
	for target, s := range t.targets {
		verdicts[target] = s.verdict
	}
	return verdicts
}
