package placement

import (
	"context"
	"flag"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/isochrone/isochrone/router/rtt"
)

var worlds = flag.Int("worlds", 20, "draws of 30 sites for TestNearTheBest")

// random is a problem on a plane.
func random(r *rand.Rand, sites, places int) *Problem {
	p := &Problem{Weights: make([]float64, places), RTT: make([][]float64, sites)}
	type point struct{ x, y float64 }
	draw := func() point { return point{r.Float64() * 200, r.Float64() * 100} }
	clients := make([]point, places)
	for i := range clients {
		clients[i], p.Weights[i] = draw(), r.ExpFloat64()
	}
	for s := range sites {
		at := draw()
		for _, c := range clients {
			p.RTT[s] = append(p.RTT[s], 2.5+math.Hypot(c.x-at.x, c.y-at.y))
		}
	}
	return p
}

// TestBest holds the search against all subsets.
func TestBest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		p := random(r, 3+r.IntN(8), 1+r.IntN(12))
		if r.IntN(2) == 0 {
			p.There = slices.Clone(p.RTT[0])
		}
		n := 1 + r.IntN(len(p.RTT))
		want := math.Inf(1)
		for set := range 1 << len(p.RTT) {
			var sites []int
			for s := range p.RTT {
				if set>>s&1 == 1 {
					sites = append(sites, s)
				}
			}
			if len(sites) <= n {
				want = min(want, p.total(p.nearest(sites)))
			}
		}
		got, err := p.Best(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.Cost()-want) > 1e-6*want {
			t.Fatalf("%d of %d sites: got %v, the best of all is %v", n, len(p.RTT), got.Cost(), want)
		}
		if chosen := p.Choose(n); chosen.Cost() < want*(1-1e-9) || len(chosen.Sites) != n || chosen.Total[0] != p.total(p.nearest(nil)) {
			t.Fatalf("%d of %d sites: chose %+v, the best of all is %v", n, len(p.RTT), chosen, want)
		}
	}
}

// TestNearTheBest holds greedy with swaps to at most 2 % above the optimum at 12 of 30 sites for the world's nodes.
func TestNearTheBest(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	model, metros := rtt.Default(), rtt.Metros()
	for world := range *worlds {
		p := new(Problem)
		for _, m := range metros {
			p.Weights = append(p.Weights, m.Weight)
		}
		for _, site := range r.Perm(len(metros))[:30] {
			row := make([]float64, len(metros))
			for i, m := range metros {
				row[i] = model.Milliseconds(metros[site].Location, m.Location)
			}
			p.RTT = append(p.RTT, row)
		}
		best, err := p.Best(t.Context(), 12)
		if err != nil {
			t.Fatal(err)
		}
		chosen := p.Choose(12)
		above := chosen.Cost()/best.Cost() - 1
		t.Logf("world %d: %.2f %% above the best", world, 100*above)
		if above > 0.02 || above < -1e-9 {
			t.Errorf("world %d: %.2f %% above the best", world, 100*above)
		}
	}
}

// TestBestEnds ends a search that would take long.
func TestBestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := random(rand.New(rand.NewPCG(3, 3)), 60, 100).Best(ctx, 30); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
