package health

import (
	"errors"
	"time"
)

// ErrOld is the error of a report that is older than what is known of its vantage: it came late, twice, or was replayed.
var ErrOld = errors.New("the report is older than what is known")

// Ledger holds the newest statements of each vantage, from reports that come by several ways, in any order, more than once, or not at
// all. Its bounds are those of the vantages that Retain keeps and of what a report may hold. A Ledger is not safe for concurrent use.
type Ledger struct{}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger { panic("to come") }

// Take takes a report into account. The error is ErrOld when there was nothing new in it. Changed reports whether verdicts may change.
func (l *Ledger) Take(r *Report, now time.Time) (changed bool, err error) { panic("to come") }

// Heard returns when the vantage was last heard: when a report arrived that was newer than all before.
func (l *Ledger) Heard(vantage string) (time.Time, bool) { panic("to come") }

// Reports returns the present report of each vantage for which alive is true, sorted by name. They must not be changed.
func (l *Ledger) Reports(alive func(vantage string, heard time.Time) bool) []*Report {
	panic("to come")
}

// Retain forgets all vantages but those for which keep is true.
func (l *Ledger) Retain(keep func(vantage string) bool) { panic("to come") }
