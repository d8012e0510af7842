package spill

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
	"go.yaml.in/yaml/v3"
)

// fortyPoPs returns the PoPs of docs/forty-pops.yaml, in order of their names, with their places.
func fortyPoPs(tb testing.TB) (names []string, at []topology.Location) {
	tb.Helper()
	text, err := os.ReadFile("../../docs/forty-pops.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	var doc struct {
		PoPs map[string]struct {
			Location struct {
				Lat, Lon float64
				Country  string
			}
		}
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		tb.Fatal(err)
	}
	for name := range doc.PoPs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		l := doc.PoPs[name].Location
		at = append(at, topology.Location{LatDeg: l.Lat, LonDeg: l.Lon, Country: l.Country})
	}
	return names, at
}

// worldOf places cells around the metros of the world's nodes, of which each gets its share of the weight, 1 in all; positions and
// weights vary by a seed.
func worldOf(names []string, at []topology.Location, cells int, seed uint64) *World {
	random := rand.New(rand.NewPCG(seed, 1))
	w := &World{}
	for _, name := range names {
		w.PoPs = append(w.PoPs, PoP{Name: name})
	}
	targets := rtt.Default().Targets(at)
	metros, sum := rtt.Metros(), 0.0
	for _, m := range metros {
		sum += m.Weight
	}
	us := make([]uint32, len(at))
	for _, m := range metros {
		count := max(1, int(math.Round(float64(cells)*m.Weight/sum)))
		if len(metros) > cells/4 {
			count = 1
		}
		for range count {
			place := m.Location
			place.LatDeg = max(-89, min(89, place.LatDeg+random.NormFloat64()*2))
			place.LonDeg += random.NormFloat64() * 2
			targets.Microseconds(place, us)
			cell := Cell{Weight: m.Weight / sum / float64(count) * math.Exp(random.NormFloat64())}
			for p := range at {
				cell.Hops = append(cell.Hops, Hop{PoP: p, MS: float64(us[p])/1000 + random.Float64()*0.01})
			}
			slices.SortFunc(cell.Hops, func(a, b Hop) int { return cmp.Compare(a.MS, b.MS) })
			cell.Leading = Leading{names[cell.Hops[0].PoP], names[cell.Hops[1].PoP], names[cell.Hops[2].PoP], names[cell.Hops[3].PoP]}
			w.Cells = append(w.Cells, cell)
		}
	}
	w.index()
	return w
}

// nearest returns what each PoP gets when all go to their nearest.
func (w *World) nearest() []float64 {
	loads := make([]float64, len(w.PoPs))
	for _, c := range w.Cells {
		loads[c.Hops[0].PoP] += c.Weight
	}
	return loads
}

var noShares router.Spill

// randomWorld has PoPs and cells on a plane, no two of which have their first choices in common where that can be.
func randomWorld(random *rand.Rand, pops, cells int) *World {
	w := &World{}
	at := make([][2]float64, pops)
	for p := range at {
		at[p] = [2]float64{random.Float64() * 100, random.Float64() * 100}
		w.PoPs = append(w.PoPs, PoP{Name: fmt.Sprintf("pop%03d", p)})
	}
	seen := map[Leading]bool{}
	for range 50 * cells {
		x, y := random.Float64()*100, random.Float64()*100
		c := Cell{Weight: 0.1 + random.ExpFloat64()}
		for p := range at {
			c.Hops = append(c.Hops, Hop{PoP: p, MS: 1 + math.Hypot(x-at[p][0], y-at[p][1])})
		}
		slices.SortFunc(c.Hops, func(a, b Hop) int { return cmp.Compare(a.MS, b.MS) })
		for i := range min(len(c.Leading), len(c.Hops)) {
			c.Leading[i] = w.PoPs[c.Hops[i].PoP].Name
		}
		if !seen[c.Leading] {
			seen[c.Leading] = true
			w.Cells = append(w.Cells, c)
		}
		if len(w.Cells) == cells {
			break
		}
	}
	w.index()
	return w
}
