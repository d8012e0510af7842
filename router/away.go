package router

import "net/netip"

// Away returns the PoPs, by name in order, that may not be answered, get nothing, or were down and do not get all again yet: while they are so, the shares
// of Spill.Lost count.
func (s *State) Away(t *Table) []string {
	return s.names(t, s.away)
}

// Returning returns those of Away that come back: they are answered, and get ever more of their clients until they get all.
func (s *State) Returning(t *Table) []string {
	return s.names(t, func(c Choice) bool { return s.returns[c] && s.standing[0][c] <= shared && s.shares[c] > 0 })
}

func (s *State) names(t *Table, are func(Choice) bool) []string {
	var names []string
	for c, pop := range t.pops[:t.popCount] {
		if are(Choice(c)) {
			names = append(names, pop.name)
		}
	}
	return names
}

func (s *State) away(c Choice) bool {
	return s.standing[0][c] > shared || s.shares[c] == 0 || s.returns[c]
}

// InForce returns what counts while PoPs are away, in order of their names. The maps in it must not be changed.
func (s Spill) InForce(away []string) map[Leading]Takes { return s.without(away) }

// Spill returns the shares that the state was made of. They must not be changed.
func (s *State) Spill() Spill { return s.inputs.Spill }

// Limit returns what share of its clients a choice gets at most, 0..1, whatever Spill says of it, and whether that counts alone, since an operator has
// pinned it.
func (s *State) Limit(t *Table, c Choice) (share float64, pinned bool) {
	return s.shares[c], int(c) < t.popCount && s.decided.PoP(t.pops[c].name).Pin != nil
}

// Region numbers the part of the world that a client is in: verdicts may differ by it.
func (t *Table) Region(client netip.Addr) int {
	return int(t.atlas.locations[t.locationOf(t.find(client))].region)
}

// MayAnswer reports whether a choice may be answered to clients of a region now, by what operators and verdicts say.
func (v *View) MayAnswer(c Choice, region int) bool { return v.State.standing[region][c] <= shared }
