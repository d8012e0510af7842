package router

import (
	"runtime"
	"slices"

	"github.com/isochrone/isochrone/topology"
)

// With returns the table of another snapshot, for the same geo database and RTT map. Most edits leave all rankings as they are, such
// as those of addresses, states, capacities, zones or times to live: then it shares them with t, and takes milliseconds however many
// clients there are. The error is ErrTooLarge.
func (t *Table) With(snap *topology.Snapshot) (*Table, error) {
	return compile(snap, t.atlas, t.rttMap, runtime.GOMAXPROCS(0), t)
}

// inherit takes over from an older table what depends on its rankings, if they are all the same: those of the same PoPs at the same
// places, by the same policies. It reports whether they are.
func (t *Table) inherit(old *Table) bool {
	if old == nil || t.atlas != old.atlas || t.rttMap != old.rttMap || len(t.pops) != len(old.pops) || t.popCount != old.popCount || len(t.rankings) != len(old.rankings) {
		return false
	}
	for i := range t.pops {
		if t.pops[i].name != old.pops[i].name || t.pops[i].Location != old.pops[i].Location {
			return false
		}
	}
	byKey := make(map[string]*ranking, len(old.rankings))
	for _, r := range old.rankings {
		byKey[r.key] = r
	}
	same := make(map[*ranking]*ranking, len(old.rankings))
	for _, r := range t.rankings {
		if same[r] = byKey[r.key]; same[r] == nil {
			return false
		}
	}
	for i := range t.services {
		s := &t.services[i]
		for family := range families {
			s.rankings[family], s.canary[family] = same[s.rankings[family]], same[s.canary[family]]
		}
	}
	t.rankings = old.rankings
	t.targets, t.near, t.mean = old.targets, old.near, slices.Clone(old.mean)
	t.nearestAnnouncer(t.mean) // others may announce a VIP now
	t.v4, t.v6, t.origins, t.cuts = old.v4, old.v6, old.origins, old.cuts
	return true
}
