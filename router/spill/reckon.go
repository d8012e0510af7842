package spill

import (
	"math"

	"github.com/isochrone/isochrone/router"
)

// followed is shares that a part of the clients follow still, since they ask again only when their answers have expired.
type followed struct {
	takes map[Leading]router.Takes
	part  float64
}

// reckonings is how often weights are brought nearer to what PoPs tell.
const reckonings = 15

// reckon returns a weight for each cell, at which PoPs get what was measured of them, NaN where that is not known. Of all such weights they are about
// those that differ the least from what the cells have, and no less than a floor times that. What cannot be so is returned as well: what PoPs get besides.
//
// This is the maximum-likelihood estimate from sums (Vardi, "Network tomography", 1996), which begins with the weights that there are.
func (w *World) reckon(measured []float64, by []followed, floor float64) (weights, besides []float64) {
	chances := w.chances(by)
	weights, besides = make([]float64, len(w.Cells)), make([]float64, len(w.PoPs))
	total, known := 0.0, 0.0
	for i, c := range w.Cells {
		weights[i] = c.Weight
	}
	loads := w.sum(weights, chances)
	for p, load := range loads {
		if !math.IsNaN(measured[p]) {
			total, known = total+measured[p], known+load
		}
	}
	if !(known > 0) {
		return weights, besides
	}
	for i := range weights { // where nothing is known of a PoP, as of all the others
		weights[i] *= total / known
	}
	ratio := make([]float64, len(w.PoPs))
	for range reckonings {
		loads = w.sum(weights, chances)
		for p, load := range loads {
			if ratio[p] = 1; !math.IsNaN(measured[p]) && load > 0 {
				ratio[p] = measured[p] / load
			}
		}
		for i, parts := range chances {
			factor, all := 0.0, 0.0
			for _, c := range parts {
				factor, all = factor+c.weight*ratio[c.hop], all+c.weight
			}
			if all > 0 {
				weights[i] *= factor / all
			}
		}
	}
	loads = w.sum(weights, chances)
	for p, load := range loads {
		if more := measured[p] - load; more > 0.01*measured[p] {
			besides[p] = more
		}
	}
	for i, c := range w.Cells {
		weights[i] = max(weights[i], floor*c.Weight)
	}
	return weights, besides
}

// chances returns with which chance each cell is at which PoP: of each part, hop is the PoP.
func (w *World) chances(by []followed) []parts {
	w.index()
	chances := make([]parts, len(w.Cells))
	var one parts
	for _, f := range by {
		rows := w.rowsOf(f.takes)
		for g := range w.groups {
			for _, i := range w.groups[g].cells {
				cell := w.Cells[i]
				cell.Weight = f.part
				one = cell.spread(rows[g], -1, one[:0])
				for _, p := range one {
					chances[i] = chances[i].add(0, cell.Hops[p.hop].PoP, p.weight)
				}
			}
		}
	}
	return chances
}

func (w *World) sum(weights []float64, chances []parts) []float64 {
	loads := make([]float64, len(w.PoPs))
	for i, parts := range chances {
		for _, p := range parts {
			loads[p.hop] += weights[i] * p.weight
		}
	}
	return loads
}
