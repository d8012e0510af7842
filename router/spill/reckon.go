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

// reckonings is how often weights are brought nearer to what PoPs tell.
const reckonings = 200

// reckon finds how much more or less clients ask for than the cells' weights say, by the PoP that is the first choice of their class, so that PoPs get
// what was measured of them, NaN where that is not known. All clients of one first choice are held to do alike: then what they ask for can be told
// wherever shares send them. It begins with the factors that are given, where they are, and changes no more of them than it has to. What
// cannot be so is returned as well: what PoPs get besides.
//
// This is the maximum-likelihood estimate from sums (Vardi, "Network tomography", 1996).
func (w *World) reckon(measured []float64, by []followed, factors map[string]float64) (found map[string]float64, besides []float64) {
	homes, from := w.homes(by)
	names := slices.Sorted(maps.Keys(homes))
	known, told, sum := 0.0, 0.0, make([]float64, len(w.PoPs))
	add := func(factor func(string) float64) {
		clear(sum)
		for _, home := range names {
			for p, load := range homes[home] {
				sum[p] += factor(home) * load
			}
		}
	}
	add(func(string) float64 { return 1 })
	for p, load := range sum {
		if !math.IsNaN(measured[p]) {
			told, known = told+measured[p], known+load
		}
	}
	found, besides = map[string]float64{}, make([]float64, len(w.PoPs))
	for _, home := range names {
		if found[home] = factors[home]; !(found[home] > 0) {
			found[home] = max(told/max(known, 1e-300), 1e-12)
		}
	}
	ratio := make([]float64, len(w.PoPs))
	for range reckonings {
		add(func(home string) float64 { return found[home] })
		worst := 0.0
		for p, load := range sum {
			if ratio[p] = 1; !math.IsNaN(measured[p]) && load > 0 {
				ratio[p] = measured[p] / load
				worst = max(worst, math.Abs(ratio[p]-1))
			}
		}
		if worst < 1e-4 {
			break
		}
		for _, home := range names {
			factor := 0.0
			for p, load := range homes[home] {
				factor += load * ratio[p]
			}
			if from[home] > 0 {
				found[home] *= factor / from[home]
			}
		}
	}
	add(func(home string) float64 { return found[home] })
	for p, load := range sum {
		if more := measured[p] - load; more > 0.01*measured[p] {
			besides[p] = more
		}
	}
	return found, besides
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
