package router

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// State says what of a table may be answered right now. It is small, immutable, and replaced whenever a verdict, an override
// or a share changes or expires; time enters here and nowhere else.
type State struct {
	standing [regions][]standing // by Choice
	share    []uint64            // by Choice: how much of the draws is sent here; counts where the standing is shared
	shares   []float64           // by Choice, for traces
	turns    [][]turn            // by first PoP of classes: what PoPs take of them; nil when all take all
	regional bool                // some standings differ between regions
	returns  []bool              // by Choice: was down, and does not get all again yet
	why      []string            // by Choice: the operator's decision, or the verdict's reason; for traces
	services []serviceState
	inputs   Inputs
	changes  time.Time          // when the share of a PoP that comes back grows next; zero for never
	decided  topology.Decisions // of Inputs.Overrides, at Inputs.Now
}

type serviceState struct {
	panics [regions]bool // too few PoPs are well: verdicts are disregarded
	down   bool          // no PoP may be answered anywhere, and some only because of their verdicts
	canary uint64        // of the draws, that get the canary policy
	splits bool          // the canary's share is neither nothing nor all
}

// standing is whether a choice may be answered.
type standing uint8

const (
	eligible standing = iota
	reserved          // eligible for all of those whose first choice it is, and for a share of others
	shared            // eligible for a share of its clients
	dead              // by its verdict: passed over, but answered when all are dead and the service fails open
	barred            // by an operator's decision: never answered
)

// Inputs are what a state is made of, besides its table. The maps must not change afterwards.
type Inputs struct {
	Verdicts  health.Verdicts
	Overrides map[string]*topology.Override
	Shares    map[string]float64 // by PoP: of its clients, 0..1; those who are not among them go to their next choice
	Spill     Spill              // likewise, by clients
	Now       time.Time
}

// NewState makes the state of a table at one time. Overrides that have expired by then have no effect.
func NewState(t *Table, in Inputs) *State {
	n := len(t.pops)
	s := &State{share: make([]uint64, n), shares: make([]float64, n), why: make([]string, n), returns: make([]bool, n), inputs: in}
	all := make([]standing, len(s.standing)*n)
	for r := range s.standing {
		s.standing[r] = all[r*n : (r+1)*n : (r+1)*n]
	}
	s.decided = topology.Decide(in.Overrides, in.Now)
	for i := range s.share {
		s.share[i], s.shares[i] = math.MaxUint64, 1
	}
	for i := range t.pops[:t.popCount] {
		pop := &t.pops[i]
		decision := s.decided.PoP(pop.name)
		v := s.verdict(pop.name, decision)
		share := s.shareOf(i, pop, decision, &v)
		s.why[i] = v.why
		if decision.Pin != nil {
			s.why[i] = cmp.Or(v.why, decision.Pin.String())
		}
		one := eligible
		switch {
		case pop.State == topology.Draining || pop.State == topology.Disabled:
			one, s.why[i] = barred, string(pop.State)+" in the topology"
		case decision.Drained():
			one, s.why[i] = barred, decision.Drain.String()
		case share < 1:
			one, s.shares[i], s.share[i] = shared, max(share, 0), drawsOf(share)
		}
		own := v.ofRegions()
		s.regional = s.regional || own
		for r := range s.standing {
			switch {
			case r > 0 && !own:
				s.standing[r][i] = s.standing[0][i]
			case one != barred && v.down(region(r)):
				s.standing[r][i] = dead
			default:
				s.standing[r][i] = one
			}
		}
	}
	s.spill(t)
	for c := t.popCount; c < n; c++ {
		for r := range s.standing {
			s.standing[r][c] = t.pops[c].standingOf(s.standing[r])
			s.why[c] = t.pops[c].whyOf(s.standing[r][c], t)
		}
	}
	s.services = make([]serviceState, len(t.services))
	for id := range t.services {
		s.services[id] = s.service(&t.services[id])
	}
	return s
}

// spill takes what PoPs take of clients.
func (s *State) spill(t *Table) {
	var lost []string // or not back yet
	for i, pop := range t.pops[:t.popCount] {
		if len(s.inputs.Spill.Lost[pop.name]) > 0 && s.away(Choice(i)) {
			lost = append(lost, pop.name)
		}
	}
	s.turns = s.turnsOf(t, s.inputs.Spill.without(lost), func(c Choice, least standing) {
		for r := range s.standing {
			if s.standing[r][c] <= shared {
				s.standing[r][c] = max(s.standing[r][c], least)
			}
		}
	})
}

// effective is what holds of a PoP's health: what the operator says, and else what vantages do.
type effective struct {
	health.Verdict
	forced bool
	why    string // it is not simply well
}

// ofRegions reports whether the clients of some region may have another verdict than those of others.
func (e effective) ofRegions() bool { return !e.forced && len(e.Regions) > 0 }

// down reports whether the PoP is down for the clients of a region.
func (e effective) down(r region) bool {
	if r == 0 || e.forced {
		return e.Status == health.Down
	}
	return e.In(topology.Continents[r-1]) == health.Down
}

