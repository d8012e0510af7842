package router

import (
	"runtime"

	"github.com/isochrone/isochrone/topology"
)

// Atlas returns the atlas that the table was compiled with.
func (t *Table) Atlas() *Atlas { return t.atlas }

// Elsewhere compiles a topology for the clients of another atlas, with the table's measured times, overrides and the like. It leaves half of the
// processors to others. The error is ErrTooLarge.
func (t *Table) Elsewhere(atlas *Atlas, top *topology.Topology) (*Table, error) {
	snap := *t.snapshot
	snap.Topology = top
	return compile(&snap, atlas, t.rttMap, max(1, runtime.GOMAXPROCS(0)/2), nil)
}

// On returns a table as it is with the view's verdicts, shares and time, and with its overrides unless others are given. The maps must
// not change afterwards.
func (v *View) On(t *Table, overrides map[string]*topology.Override) *View {
	in := v.State.inputs
	if overrides != nil {
		in.Overrides = overrides
	}
	return &View{t, NewState(t, in)}
}
