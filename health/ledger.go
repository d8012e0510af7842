package health

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// ErrOld is the error of a report that is older than what is known of its vantage: it came late, twice, or was replayed.
var ErrOld = errors.New("the report is older than what is known")

// Ledger holds the newest statements of each vantage, from reports that come by several ways, in any order, more than once, or not at
// all. Its bounds are those of the vantages that Retain keeps and of what a report may hold. A Ledger is not safe for concurrent use.
type Ledger struct {
	vantages map[string]*page
}

// page is what is known of one vantage. A statement is replaced by those of higher sequences alone; whatever is not newer than the last
// full report is disregarded.
type page struct {
	report     Report // without statements
	full       uint64 // sequence of the last full report; 0 when there was none
	statements map[Target]entry
	heard      time.Time
	made       *Report // of all this; nil when it must be made anew
}

type entry struct {
	Statement
	sequence uint64
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger { return &Ledger{map[string]*page{}} }

// Take takes a report into account. The error is ErrOld when there was nothing new in it. Changed reports whether verdicts may change.
func (l *Ledger) Take(r *Report, now time.Time) (changed bool, err error) {
	p := l.vantages[r.Name]
	if p != nil && (r.Incarnation < p.report.Incarnation || r.Incarnation == p.report.Incarnation && r.Sequence <= p.full) {
		return false, ErrOld
	}
	if p == nil || r.Incarnation > p.report.Incarnation {
		fresh := &page{statements: map[Target]entry{}}
		if p != nil { // what it said before it started anew counts until it says something else
			for t, e := range p.statements {
				fresh.statements[t] = entry{Statement: e.Statement}
			}
		}
		p, changed = fresh, true
		l.vantages[r.Name] = p
	}
	latest := r.Sequence > p.report.Sequence
	news := latest
	if latest {
		changed = changed || !r.sameSelf(&p.report) || r.Region != p.report.Region
		p.report, p.heard = *r, now
		p.report.Statements = nil
	}
	for _, s := range r.Statements {
		old, known := p.statements[s.Target]
		if known && old.sequence >= r.Sequence {
			continue
		}
		p.statements[s.Target] = entry{s, r.Sequence}
		news, changed = true, changed || !known || !s.agrees(&old.Statement)
	}
	if r.Full {
		p.full = r.Sequence
		before := len(p.statements)
		maps.DeleteFunc(p.statements, func(_ Target, e entry) bool { return e.sequence < r.Sequence })
		changed = changed || len(p.statements) < before
		news = true
	}
	if !news {
		return false, ErrOld
	}
	p.made = nil
	return changed, nil
}

// Heard returns when the vantage was last heard: when a report arrived that was newer than all before.
func (l *Ledger) Heard(vantage string) (time.Time, bool) {
	if p := l.vantages[vantage]; p != nil {
		return p.heard, true
	}
	return time.Time{}, false
}

// Reports returns the present report of each vantage for which alive is true, sorted by name. They must not be changed.
func (l *Ledger) Reports(alive func(vantage string, heard time.Time) bool) []*Report {
	reports := make([]*Report, 0, len(l.vantages))
	for _, name := range slices.Sorted(maps.Keys(l.vantages)) {
		if p := l.vantages[name]; alive(name, p.heard) {
			reports = append(reports, p.present())
		}
	}
	return reports
}

func (p *page) present() *Report {
	if p.made == nil {
		made := p.report
		made.Statements, made.Full = make([]Statement, 0, len(p.statements)), true
		for _, e := range p.statements {
			made.Statements = append(made.Statements, e.Statement)
		}
		slices.SortFunc(made.Statements, func(a, b Statement) int { return a.Target.compare(b.Target) })
		p.made = &made
	}
	return p.made
}

// Retain forgets all vantages but those for which keep is true.
func (l *Ledger) Retain(keep func(vantage string) bool) {
	maps.DeleteFunc(l.vantages, func(name string, _ *page) bool { return !keep(name) })
}
