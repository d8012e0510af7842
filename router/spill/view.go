package spill

import (
	"slices"

	"github.com/isochrone/isochrone/router"
)

// maxHops is how many PoPs a cell may be sent to at the most: the nearest.
const maxHops = 48

// NewWorld makes a world of a view and of what clients ask for. The PoPs are those that may be answered and do not just come back; what they can do,
// by name, is given, see Memory. Round-trip times are those that the view ranks by.
func NewWorld(v *router.View, capacities map[string]float64, demand []Demand) *World {
	return NewPopulation(v.Table, demand).World(v, capacities, v.State.Away(v.Table), nil)
}

// World makes a world of the population, without PoPs that are away, by name in order. Weights are those of the crowds, or of the population for nil.
// The view's table must be the population's, or decide as it does.
func (p *Population) World(v *router.View, capacities map[string]float64, away []string, weights []float64) *World {
	w := &World{Away: away}
	number := make([]int, v.Table.PoPs())
	for c := range number {
		number[c] = -1
		name, _ := v.Table.PoP(router.Choice(c))
		if _, gone := slices.BinarySearch(away, name); !gone {
			number[c] = len(w.PoPs)
			_, pinned := v.State.Limit(v.Table, router.Choice(c))
			w.PoPs = append(w.PoPs, PoP{Name: name, CapacityRPS: capacities[name], Pinned: pinned})
		}
	}
	for i := range p.crowds {
		c := &p.crowds[i]
		cell := Cell{Weight: c.weight, Leading: c.leading, Answers: c.answers, Fixed: c.steady, crowd: i}
		if weights != nil {
			cell.Weight = weights[i]
		}
		for j, choice := range c.order {
			if len(cell.Hops) >= maxHops {
				break
			}
			cell.addHop(v, c, choice, c.ms[j], number, w)
		}
		if len(cell.Hops) > 0 {
			w.Cells = append(w.Cells, cell)
		}
	}
	w.index()
	return w
}

// addHop adds a choice of a crowd, if it may be answered. For a VIP that are the PoPs that announce it, the nearest first: routing may choose otherwise.
func (c *Cell) addHop(v *router.View, crowd *crowd, choice router.Choice, ms float64, number []int, w *World) {
	if !v.MayAnswer(choice, crowd.region) {
		return
	}
	if v.Table.IsVIP(choice) {
		c.Fixed = true
		for i, announcer := range crowd.order {
			if !v.Table.IsVIP(announcer) && v.MayAnswer(announcer, crowd.region) && slices.Contains(v.Table.Announcers(choice), announcer) && number[announcer] >= 0 {
				c.Hops = append(c.Hops, Hop{PoP: number[announcer], MS: crowd.ms[i]})
			}
		}
		return
	}
	hop := Hop{PoP: number[choice], MS: ms}
	if hop.PoP < 0 || slices.ContainsFunc(c.Hops, func(h Hop) bool { return h.PoP == hop.PoP }) { // by the VIP already
		return
	}
	hop.Limit, _ = v.State.Limit(v.Table, choice)
	c.Hops = append(c.Hops, hop)
	if crowd.resolver.IsValid() {
		c.Draws = append(c.Draws, router.Draw(crowd.resolver, w.PoPs[hop.PoP].Name))
	}
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
