package health

import "time"

// Timing says when targets are probed. The zero value stands for the defaults.
type Timing struct {
	Interval time.Duration // between two probes of a target, of all its vantages together; default 1 s
	Vantages int           // k, see Assign; default 7
	Quiet    time.Duration // between two bursts of a target for the same suspecting vantage; default 10 s
}

// Schedule says which targets one vantage probes when. In calm each target is probed once an interval, by its vantages in turn. Turns are
// taken by the clock on the wall; where clocks differ, turns are spread less evenly, and nothing else happens. A Schedule is not safe for
// concurrent use.
type Schedule struct{}

// NewSchedule returns the schedule of a vantage that has no targets yet.
func NewSchedule(self string, t Timing) *Schedule { panic("to come") }

// Assign says which targets and vantages there are; self should be among the vantages.
func (s *Schedule) Assign(targets []Target, vantages []Vantage, now time.Time) { panic("to come") }

// Assigned reports whether the vantage probes the target.
func (s *Schedule) Assigned(t Target) bool { panic("to come") }

// Due returns the targets that are to be probed now, and when to ask again. A target may be in it while a probe of it is still under way.
func (s *Schedule) Due(now time.Time) (targets []Target, again time.Time) { panic("to come") }

// Confirm has a target probed again at once, after an own observation that contradicts what was held to be true.
func (s *Schedule) Confirm(t Target, now time.Time) { panic("to come") }

// Heard takes note of what another vantage says of a target; mine is what is said here. The target is probed at once when the other is
// assigned to it and begins to contradict, unless it did so a short time ago (Timing.Quiet), or a burst is under way. It reports whether
// there will be a burst.
func (s *Schedule) Heard(vantage string, theirs, mine Statement, now time.Time) bool {
	panic("to come")
}
