package health

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// Thresholds say how a vantage makes up its mind. The zero value stands for the defaults.
type Thresholds struct {
	Rise     int           // successes in a row that bring a target up that was down; default 2
	Fall     int           // failures in a row that take a target down; default 2
	HalfLife time.Duration // of the penalty for flapping; default 60 s
	Suppress float64       // penalty above which a target that flaps counts as down; each fall is 1; default 3
	Reuse    float64       // penalty below which it is believed again; default 1
	Longest  time.Duration // that it can be suppressed after its last fall; default 5 min
}

// Watcher keeps what one vantage has seen, and makes its statements. A target's first success brings it up at once. Damping is that of RFC 2439: a
// penalty that decays exponentially. A Watcher is not safe for concurrent use.
type Watcher struct {
	thresholds Thresholds
	targets    map[Target]*watched
}

// watched is what is known of a target.
type watched struct {
	status     Status
	since      time.Time
	failures   int // in a row
	successes  int // in a row, since the last failure
	last       Observation
	penalty    float64
	penaltyAt  time.Time
	suppressed bool
	took       [tookSize]time.Duration // of the newest successful probes
	tooks      int                     // how many there were
}

// tookSize is of how many probes the slowest but one stands for the 99th percentile.
const tookSize = 100

// NewWatcher returns a Watcher that has seen nothing.
func NewWatcher(t Thresholds) *Watcher {
	t.Rise, t.Fall = cmp.Or(t.Rise, 2), cmp.Or(t.Fall, 2)
	t.HalfLife, t.Longest = cmp.Or(t.HalfLife, time.Minute), cmp.Or(t.Longest, 5*time.Minute)
	t.Suppress, t.Reuse = cmp.Or(t.Suppress, 3), cmp.Or(t.Reuse, 1)
	return &Watcher{thresholds: t, targets: map[Target]*watched{}}
}

// Observe takes an observation into account, and reports whether the vantage has something new to say: a target has risen or fallen, or a
// suspicion has come up or gone.
func (w *Watcher) Observe(o Observation) (news bool) {
	t := w.targets[o.Target]
	if t == nil {
		t = &watched{status: Unknown, since: o.At}
		w.targets[o.Target] = t
	}
	before := t.says()
	switch {
	case o.OK:
		t.failures = 0
		t.successes++
		if !o.Passive {
			t.took[t.tooks%tookSize] = o.Took
			t.tooks++
		}
		if t.status == Unknown || t.status == Down && t.successes >= w.thresholds.Rise {
			t.turn(Up, o.At)
		}
	case o.Late && o.Burst: // whoever looks at once looks twice: it is not one lost packet
		t.failures, t.successes = max(t.failures, 1), 0
		w.fall(t, o.At)
	case o.Late || o.Passive:
		if t.successes = 0; t.status == Up {
			t.failures = max(t.failures, 1)
		}
	default:
		if t.successes = 0; t.last.Late && t.failures == 1 { // this is how that probe has ended
			t.failures = 0
		}
		t.failures++
		if t.failures >= w.thresholds.Fall || o.Burst {
			w.fall(t, o.At)
		}
	}
	if !o.OK || t.status != Down { // one that rises is still down, for the reason that it was
		t.last = o
	}
	w.settle(t, o.At)
	return t.says() != before
}

// said is what of a target is worth a new report.
type said struct {
	status                Status
	suspected, suppressed bool
}

func (t *watched) says() said {
	return said{t.status, t.failures > 0 && t.status != Down, t.suppressed}
}

func (t *watched) turn(s Status, at time.Time) { t.status, t.since = s, at }

// fall takes a target down, and adds to its penalty.
func (w *Watcher) fall(t *watched, at time.Time) {
	if t.status == Down {
		return
	}
	if t.status == Up {
		ceiling := w.thresholds.Reuse * math.Exp2(float64(w.thresholds.Longest)/float64(w.thresholds.HalfLife))
		t.penalty = min(w.decayed(t, at)+1, ceiling)
		t.penaltyAt = at
		t.suppressed = t.suppressed || t.penalty > w.thresholds.Suppress
	}
	t.turn(Down, at)
}

func (w *Watcher) decayed(t *watched, at time.Time) float64 {
	return t.penalty * math.Exp2(-float64(at.Sub(t.penaltyAt))/float64(w.thresholds.HalfLife))
}

