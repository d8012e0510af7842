package health

import (
	"time"
)

// Damping is an exponential penalty for targets that come and go (RFC 2439 section 4.2). The zero value stands for the defaults.
type Damping struct {
	HalfLife time.Duration // default 60 s
	Fall     float64       // the penalty of going down; default 1000
	Suppress float64       // above it a target is held to be down; default 3000
	Reuse    float64       // below it, no more; default 1000
	Longest  time.Duration // of suppression after the last fall; default 10 min
	Off      bool
}

// Watcher holds what one vantage sees of its targets: rise and fall, flap damping, suspicion, and how long probes take. A target is
// unknown until its first success, which brings it up at once, or until it fell. A Watcher is not safe for concurrent use.
type Watcher struct{}

// NewWatcher returns a Watcher that has seen nothing.
func NewWatcher(t Thresholds, d Damping) *Watcher { panic("to come") }

// Observe takes an observation into account and reports whether what is said of the target changed, so that a report is due.
func (w *Watcher) Observe(o Observation) (changed bool) { panic("to come") }

// Late says that a probe of the target is under way for longer than LateAfter, and reports whether that is news. The next observation of
// a probe ends it.
func (w *Watcher) Late(t Target, now time.Time) (changed bool) { panic("to come") }

// Retain forgets all targets but those for which keep is true, and reports whether there were any to forget.
func (w *Watcher) Retain(keep func(Target) bool) bool { panic("to come") }

// Statement returns what is said of a target now.
func (w *Watcher) Statement(t Target, now time.Time) (Statement, bool) { panic("to come") }

// Statements returns what is said of all targets, sorted by kind and name.
func (w *Watcher) Statements(now time.Time) []Statement { panic("to come") }

// Wakes returns when the next suppression ends, so that a report is due then; false when there is none.
func (w *Watcher) Wakes() (time.Time, bool) { panic("to come") }

// Timeout returns how long a probe of the target may take.
func (w *Watcher) Timeout(t Target) time.Duration { panic("to come") }

// LateAfter returns how long a probe of the target takes before it is late; it is less than the timeout.
func (w *Watcher) LateAfter(t Target) time.Duration { panic("to come") }
