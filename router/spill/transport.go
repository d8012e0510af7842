package spill

import "math"

var inf = math.Inf(1)

// transport is the problem to bring supplies to PoPs of limited room at the lowest cost: a minimum-cost flow in a bipartite network. It
// is solved by successive shortest paths among the PoPs, whose edges are the cheapest way to bring a part of what one has to another
// (Ahuja, Magnanti, Orlin, "Network Flows", section 9.7). All that has a place has one at the optimum, unless the work is bounded: then
// what has been found is good, and what is left over stays where it is cheapest.
type transport struct {
	cost   [][]float64 // by supply and PoP; +Inf where it may not go
	supply []float64
	room   []float64 // by PoP; +Inf for any
	most   int       // steps that may be done; 0 for any
	tiny   float64   // what rounding may have left of nothing

	flow    [][]float64 // by supply and PoP: the solution
	load    []float64
	cut     bool        // there was more to do
	over    float64     // supply that has found no room; it is left where it is cheapest
	edge    [][]float64 // by PoP and PoP: the least extra cost of a part of what the first has
	by      [][]int     // the supply that has it
	holders [][]int     // by PoP: supplies that have something there, or had
	ways    [][]way     // of each supply: where it may go
	high    []float64   // by PoP: its potential, by which no edge is negative
	work    int         // steps that were done
}

// way is a PoP that a supply may go to.
type way struct {
	pop  int
	cost float64
}

const eps = 1e-9

// solve finds the flow.
func (t *transport) solve() {
	n := len(t.room)
	t.load, t.high, t.holders = make([]float64, n), make([]float64, n), make([][]int, n)
	t.flow = make([][]float64, len(t.supply))
	cells := make([]float64, len(t.supply)*n)
	t.ways = make([][]way, len(t.supply))
	total := 0.0
	for s, amount := range t.supply {
		t.flow[s] = cells[s*n : (s+1)*n : (s+1)*n]
		best := -1
		for p, c := range t.cost[s] {
			if c < inf && amount > 0 {
				t.ways[s] = append(t.ways[s], way{p, c})
			}
			if c < inf && (best < 0 || c < t.cost[s][best]) {
				best = p
			}
		}
		t.work += n
		total += amount
		if best >= 0 && amount > 0 {
			t.flow[s][best] = amount
			t.load[best] += amount
			t.holders[best] = append(t.holders[best], s)
		}
	}
	tolerance := eps * total
	t.tiny = tolerance / 100
	t.edge, t.by = make([][]float64, n), make([][]int, n)
	for p := range n {
		t.edge[p], t.by[p] = make([]float64, n), make([]int, n)
		t.edges(p)
	}
	for t.augment(tolerance) {
		if t.cut = t.most > 0 && t.work >= t.most; t.cut {
			break
		}
	}
	for p := range n {
		t.over += max(t.load[p]-t.room[p]-tolerance, 0)
	}
}

// whole reports whether the flow is the optimum.
func (t *transport) whole() bool { return !t.cut }

// edges finds the cheapest ways out of a PoP.
func (t *transport) edges(p int) {
	edge, by := t.edge[p], t.by[p]
	for q := range edge {
		edge[q], by[q] = inf, -1
	}
	holders := t.holders[p][:0]
	for _, s := range t.holders[p] {
		if t.flow[s][p] <= 0 {
			continue
		}
		holders = append(holders, s)
		here := t.cost[s][p]
		for _, w := range t.ways[s] {
			if extra := w.cost - here; extra < edge[w.pop] && w.pop != p {
				edge[w.pop], by[w.pop] = extra, s
			}
		}
		t.work += len(t.ways[s])
	}
	t.holders[p] = holders
	t.work += len(edge)
}

// augment moves as much as the cheapest of all ways from overloaded PoPs to those with room can take, and reports whether there is one.
func (t *transport) augment(tolerance float64) bool {
	n := len(t.room)
	far, before, done := make([]float64, n), make([]int, n), make([]bool, n)
	for p := range far {
		if far[p], before[p] = inf, -1; t.load[p] > t.room[p]+tolerance {
			far[p] = 0
		}
	}
	to := -1
	for { // Dijkstra's way, by reduced costs
		p := -1
		for q, d := range far {
			if !done[q] && d < inf && (p < 0 || d < far[p]) {
				p = q
			}
		}
		t.work += 2 * n
		if p < 0 {
			return false
		}
		done[p] = true
		if t.load[p] < t.room[p]-tolerance {
			to = p
			break
		}
		for q, extra := range t.edge[p] {
			if extra == inf || done[q] {
				continue
			}
			if d := far[p] + max(extra+t.high[p]-t.high[q], 0); d < far[q] {
				far[q], before[q] = d, p
			}
		}
	}
	for p, d := range far {
		t.high[p] += min(d, far[to])
	}
	return t.push(to, before)
}

// push moves as much as a way can take that ends at a PoP, and reports whether that is something.
func (t *transport) push(to int, before []int) bool {
	from, amount := to, t.room[to]-t.load[to]
	for before[from] >= 0 {
		p := before[from]
		amount = min(amount, t.flow[t.by[p][from]][p])
		from = p
	}
	amount = min(amount, t.load[from]-t.room[from])
	for q := to; q != from; q = before[q] {
		p := before[q]
		s := t.by[p][q]
		flow := t.flow[s]
		if flow[q] == 0 {
			t.holders[q] = append(t.holders[q], s)
		}
		if flow[p] -= amount; flow[p] < t.tiny {
			flow[q] += flow[p]
			t.load[p], t.load[q] = t.load[p]-flow[p], t.load[q]+flow[p]
			flow[p] = 0
		}
		flow[q] += amount
	}
	t.load[from] -= amount
	t.load[to] += amount
	for q := to; ; q = before[q] {
		t.edges(q)
		if q == from {
			break
		}
	}
	return amount > 0
}

// total is what the flow costs.
func (t *transport) total() float64 {
	sum := 0.0
	for s, flow := range t.flow {
		for p, amount := range flow {
			if amount > 0 {
				sum += amount * t.cost[s][p]
			}
		}
	}
	return sum
}
