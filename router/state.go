package router

import (
	"fmt"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// State says what of a table may be answered right now. It is small, immutable, and replaced whenever a verdict or an
// override changes or expires; time enters here and nowhere else.
type State struct {
	standing []standing // by Choice
	why      []string   // by Choice: the operator's decision, or the verdict's reason; for traces
	verdicts health.Verdicts
	expires  time.Time
}

// standing is whether a choice may be answered.
type standing uint8

const (
	eligible standing = iota
	dead              // by its verdict: passed over, but answered when all are dead and the service fails open
	barred            // by an operator's decision: never answered
)

// NewState makes the state of a table at one time. Overrides that have expired by then have no effect.
func NewState(t *Table, verdicts health.Verdicts, overrides map[string]*topology.Override, now time.Time) *State {
	s := &State{standing: make([]standing, len(t.pops)), why: make([]string, len(t.pops)), verdicts: verdicts}
	drained := map[string]*topology.Override{}
	for _, o := range overrides {
		if o.Kind != topology.Drain || o.PoP == "" || !now.Before(o.Expires) {
			continue
		}
		if s.expires.IsZero() || o.Expires.Before(s.expires) {
			s.expires = o.Expires
		}
		if other := drained[o.PoP]; other == nil || other.Expires.Before(o.Expires) {
			drained[o.PoP] = o
		}
	}
	for i, pop := range t.pops {
		verdict := verdicts[health.Target{Kind: health.PoP, Name: pop.name}]
		switch o := drained[pop.name]; {
		case pop.State == topology.Draining || pop.State == topology.Disabled:
			s.standing[i], s.why[i] = barred, string(pop.State)+" in the topology"
		case o != nil:
			s.standing[i] = barred
			s.why[i] = fmt.Sprintf("drained by %s until %s: %s", o.Author, o.Expires.UTC().Format(time.RFC3339), o.Reason)
		case verdict.Status == health.Down:
			s.standing[i], s.why[i] = dead, "down: "+verdict.Reason
		}
	}
	return s
}

// Expires returns when an override that is in effect ends, so that a new state must be made, and false when none does.
func (s *State) Expires() (time.Time, bool) { return s.expires, !s.expires.IsZero() }

// Standing returns whether a choice may be answered now, and otherwise why not.
func (s *State) Standing(c Choice) (ok bool, why string) { return s.standing[c] == eligible, s.why[c] }

// Verdicts returns the verdicts that the state was made of. The map must not be changed.
func (s *State) Verdicts() health.Verdicts { return s.verdicts }