// settle ends the suppression of a target that has behaved for long enough.
func (w *Watcher) settle(t *watched, at time.Time) {
	if t.suppressed && w.decayed(t, at) < w.thresholds.Reuse {
		t.suppressed = false
		if t.status == Up {
			t.since = at
		}
	}
}

// Retain forgets all targets but those for which keep is true, and reports whether there were any to forget.
func (w *Watcher) Retain(keep func(Target) bool) bool {
	before := len(w.targets)
	maps.DeleteFunc(w.targets, func(target Target, _ *watched) bool { return !keep(target) })
	return len(w.targets) < before
}

// Settle reports whether time alone has given the vantage something new to say: that a target is believed again.
func (w *Watcher) Settle(now time.Time) (news bool) {
	for _, t := range w.targets {
		before := t.suppressed
		w.settle(t, now)
		news = news || t.suppressed != before
	}
	return news
}

// Statements returns what the vantage says, of targets of which it knows something.
func (w *Watcher) Statements(now time.Time) map[Target]Statement {
	all := make(map[Target]Statement, len(w.targets))
	for target, t := range w.targets {
		if t.status == Unknown {
			continue // a first failure says little, and a second one comes at once
		}
		s := Statement{
			Status: t.status, Failures: t.failures, Code: t.last.Code, Reason: t.last.Reason, Steps: t.last.Steps, Took: t.last.Took,
			Age: max(now.Sub(t.since), 0),
		}
		if s.Code == "" && t.last.OK {
			s.Code = CodeOK
		}
		if t.suppressed && t.status == Up {
			s.Status, s.Code, s.Reason, s.Steps = Down, CodeFlapping, "it has come and gone too often to be believed yet", nil
		}
		all[target] = s
	}
	return all
}

// Suspects reports whether the vantage has seen the target fail, and does not hold it to be down yet: it is to look again at once.
func (w *Watcher) Suspects(target Target) bool {
	t := w.targets[target]
	return t != nil && t.failures > 0 && t.status != Down
}

// The bounds of the patience with a probe.
const (
	MinTimeout = 300 * time.Millisecond
	MaxTimeout = 2 * time.Second
	minLate    = 200 * time.Millisecond
)

// Patience says how long to wait for a probe's answer.
type Patience struct {
	Timeout time.Duration // three times the 99th percentile, between MinTimeout and MaxTimeout: then it has failed
	Again   time.Duration // after which a second one is made beside it, in calm, since a packet may have been lost
	Late    time.Duration // after which there is a suspicion
}

// Patience returns how long to wait for the answers of a target, by the newest hundred that came. Lost packets move the 99th percentile, and hardly
// the 90th, by which it is told what is late: two and a half times that in calm, one and a half times where two probes are made at once because of
// a suspicion. For a target of which little is known, those of all targets count.
func (w *Watcher) Patience(target Target, burst bool) Patience {
	p90, p99, known := w.targets[target].percentiles()
	if !known {
		for _, t := range w.targets {
			a, b, ok := t.percentiles()
			p90, p99, known = max(p90, a), max(p99, b), known || ok
		}
	}
	if !known {
		return Patience{MaxTimeout, MaxTimeout, MaxTimeout}
	}
	p := Patience{Timeout: min(max(3*p99, MinTimeout), MaxTimeout), Again: max(p90*13/10, minLate/2), Late: max(p90*25/10, minLate)}
	if burst {
		p.Again, p.Late = 0, max(p90*15/10, minLate)
	}
	p.Again, p.Late = min(p.Again, p.Timeout), min(p.Late, p.Timeout)
	return p
}

// percentiles returns the 90th and the 99th percentile of what probes took, and false when there were too few.
func (t *watched) percentiles() (p90, p99 time.Duration, known bool) {
	if t == nil || t.tooks < 3 {
		return 0, 0, false
	}
	took := slices.Clone(t.took[:min(t.tooks, tookSize)])
	slices.Sort(took)
	return took[(len(took)*90-1)/100], took[(len(took)*99-1)/100], true
}

// Status returns what the vantage holds to be true of a target.
func (w *Watcher) Status(target Target) Status {
	if t := w.targets[target]; t != nil {
		return t.status
	}
	return Unknown
}
