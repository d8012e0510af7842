package health

import (
	"cmp"
	"slices"
	"time"
)

// Timing says when targets are probed. The zero value stands for the defaults.
type Timing struct {
	Interval time.Duration // between two probes of a target, of all its vantages together; default 1 s
	Vantages int           // k, see Assign; default 7
	Quiet    time.Duration // between two bursts of a target for the same suspecting vantage; default 10 s
}

// A burst of a target is two probes, so that two failures in a row take no more than one timeout.
const (
	burstProbes    = 2
	burstStagger   = 100 * time.Millisecond // between them; when the first is answered by then, there is no second
	burstSpacing   = time.Second            // from one burst of a target to the next
	burstsPerQuiet = 4                      // of a target within Timing.Quiet, whoever suspects it
)

// Schedule says which targets one vantage probes when. In calm each target is probed once an interval, by its vantages in turn. Turns are
// taken by the clock on the wall; where clocks differ, turns are spread less evenly, and nothing else happens. A Schedule is not safe for
// concurrent use.
type Schedule struct {
	self  string
	t     Timing
	turns map[Target]*turn
}

// turn is one vantage's part in the probing of a target.
type turn struct {
	period, offset time.Duration
	next           time.Time            // in calm
	extra          []time.Time          // of bursts, in order
	burst          time.Time            // begin of the latest burst
	confirming     bool                 // it confirms an own observation: both probes are needed
	asked          []time.Time          // begins of the latest bursts that others asked for, at most burstsPerQuiet
	others         map[string]*listened // the other vantages of the target
}

// listened is what another vantage made of a target.
type listened struct {
	contradicts bool
	refused     bool      // its contradiction caused no burst, since one before had
	burst       time.Time // that a contradiction of it caused
	insisted    time.Time // the burst that it caused by saying down after it had been refused
}

// NewSchedule returns the schedule of a vantage that has no targets yet.
func NewSchedule(self string, t Timing) *Schedule {
	t.Interval, t.Vantages, t.Quiet = cmp.Or(t.Interval, time.Second), cmp.Or(t.Vantages, 7), cmp.Or(t.Quiet, 10*time.Second)
	return &Schedule{self, t, map[Target]*turn{}}
}

// Assign says which targets and vantages there are; self should be among the vantages. A target that is new here is probed within a
// tenth of an interval.
func (s *Schedule) Assign(targets []Target, vantages []Vantage, now time.Time) {
	before := s.turns
	s.turns = make(map[Target]*turn, len(before))
	for _, t := range targets {
		order := Assign(t, vantages, s.t.Vantages)
		rank := -1
		others := map[string]*listened{}
		for i, v := range order {
			if v.Name == s.self {
				rank = i
			} else {
				others[v.Name] = &listened{}
			}
		}
		if rank < 0 {
			continue
		}
		phase := time.Duration(hash(t.Name, string(t.Kind)) % uint64(s.t.Interval))
		period, offset := time.Duration(len(order))*s.t.Interval, time.Duration(rank)*s.t.Interval+phase
		x := before[t]
		if x == nil {
			x = &turn{extra: []time.Time{now.Add(time.Duration(hash(t.Name, s.self) % uint64(s.t.Interval/10)))}}
		}
		if x.period != period || x.offset != offset {
			x.period, x.offset = period, offset
			x.next = x.after(now)
		}
		for name := range others {
			if known := x.others[name]; known != nil {
				others[name] = known
			}
		}
		x.others = others
		s.turns[t] = x
	}
}

// after returns the next turn after now, by the clock on the wall.
func (x *turn) after(now time.Time) time.Time {
	in := (int64(x.offset) - now.UnixNano()) % int64(x.period)
	if in <= 0 {
		in += int64(x.period)
	}
	return now.Add(time.Duration(in))
}

// Assigned reports whether the vantage probes the target.
func (s *Schedule) Assigned(t Target) bool { return s.turns[t] != nil }