func (s *State) verdict(pop string, decision topology.Decision) effective {
	if forced, ok := decision.Verdict(); ok {
		e := effective{forced: true, why: decision.Force.String()}
		if forced == topology.ForceDown {
			e.Status = health.Down
		}
		return e
	}
	e := effective{Verdict: s.inputs.Verdicts[health.Target{Kind: health.PoP, Name: pop}]}
	if e.Status == health.Down || e.Status == health.Degraded {
		e.why = string(e.Status) + ": " + e.Reason
	}
	if len(e.Regions) == 0 {
		return e
	}
	for _, continent := range topology.Continents {
		if own, ok := e.Regions[continent]; ok && own.Status != e.Status {
			e.why = strings.TrimPrefix(fmt.Sprintf("%s; %s in %s", e.why, own.Status, continent), "; ")
		}
	}
	return e
}

// comebackSteps is in how many steps the share of a PoP grows that was down.
const comebackSteps = 10

// shareOf returns what share of its clients a PoP gets, 0..1. What an operator says counts alone. Else it is the least of what spill leaves it, and
// of what it gets so soon after it was down; one that cannot do all of its work gets none, while there are others.
func (s *State) shareOf(c int, pop *tablePoP, decision topology.Decision, v *effective) float64 {
	if share, pinned := decision.Share(); pinned {
		return share
	}
	share := 1.0
	if limit, limited := s.inputs.Shares[pop.name]; limited {
		share = limit
	}
	if v.forced {
		return share
	}
	if v.Status == health.Degraded {
		return 0
	}
	step := pop.ComesBack() / comebackSteps
	if v.Recovered.IsZero() || step <= 0 {
		return share
	}
	taken := int(max(s.inputs.Now.Sub(v.Recovered), 0)/step) + 1
	if taken >= comebackSteps {
		return share
	}
	s.returns[c] = true
	if next := v.Recovered.Add(time.Duration(taken) * step); s.changes.IsZero() || next.Before(s.changes) {
		s.changes = next
	}
	return min(share, float64(taken)/comebackSteps)
}

func (s *State) service(service *tableService) serviceState {
	var (
		state            serviceState
		anyWell, anyDead bool
	)
	for r := range regions {
		if r > 0 && !s.regional {
			state.panics[r] = state.panics[0]
			continue
		}
		well, some := 0, 0
		for _, c := range service.candidates {
			switch s.standing[r][c] {
			case eligible, reserved, shared:
				well, some, anyWell = well+1, some+1, true
			case dead:
				some, anyDead = some+1, true
			}
		}
		state.panics[r] = well*100 < some*service.Steering.Panic
	}
	state.down = anyDead && !anyWell && service.Steering.Panic == 0 // a panic would answer them
	if canary := service.Steering.Canary; canary != nil {
		state.canary, state.splits = drawsOf(canary.Share), canary.Share > 0 && canary.Share < 1
	}
	return state
}

// Without returns the state as it would be if a PoP were down.
func (s *State) Without(t *Table, pop string) *State {
	return NewState(t, s.inputs.supposing(pop, health.Down))
}

// supposing returns the inputs as they would be with another verdict on a PoP. An operator who has forced one is disregarded: who asks
// what happens when a PoP is down wants to know just that.
func (in Inputs) supposing(pop string, status health.Status) Inputs {
	in.Verdicts = maps.Clone(in.Verdicts)
	if in.Verdicts == nil {
		in.Verdicts = health.Verdicts{}
	}
	in.Verdicts[health.Target{Kind: health.PoP, Name: pop}] = health.Verdict{Status: status, Reason: "supposed"}
	forces := func(_ string, o *topology.Override) bool { return o.Kind == topology.Force && o.PoP == pop }
	for name, o := range in.Overrides {
		if forces(name, o) {
			in.Overrides = maps.Clone(in.Overrides)
			maps.DeleteFunc(in.Overrides, forces)
			break
		}
	}
	return in
}

// drawsOf returns how much of all draws a share is.
func drawsOf(share float64) uint64 {
	switch {
	case !(share > 0):
		return 0
	case share >= 1:
		return math.MaxUint64
	}
	return uint64(share*(1<<53)) << 11
}

// Expires returns when an override that is in effect ends, or the share of a PoP that comes back grows, so that a new state must be made, and
// false when neither does.
func (s *State) Expires() (time.Time, bool) {
	until, ends := s.decided.Until()
	if !s.changes.IsZero() && (!ends || s.changes.Before(until)) {
		return s.changes, true
	}
	return until, ends
}

// Standing returns whether a choice may be answered now, to a share of its clients at least. Why tells the reason if it may not, and
// otherwise the operator's decision that made a difference, if there is one.
func (s *State) Standing(c Choice) (ok bool, why string) {
	for r := range regions {
		if s.standing[r][c] <= shared {
			return true, s.why[c]
		}
	}
	return false, s.why[c]
}

// Decisions returns what operators have decided by overrides, as it is in effect.
func (s *State) Decisions() topology.Decisions { return s.decided }

// Verdicts returns the verdicts that the state was made of. The map must not be changed.
func (s *State) Verdicts() health.Verdicts { return s.inputs.Verdicts }
