package router

import "net/netip"

// Away returns the PoPs, by name in order, that may not be answered, get nothing, or were down and do not get all again yet: while they are so, the shares
// of Spill.Lost count.
func (s *State) Away(t *Table) []string {
	var names []string
	for c, pop := range t.pops[:t.popCount] {
		if s.away(Choice(c)) {
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

// MayAnswer reports whether a choice may be answered to a client now, by what operators and verdicts for the client's region say.
func (v *View) MayAnswer(c Choice, client netip.Addr) bool {
	at := v.Table.atlas.locations[v.Table.locationOf(v.Table.find(client))].region
	return v.State.standing[at][c] <= shared
}
