package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Thresholds say how many observations in a row change what a vantage says. The zero value stands for two of each.
type Thresholds struct {
	Rise int // successes that bring a target up that was down
	Fall int // failures that take a target down
}

// Watcher holds what one vantage sees of its targets: rise and fall, flap damping, suspicion, and how long probes take. A target is
// unknown until its first success, which brings it up at once, or until it fell. A Watcher is not safe for concurrent use.
type Watcher struct {
	thresholds Thresholds
	damping    Damping
	targets    map[Target]*watched
	all        durations // of all targets, for those that have few of their own
}

// watched is what was seen of a target.
type watched struct {
	status   Status // by rise and fall alone
	since    time.Time
	against  int  // observations in a row that contradict status
	failures int  // in a row
	late     bool // see Statement.Late
	traffic  bool // real requests failed since the last success
	code     Code
	reason   string
	failure  string // reason of the latest failure
	steps    Steps
	seen     time.Time
	began    time.Time // the latest begin of a probe that succeeded
	took     durations
	flaps    flaps
}

// NewWatcher returns a Watcher that has seen nothing.
func NewWatcher(t Thresholds, d Damping) *Watcher {
	return &Watcher{
		thresholds: Thresholds{Rise: cmp.Or(t.Rise, 2), Fall: cmp.Or(t.Fall, 2)},
		damping:    d.withDefaults(),
		targets:    map[Target]*watched{},
		all:        durations{bound: 256},
	}
}

// Observe takes an observation into account and reports whether what is said of the target changed, so that a report is due.
func (w *Watcher) Observe(o Observation) (changed bool) {
	x := w.targets[o.Target]
	if x == nil {
		x = &watched{status: Unknown, since: o.At, took: durations{bound: 64}}
		w.targets[o.Target] = x
	}
	before := x.statement(o.Target, o.At)
	x.seen = o.At
	switch {
	case o.OK && o.Passive && x.withstands():
	case o.OK:
		w.succeeded(x, o)
	case o.Passive:
		x.traffic = true
		if x.status == Up && x.failures == 0 {
			x.code, x.reason = cmp.Or(o.Code, Traffic), o.Reason
		}
	case o.At.Add(-o.Took).Before(x.began): // a later probe has succeeded: this one was lost on its way
	default:
		w.failed(x, o)
	}
	after := x.statement(o.Target, o.At)
	return !after.agrees(&before)
}

// withstands reports whether the latest failures of probes are of a kind that traffic does not meet: a cluster takes envelopes though it says that
// it is not well, or its chain is behind the others'.
func (x *watched) withstands() bool {
	if x.status != Down && x.failures == 0 {
		return false
	}
	switch x.code {
	case Answered, Syncing, Lagging, Lonely, Certificate:
		return true
	}
	return false
}

func (w *Watcher) succeeded(x *watched, o Observation) {
	news := !o.Passive || x.failures > 0 || x.traffic // else a probe knows better what is to be said of it
	x.failures, x.traffic = 0, false
	if !o.Passive {
		x.late, x.steps = false, o.Steps
		x.took.add(o.Took)
		w.all.add(o.Took)
	}
	if began := o.At.Add(-o.Took); began.After(x.began) {
		x.began = began
	}
	switch x.status {
	case Up:
		if x.against = 0; news {
			x.code, x.reason = o.Code, o.Reason
		}
	case Down:
		if x.against++; x.against < w.thresholds.Rise {
			return
		}
		fallthrough
	default:
		x.status, x.since, x.against, x.code, x.reason = Up, o.At, 0, o.Code, o.Reason
	}
}

func (w *Watcher) failed(x *watched, o Observation) {
	x.late, x.steps = false, o.Steps
	x.code, x.reason, x.failure = cmp.Or(o.Code, Other), o.Reason, o.Reason
	x.failures++
	if x.status == Down {
		x.against = 0
		return
	}
	if x.failures < w.thresholds.Fall {
		return
	}
	if x.status == Up {
		x.flaps.fall(w.damping, o.At)
	}
	x.status, x.since, x.against = Down, o.At, 0
}

// Late says that a probe of the target is under way for longer than LateAfter, and reports whether that is news. The next observation of
// a probe ends it.
func (w *Watcher) Late(t Target, now time.Time) (changed bool) {
	x := w.targets[t]
	if x == nil || x.late || x.status == Down {
		return false
	}
	suspected := x.failures > 0 || x.traffic
	x.late = true
	return !suspected
}

// Retain forgets all targets but those for which keep is true, and reports whether there were any to forget.
func (w *Watcher) Retain(keep func(Target) bool) bool {
	before := len(w.targets)
	maps.DeleteFunc(w.targets, func(t Target, _ *watched) bool { return !keep(t) })
	return len(w.targets) < before
}

// Statement returns what is said of a target now.
func (w *Watcher) Statement(t Target, now time.Time) (Statement, bool) {
	x := w.targets[t]
	if x == nil {
		return Statement{Target: t, Status: Unknown}, false
	}
	return x.statement(t, now), true
}

// Statements returns what is said of all targets, sorted by kind and name.
func (w *Watcher) Statements(now time.Time) []Statement {
	all := make([]Statement, 0, len(w.targets))
	for t, x := range w.targets {
		all = append(all, x.statement(t, now))
	}
	slices.SortFunc(all, func(a, b Statement) int { return a.Target.compare(b.Target) })
	return all
}

func (t Target) compare(other Target) int {
	return cmp.Or(strings.Compare(string(t.Kind), string(other.Kind)), strings.Compare(t.Name, other.Name))
}

// Wakes returns when the next suppression ends, so that a report is due then; false when there is none after now.
func (w *Watcher) Wakes(now time.Time) (next time.Time, ok bool) {
	for _, x := range w.targets {
		if until := x.flaps.until; until.After(now) && (!ok || until.Before(next)) {
			next, ok = until, true
		}
	}
	return next, ok
}

func (x *watched) statement(t Target, now time.Time) Statement {
	s := Statement{
		Target: t, Status: x.status, Failures: x.failures, Late: x.late, Code: x.code, Reason: x.reason,
		Steps: x.steps, Took: x.took.quantile(0.5), Since: x.since, Seen: x.seen,
	}
	if x.traffic {
		s.Failures = max(s.Failures, 1)
	}
	switch f := &x.flaps; {
	case now.Before(f.until):
		s.Status, s.Suppressed, s.Code, s.Since = Down, true, Flapping, f.since
		s.Reason = fmt.Sprintf("went down %d times, held down until it is steady; last: %s", f.falls, x.failure)
	case x.status == Up && f.until.After(x.since):
		s.Since = f.until
	}
	return s
}

// agrees reports whether two statements of a target have the same effect on those who hear them.
func (s *Statement) agrees(other *Statement) bool {
	return s.Status == other.Status && s.Suspects() == other.Suspects() && s.Suppressed == other.Suppressed && s.Code == other.Code
}
