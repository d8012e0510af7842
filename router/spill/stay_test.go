package spill

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize/convex/lp"
)

// simplex solves a transport problem by gonum: the least cost, with what finds no room at a price above all costs.
func simplex(t *transport, price float64) (float64, error) {
	type variable struct {
		supply, pop int // -1 for none
		cost        float64
		most        float64 // +Inf for any
	}
	var vars []variable
	for s := range t.supply {
		for p, cost := range t.cost[s] {
			if cost == inf {
				continue
			}
			if t.stay != nil && t.stay[s][p] > 0 {
				vars = append(vars, variable{s, p, cost - t.worth, t.stay[s][p]})
			}
			vars = append(vars, variable{s, p, cost, inf})
		}
	}
	rows := len(t.supply) + len(t.room)
	bounded := 0
	for _, v := range vars {
		if v.most < inf {
			bounded++
		}
	}
	n := len(vars)
	columns := n + 2*len(t.room) + bounded // slack and excess of each PoP, slack of each bound
	a, b, c := mat.NewDense(rows+bounded, columns, nil), make([]float64, rows+bounded), make([]float64, columns)
	for s, amount := range t.supply {
		b[s] = amount
	}
	for p, room := range t.room {
		row := len(t.supply) + p
		b[row] = room
		a.Set(row, n+2*p, 1)
		a.Set(row, n+2*p+1, -1)
		c[n+2*p+1] = price
	}
	bound := 0
	for i, v := range vars {
		c[i] = v.cost
		a.Set(v.supply, i, 1)
		a.Set(len(t.supply)+v.pop, i, 1)
		if v.most < inf {
			a.Set(rows+bound, i, 1)
			a.Set(rows+bound, n+2*len(t.room)+bound, 1)
			b[rows+bound] = v.most
			bound++
		}
	}
	least, _, err := lp.Simplex(c, a, b, 1e-10, nil)
	return least, err
}

// worthOf is what a solution costs, parts that stay counted nearer, and what has no room at a price.
func (t *transport) worthOf(price float64) float64 {
	sum := 0.0
	load := make([]float64, len(t.room))
	for s, flow := range t.flow {
		for p, amount := range flow {
			if amount > 0 {
				sum += amount * t.cost[s][p]
				load[p] += amount
			}
			if t.stay != nil {
				sum -= t.worth * math.Min(amount, t.stay[s][p])
			}
		}
	}
	for p := range load {
		sum += price * max(load[p]-t.room[p], 0)
	}
	return sum
}

// randomStay makes a random problem of a kind.
func randomStay(r *rand.Rand, kind string) *transport {
	supplies, pops := 2+r.IntN(7), 2+r.IntN(4)
	x := &transport{}
	all := 0.0
	for range supplies {
		amount := 0.1 + r.Float64()
		cost := make([]float64, pops)
		for p := range cost {
			cost[p] = 1 + 100*r.Float64()
			if kind == "forbidden" && r.IntN(4) == 0 && p > 0 {
				cost[p] = inf
			}
		}
		all += amount
		x.supply, x.cost = append(x.supply, amount), append(x.cost, cost)
	}
	fill := 0.6 + 0.39*r.Float64()
	if kind == "scarce" {
		fill = 1.2
	}
	sum := 0.0
	for range pops {
		x.room = append(x.room, 0.2+r.Float64())
		sum += x.room[len(x.room)-1]
	}
	for p := range x.room {
		x.room[p] *= all / fill / sum
	}
	if strings.HasPrefix(kind, "stay") {
		x.worth = 20 * r.Float64()
		for s := range x.supply {
			stay, left := make([]float64, pops), x.supply[s]
			switch kind {
			case "stay, less demand":
				left *= 1.5
			case "stay, more demand":
				left *= 0.7
			}
			for range 2 {
				part := left * r.Float64()
				stay[r.IntN(pops)] += part
				left -= part
			}
			stay[r.IntN(pops)] += left
			x.stay = append(x.stay, stay)
		}
	}
	return x
}

// TestStayAgainstSimplex holds the minimum-cost flow against a linear program where some supplies may not go everywhere, where there is too little
// room, and where what stays counts as nearer, while demand is what it was, less, or more.
func TestStayAgainstSimplex(t *testing.T) {
	const price = 1e4
	for _, kind := range []string{"plain", "forbidden", "scarce", "stay", "stay, less demand", "stay, more demand"} {
		t.Run(kind, func(t *testing.T) {
			bad, worst := 0, ""
			const instances = 150
			for seed := range uint64(instances) {
				r := rand.New(rand.NewPCG(seed, 9))
				x := randomStay(r, kind)
				x.solve()
				for s := range x.flow {
					got := 0.0
					for _, amount := range x.flow[s] {
						if amount < 0 {
							t.Fatalf("seed %d: a flow of %v", seed, amount)
						}
						got += amount
					}
					if math.Abs(got-x.supply[s]) > 1e-6 {
						t.Fatalf("seed %d: of %v, %v are brought somewhere", seed, x.supply[s], got)
					}
				}
				want, err := simplex(x, price)
				if err != nil {
					t.Fatalf("seed %d: gonum: %v", seed, err)
				}
				if got := x.worthOf(price); math.Abs(got-want) > 1e-5*math.Abs(want)+1e-4 {
					bad++
					if worst == "" {
						worst = fmt.Sprintf("seed %d: got %.6f, want %.6f", seed, got, want)
					}
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d are not optimal, the first: %s", bad, instances, worst)
			}
		})
	}
}