// Others calls f for each other vantage of the target.
func (s *Schedule) Others(t Target, f func(vantage string)) {
	if x := s.turns[t]; x != nil {
		for name := range x.others {
			f(name)
		}
	}
}

// Due returns the targets that are to be probed now, and when to ask again, which is zero when there is no target. A target may be in it
// while a probe of it is still under way.
func (s *Schedule) Due(now time.Time) (targets []Target, again time.Time) {
	for t, x := range s.turns {
		due := false
		if x.next.Sub(now) > x.period { // the clock was set back
			x.next = x.after(now)
		}
		if !x.next.After(now) {
			due, x.next = true, x.after(now)
		}
		for len(x.extra) > 0 && !x.extra[0].After(now) {
			due, x.extra = true, x.extra[1:]
		}
		if due {
			targets = append(targets, t)
		}
		next := x.next
		if len(x.extra) > 0 && x.extra[0].Before(next) {
			next = x.extra[0]
		}
		if again.IsZero() || next.Before(again) {
			again = next
		}
	}
	return targets, again
}

// Confirm has a target probed again at once, after an own observation that contradicts what was held to be true, or a probe that is late.
// It does nothing when a burst has just begun.
func (s *Schedule) Confirm(t Target, now time.Time) {
	if x := s.turns[t]; x != nil && (x.burst.IsZero() || now.Sub(x.burst) >= burstSpacing/2) {
		x.begin(now)
		x.confirming = true
	}
}

// Answered says that a probe that began at a time succeeded: a burst that had begun by then needs no second probe.
func (s *Schedule) Answered(t Target, began time.Time) {
	if x := s.turns[t]; x != nil && !x.burst.IsZero() && !began.Before(x.burst) && !x.confirming {
		x.extra = slices.DeleteFunc(x.extra, func(at time.Time) bool { return at.Sub(x.burst) <= burstStagger && at.After(x.burst) })
	}
}

// Heard takes note of what another vantage says of a target; mine is what is said here. The target is probed at once when the other is
// assigned to it and begins to contradict, unless it did so a short time ago (Timing.Quiet); then it is heard once more when its second
// probe has failed, too. There are at most four such bursts in that time: a vantage that lies can cause two of them, has a target probed a
// few times more, and cannot hide a failure behind its lies. It reports whether there will be a burst.
func (s *Schedule) Heard(vantage string, theirs, mine Statement, now time.Time) bool {
	x := s.turns[theirs.Target]
	if x == nil || x.others[vantage] == nil {
		return false
	}
	who := x.others[vantage]
	begins := !who.contradicts
	who.contradicts = theirs.Suspects() || theirs.Status == Down && mine.Status != Down || theirs.Status == Up && mine.Status == Down
	insists := who.contradicts && !begins && who.refused && theirs.Status == Down
	if begins {
		who.refused = false
	}
	if !who.contradicts || !begins && !insists || mine.Suspects() || theirs.Suspects() && mine.Status == Down {
		return false
	}
	quiet := func(since time.Time) bool { return !since.IsZero() && now.Sub(since) < s.t.Quiet }
	if begins && quiet(who.burst) {
		who.refused = true
		return false
	}
	if insists && quiet(who.insisted) {
		return false
	}
	if len(x.asked) == burstsPerQuiet && now.Sub(x.asked[0]) < s.t.Quiet {
		return false
	}
	at := now
	if earliest := x.burst.Add(burstSpacing); !x.burst.IsZero() && earliest.After(now) {
		if x.burst.After(now) {
			return true // one is to come
		}
		at = earliest
	}
	if begins {
		who.burst = at
	} else {
		who.insisted, who.refused = at, false
	}
	x.asked = append(x.asked[max(0, len(x.asked)-burstsPerQuiet+1):], at)
	x.begin(at)
	return true
}

// begin has a burst begin.
func (x *turn) begin(at time.Time) {
	x.burst, x.confirming = at, false
	for i := range burstProbes {
		x.extra = append(x.extra, at.Add(time.Duration(i)*burstStagger))
	}
	slices.SortFunc(x.extra, time.Time.Compare)
}
