package spill

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize/convex/lp"
)

// program is a linear program in the making: rows of constraints on variables of at least 0.
type program struct {
	cost  []float64
	equal [][]float64 // each as long as cost, when all variables are there
	is    []float64
}

// variable adds a variable.
func (p *program) variable(cost float64) int {
	p.cost = append(p.cost, cost)
	for i := range p.equal {
		p.equal[i] = append(p.equal[i], 0)
	}
	return len(p.cost) - 1
}

// constraint adds a row, to be filled in.
func (p *program) constraint(is float64) []float64 {
	p.equal, p.is = append(p.equal, make([]float64, len(p.cost))), append(p.is, is)
	return p.equal[len(p.equal)-1]
}

func (p *program) solve() (float64, error) {
	flat := []float64{}
	for _, row := range p.equal {
		flat = append(flat, row...)
	}
	value, _, err := lp.Simplex(p.cost, mat.NewDense(len(p.is), len(p.cost), flat), p.is, 1e-10, nil)
	return value, err
}

// shipping makes the program of a transport problem: variables flow[s][p], and those of the rooms that stay empty.
func shipping(t *transport) (program, [][]int) {
	var p program
	flow := make([][]int, len(t.supply))
	for s := range t.supply {
		for q := range t.room {
			flow[s] = append(flow[s], p.variable(t.cost[s][q]))
		}
	}
	empty := make([]int, len(t.room))
	for q := range t.room {
		empty[q] = p.variable(0)
	}
	for s, amount := range t.supply {
		row := p.constraint(amount)
		for q := range t.room {
			row[flow[s][q]] = 1
		}
	}
	for q, room := range t.room {
		row := p.constraint(room)
		row[empty[q]] = 1
		for s := range t.supply {
			row[flow[s][q]] = 1
		}
	}
	return p, flow
}

func randomTransport(random *rand.Rand) *transport {
	t := &transport{}
	all := 0.0
	for range 2 + random.IntN(14) {
		t.supply = append(t.supply, random.Float64())
		all += t.supply[len(t.supply)-1]
	}
	n := 2 + random.IntN(6)
	rooms := 0.0
	for range n {
		t.room = append(t.room, random.Float64()+0.01)
		rooms += t.room[len(t.room)-1]
	}
	for q := range t.room {
		t.room[q] *= all / rooms * (1.01 + random.Float64()*0.5)
	}
	for range t.supply {
		cost := make([]float64, n)
		for q := range cost {
			cost[q] = float64(random.IntN(200))
		}
		t.cost = append(t.cost, cost)
	}
	return t
}

// TestTransportAgainstSimplex holds the minimum-cost flow against a linear program, for random problems.
func TestTransportAgainstSimplex(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		x := randomTransport(random)
		p, _ := shipping(x)
		want, err := p.solve()
		if err != nil {
			t.Fatal(err)
		}
		x.solve()
		if math.Abs(x.total()-want) > 1e-6*(1+want) || x.over > 1e-6 {
			t.Fatalf("got %v and %v over, want %v, of %+v", x.total(), x.over, want, x)
		}
		for s, flow := range x.flow {
			sum := 0.0
			for _, amount := range flow {
				sum += amount
			}
			if math.Abs(sum-x.supply[s]) > 1e-9 {
				t.Fatalf("supply %d has %v, want %v", s, sum, x.supply[s])
			}
		}
	}
}

// TestLeastMoves overloads PoPs of worlds in which each group is one cell, by a growing demand. Those who move are at most 5 % more than the fewest
// that can move at that round-trip time, by a linear program.
func TestLeastMoves(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 1))
	moves := 0
	for n := range 60 {
		w := randomWorld(random, 3+random.IntN(3), 7)
		w.capacities(0.6, uint64(n))
		options := Options{Fill: 1}
		inForce, _ := Plan(w, noShares, options)
		grown := &World{PoPs: w.PoPs}
		for _, c := range w.Cells {
			c.Weight *= 1 + 0.5*random.Float64()
			grown.Cells = append(grown.Cells, c)
		}
		next, report := Plan(grown, inForce, options)
		if report.Why != "overload" {
			continue
		}
		before := newLedger(grown, -1, grown.rowsOf(inForce.Takes))
		x := &transport{room: grown.rooms(1, -1)}
		for g := range grown.groups {
			x.supply, x.cost = append(x.supply, grown.groups[g].weight), append(x.cost, grown.groups[g].ms)
		}
		p, flow := shipping(x)
		for i := range p.cost {
			p.cost[i] = 0
		}
		slack := p.variable(0)
		_, ms := Flows(grown, next, -1)
		limit := len(p.equal)
		p.constraint(ms * grown.total * (1 + 1e-9))[slack] = 1
		for g := range grown.groups { // what is more than before costs something
			for q, had := range before.flow(g) {
				p.equal[limit][flow[g][q]] = grown.groups[g].ms[q]
				p.cost[flow[g][q]] = 1
				if had == 0 {
					continue
				}
				stays, rest := p.variable(0), p.variable(0)
				p.equal[limit][stays] = grown.groups[g].ms[q]
				p.equal[g][stays], p.equal[len(x.supply)+q][stays] = 1, 1
				row := p.constraint(had)
				row[stays], row[rest] = 1, 1
			}
		}
		least, err := p.solve()
		if err != nil {
			continue // the simplex does not find a basis of some degenerate programs
		}
		moves++
		if report.Moved > least*1.05+2e-3*grown.total {
			t.Errorf("world %d: %.4f of %.4f move at %.3f ms (the least is %.3f), the fewest are %.4f", n, report.Moved, grown.total, ms, report.BestMS, least)
		}
		if report.Over > 1e-6 || ms > report.BestMS*1.03 {
			t.Errorf("world %d: %v over, %.3f ms, the least is %.3f", n, report.Over, ms, report.BestMS)
		}
	}
	if moves < 20 {
		t.Errorf("%d worlds were compared", moves)
	}
}
