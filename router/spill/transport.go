package spill

import "math"

var inf = math.Inf(1)

// transport is the problem to bring supplies to PoPs of limited room at the lowest cost: a minimum-cost flow in a bipartite network. It
// is solved by successive shortest paths among the PoPs, whose edges are the cheapest way to bring a part of what one has to another
// (Ahuja, Magnanti, Orlin, "Network Flows", section 9.7). All that has a place has one at the optimum.
type transport struct {
	cost   [][]float64 // by supply and PoP; +Inf where it may not go
	supply []float64
	room   []float64 // by PoP; +Inf for any
	tiny   float64   // what rounding may have left of nothing

	flow [][]float64 // by supply and PoP: the solution
	load []float64
	over float64     // supply that has found no room; it is left where it is cheapest
	edge [][]float64 // by PoP and PoP: the least extra cost of a part of what the first has
	by   [][]int     // the supply that has it
}

const eps = 1e-9

// solve finds the flow.
func (t *transport) solve() {
	n := len(t.room)
	t.load = make([]float64, n)
	t.flow = make([][]float64, len(t.supply))
	cells := make([]float64, len(t.supply)*n)
	total := 0.0
	for s, amount := range t.supply {
		t.flow[s] = cells[s*n : (s+1)*n : (s+1)*n]
		best := -1
		for p, c := range t.cost[s] {
			if c < inf && (best < 0 || c < t.cost[s][best]) {
				best = p
			}
		}
		total += amount
		if best >= 0 && amount > 0 {
			t.flow[s][best] = amount
			t.load[best] += amount
		}
	}
	tolerance := eps * total
	t.tiny = tolerance / 100
	t.edge, t.by = make([][]float64, n), make([][]int, n)
	for p := range n {
		t.edge[p], t.by[p] = make([]float64, n), make([]int, n)
		t.edges(p)
	}
	full := make([]bool, n) // of those that cannot be helped
	for {
		from := -1
		for p := range n {
			if !full[p] && t.load[p] > t.room[p]+tolerance && (from < 0 || t.load[p]-t.room[p] > t.load[from]-t.room[from]) {
				from = p
			}
		}
		if from < 0 {
			break
		}
		if !t.augment(from, tolerance) {
			full[from] = true
		}
	}
	for p := range n {
		t.over += max(t.load[p]-t.room[p]-tolerance, 0)
	}
}

// edges finds the cheapest ways out of a PoP.
func (t *transport) edges(p int) {
	for q := range t.room {
		t.edge[p][q], t.by[p][q] = inf, -1
	}
	edge, by := t.edge[p], t.by[p]
	for s, flow := range t.flow {
		if flow[p] <= 0 {
			continue
		}
		here := t.cost[s][p]
		for q, c := range t.cost[s] {
			if extra := c - here; extra < edge[q] && q != p {
				edge[q], by[q] = extra, s
			}
		}
	}
}

// augment moves as much as the cheapest way from an overloaded PoP to one with room can take, and reports whether there is one.
func (t *transport) augment(from int, tolerance float64) bool {
	n := len(t.room)
	far, before := make([]float64, n), make([]int, n)
	for p := range far {
		far[p], before[p] = inf, -1
	}
	far[from] = 0
	due, next := []int{from}, []int(nil) // Bellman and Ford, since edges may be negative: from those whose way has become shorter
	waits := make([]bool, n)
	for rounds := 0; len(due) > 0 && rounds < n; rounds++ {
		for _, p := range due {
			waits[p] = false
			for q, extra := range t.edge[p] {
				if d := far[p] + extra; d < far[q]-1e-9 && q != from {
					if far[q], before[q] = d, p; !waits[q] {
						waits[q], next = true, append(next, q)
					}
				}
			}
		}
		due, next = next, due[:0]
	}
	to := -1
	for p := range n {
		if p != from && far[p] < inf && t.load[p] < t.room[p]-tolerance && (to < 0 || far[p] < far[to]) {
			to = p
		}
	}
	if to < 0 {
		return false
	}
	amount := min(t.load[from]-t.room[from], t.room[to]-t.load[to])
	for q, steps := to, 0; q != from; q, steps = before[q], steps+1 {
		if steps > n {
			return false // rounding has closed a ring
		}
		p := before[q]
		amount = min(amount, t.flow[t.by[p][q]][p])
	}
	for q := to; q != from; q = before[q] {
		p := before[q]
		flow := t.flow[t.by[p][q]]
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
	return true
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
