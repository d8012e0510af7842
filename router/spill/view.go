package spill

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/router"
)

// Demand is what the clients of a prefix ask of a service.
type Demand struct {
	Service  router.ServiceID
	Client   netip.Prefix
	RPS      float64
	Resolver bool // it is one resolver's address, whose clients cannot be divided
}

// NewWorld makes a world of a view and of what clients ask for. The PoPs are those that may be answered
// and do not just come back; what they can do is their capacity in the
// topology and what their loads, by name, say. Round-trip times are those that the view ranks by. Cells are as many as there are demands of PoPs.
func NewWorld(v *router.View, loads map[string]Load, demand []Demand) *World {
	w := &World{Away: v.State.Away(v.Table)}
	number := make([]int, v.Table.PoPs())
	for c := range number {
		number[c] = -1
		name, pop := v.Table.PoP(router.Choice(c))
		if _, away := slices.BinarySearch(w.Away, name); !away {
			number[c] = len(w.PoPs)
			w.PoPs = append(w.PoPs, PoP{name, loads[name].Capacity(float64(pop.CapacityRPS))})
		}
	}
	demand = slices.Clone(demand)
	location := func(d Demand) uint32 { at, _ := v.Table.Location(d.Client.Addr()); return at }
	slices.SortStableFunc(demand, func(a, b Demand) int { // neighbours' round-trip times are found together
		return cmp.Or(cmp.Compare(location(a), location(b)), a.Client.Compare(b.Client), cmp.Compare(a.Service, b.Service))
	})
	meter := v.Table.Meter()
	for _, d := range demand {
		client := d.Client.Addr()
		family := router.IPv4
		if client.Is6() {
			family = router.IPv6
		}
		order, leading := v.Table.Order(d.Service, family, client)
		_, service := v.Table.ServiceByID(d.Service)
		cell := Cell{Weight: max(d.RPS, 0), Leading: leading, Answers: service.Steering.Answers}
		for _, c := range order {
			if p := number[c]; p >= 0 && v.MayAnswer(c, client) {
				cell.Hops = append(cell.Hops, Hop{p, meter.Milliseconds(client, c)})
				if d.Resolver {
					cell.Draws = append(cell.Draws, router.Draw(client, w.PoPs[p].Name))
				}
			}
		}
		if len(cell.Hops) > 0 {
			w.Cells = append(w.Cells, cell)
		}
	}
	w.index()
	return w
}

// Flows returns what each PoP of the world gets by shares, in requests a second, and the mean round-trip time; with one PoP lost, by its index, or
// none (-1).
func Flows(w *World, s router.Spill, lost int) (loads []float64, meanMS float64) {
	w.index()
	rows := w.rowsOf(s.Takes)
	if lost >= 0 {
		rows = w.rowsAfter(rows, s.Lost[w.PoPs[lost].Name], lost)
	}
	l := newLedger(w, lost, rows)
	return l.load, l.ms()
}
