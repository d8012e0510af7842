package spill

import (
	"maps"
	"math"
	"slices"

	"github.com/isochrone/isochrone/router"
)

// followed is shares that a part of the clients follow still, since they ask again only when their answers have expired.
type followed struct {
	takes map[Leading]router.Takes
	part  float64
}

// model is what PoPs get of the clients of each first choice: all whose class has the same first PoP are held to do alike, so that it can be told what
// they ask for wherever shares send them.
type model struct {
	homes []string       // by name, in order
	from  []float64      // of each: what the population says that they ask for
	to    [2][][]float64 // what each PoP gets of it: when clients follow at once, and when they do so as late as can be
}

// newModel makes a model of a world.
func newModel(w *World, early, late []followed) *model {
	m := &model{}
	for i, by := range [][]followed{early, late} {
		homes, from := w.homes(by)
		if i == 0 {
			m.homes = slices.Sorted(maps.Keys(homes))
		}
		for _, home := range m.homes {
			m.to[i] = append(m.to[i], homes[home])
			if i == 0 {
				m.from = append(m.from, from[home])
			}
		}
	}
	return m
}

// between returns what PoPs get at the least and at the most when homes ask for so many times what the population says.
func (m *model) between(factors map[string]float64, pops int) (least, most []float64) {
	var loads [2][]float64
	for i := range loads {
		loads[i] = make([]float64, pops)
		for h, home := range m.homes {
			for p, load := range m.to[i][h] {
				loads[i][p] += factors[home] * load
			}
		}
	}
	least, most = loads[0], slices.Clone(loads[1])
	for p := range least {
		least[p], most[p] = min(loads[0][p], loads[1][p]), max(loads[0][p], loads[1][p])
	}
	return least, most
}

// reckon brings factors nearer to those by which PoPs get what was measured of them, NaN where that is not known: in so many rounds, of which each goes
// a part of the way. What lies between what clients come to who follow at once and late is right as it is.
//
// With many rounds and all of the way this is the maximum-likelihood estimate from sums (Vardi, "Network tomography", 1996). With few it
// does not take each error of shares, which divide clients by buckets that are not alike, for news of what clients ask for.
func (m *model) reckon(measured []float64, factors map[string]float64, rounds int, part float64) {
	ratio := make([]float64, len(measured))
	for range rounds {
		least, most := m.between(factors, len(measured))
		worst := 0.0
		for p := range ratio {
			switch ratio[p] = 1; {
			case math.IsNaN(measured[p]):
			case measured[p] > most[p] && most[p] > 0:
				ratio[p] = measured[p] / most[p]
			case measured[p] < least[p]:
				ratio[p] = measured[p] / least[p]
			}
			worst = max(worst, math.Abs(ratio[p]-1))
		}
		if worst < 1e-4 {
			return
		}
		for h, home := range m.homes {
			sum, all := 0.0, 0.0
			for p := range ratio {
				load := m.to[0][h][p] + m.to[1][h][p]
				sum, all = sum+load*ratio[p], all+load
			}
			if all > 0 {
				factors[home] = max(factors[home]*math.Pow(sum/all, part), 1e-12)
			}
		}
	}
}

// homes returns what PoPs get of the clients of each first choice, by the cells' weights, and what that is in all.
func (w *World) homes(by []followed) (homes map[string][]float64, from map[string]float64) {
	w.index()
	homes, from = map[string][]float64{}, map[string]float64{}
	var one parts
	for _, f := range by {
		rows := w.rowsOf(f.takes)
		for g := range w.groups {
			home := w.groups[g].leading[0]
			if homes[home] == nil {
				homes[home] = make([]float64, len(w.PoPs))
			}
			for _, i := range w.groups[g].cells {
				cell := &w.Cells[i]
				one = cell.spread(rows[g], -1, one[:0])
				for _, p := range one {
					homes[home][cell.Hops[p.hop].PoP] += f.part * p.weight
					from[home] += f.part * p.weight
				}
			}
		}
	}
	return homes, from
}
