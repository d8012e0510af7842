package spill

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// capacities gives PoPs capacity, partly by what their nearest clients ask for, so that all of it is filled to a part.
func (w *World) capacities(fill float64, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2))
	all := 0.0
	for p, load := range w.nearest() {
		w.PoPs[p].CapacityRPS = (0.3*load + 0.7*w.total/float64(len(w.PoPs))) * math.Exp(0.3*random.NormFloat64())
		all += w.PoPs[p].CapacityRPS
	}
	for p := range w.PoPs {
		w.PoPs[p].CapacityRPS *= w.total / all / fill
	}
}

// optimum is the least mean round-trip time at which no PoP has more than its room, if each cell could be divided at will.
func (w *World) optimum(room []float64) (ms, over float64) {
	t := transport{room: room}
	for _, c := range w.Cells {
		cost := make([]float64, len(w.PoPs))
		for p := range cost {
			cost[p] = inf
		}
		for _, h := range c.Hops {
			cost[h.PoP] = h.MS
		}
		t.cost, t.supply = append(t.cost, cost), append(t.supply, c.Weight)
	}
	t.solve()
	return t.total() / w.total, t.over
}

func TestFirst(t *testing.T) {
	names, at := fortyPoPs(t)
	for seed := range uint64(3) {
		w := worldOf(names, at, 2000, seed)
		for _, fill := range []float64{0.5, 0.6, 0.7, 0.8, 0.9} {
			w.capacities(fill, seed)
			begin := time.Now()
			room := w.rooms(1, -1)
			l := w.realise(w.target(room, nil, 0).flow, room, nil, nil)
			made := time.Since(begin)
			flows := make([][]float64, len(w.groups))
			for g := range flows {
				flows[g] = l.flow(g)
			}
			worst, sum, ms, over := 0.0, 0.0, 0.0, 0
			for p := range w.PoPs {
				a := w.afterLoss(l, flows, p)
				x := a.excess(w.rooms(1, p))
				worst, sum, ms = max(worst, x), sum+x, max(ms, a.ms())
				for q := range w.PoPs {
					if a.load[q] > w.rooms(1, p)[q]*1.001 {
						over++
					}
				}
			}
			took := time.Since(begin)
			best, _ := w.optimum(room)
			t.Logf("seed %d fill %.1f optimum %.3f groups %d: %.4f over %.2g (%v); after %d worst %.2g sum %.2g ms %.3f (%v)", seed, fill, best, len(w.groups), l.ms()/best, l.excess(room),
				made.Round(time.Millisecond), over, worst, sum, ms, took.Round(time.Millisecond))
		}
	}
}
