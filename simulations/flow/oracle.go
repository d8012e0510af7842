package flow

import (
	"cmp"
	"slices"
	"time"
)

// oracle knows all true round-trip times, and sends each network where the total of its clients' is least with no PoP over its capacity: an auction
// in which PoPs raise prices until they are no longer overloaded (Bertsekas, "Auction algorithms for network flow problems", 1992), and then moves
// that make a way shorter where room is left. Without capacities, everybody is at the nearest PoP. It needs no DNS: clients follow at once.
type oracle struct {
	near   []int16  // by network: the nearest PoPs, best first, considered of each
	us     []uint32 // of these
	each   int
	at     []int16   // by network
	cost   []uint32  // by network: µs
	weight []float64 // by network
	loads  []float64
	price  []float64 // µs
	bound  float64   // no assignment costs less, in µs × posts a second
}

// considered is how many of the nearest PoPs of a network the oracle looks at, and epsilon by how much more than it has to a price is raised, in µs:
// the mean may be so much above the least.
const (
	considered = 48
	epsilon    = 20.0
)

func newOracle(e *engine) *oracle {
	k := min(considered, len(e.pops))
	o := &oracle{each: k, near: make([]int16, k*len(e.Networks)), us: make([]uint32, k*len(e.Networks)), at: make([]int16, len(e.Networks)),
		cost: make([]uint32, len(e.Networks)), weight: make([]float64, len(e.Networks)), loads: make([]float64, len(e.pops)), price: make([]float64, len(e.pops))}
	const chunk = 256
	e.each((len(e.Networks)+chunk-1)/chunk, func(i int) {
		order, us := make([]int16, len(e.pops)), make([]uint32, len(e.pops))
		for n := i * chunk; n < min((i+1)*chunk, len(e.Networks)); n++ {
			for p := range order {
				order[p], us[p] = int16(p), e.RTT(n, p)
			}
			slices.SortFunc(order, func(a, b int16) int { return cmp.Or(cmp.Compare(us[a], us[b]), cmp.Compare(a, b)) })
			for j, p := range order[:k] {
				o.near[n*k+j], o.us[n*k+j] = p, us[p]
			}
		}
	})
	return o
}

// best returns the cheapest PoP of a network by prices, but one, and what it costs with its price.
func (o *oracle) best(e *engine, network int, but int16) (pop int16, us uint32, price float64) {
	pop = nowhere
	gone := e.gone[e.region[network]]
	for i := network * o.each; i < (network+1)*o.each; i++ {
		p := o.near[i]
		if p == but || gone[p] || e.drains[p] {
			continue
		}
		if c := float64(o.us[i]) + o.price[p]; pop == nowhere || c < price {
			pop, us, price = p, o.us[i], c
		}
	}
	return pop, us, price
}

// solve finds where networks go.
func (o *oracle) solve(e *engine) {
	clear(o.weight)
	clear(o.loads)
	clear(o.price)
	for n, clients := range e.clients {
		o.weight[n] = float64(clients * e.rate[e.metro[n]])
	}
	for n := range o.at {
		if o.at[n], o.cost[n], _ = o.best(e, n, nowhere); o.at[n] != nowhere {
			o.loads[o.at[n]] += o.weight[n]
		}
	}
	for range 1000 {
		busy := false
		for p := range e.pops {
			if capacity := e.capacity(p); capacity > 0 && o.loads[p] > capacity*(1+1e-9) {
				busy = o.evict(e, int16(p), capacity) || busy
			}
		}
		if !busy {
			break
		}
	}
	o.bounds(e)
	for range 3 {
		o.pull(e)
	}
}

// evict raises a PoP's price until those who stay fit.
func (o *oracle) evict(e *engine, p int16, capacity float64) bool {
	type bid struct {
		network int32
		to      int16
		us      uint32
		regret  float64
	}
	var bids []bid
	for n, at := range o.at {
		if at != p || o.weight[n] <= 0 {
			continue
		}
		if to, us, price := o.best(e, n, p); to != nowhere {
			bids = append(bids, bid{int32(n), to, us, price - float64(o.cost[n]) - o.price[p]})
		}
	}
	slices.SortFunc(bids, func(a, b bid) int { return cmp.Or(cmp.Compare(a.regret, b.regret), cmp.Compare(a.network, b.network)) })
	raised := 0.0
	for _, b := range bids {
		if o.loads[p] <= capacity {
			break
		}
		raised = max(raised, b.regret)
		o.at[b.network], o.cost[b.network] = b.to, b.us
		o.loads[p] -= o.weight[b.network]
		o.loads[b.to] += o.weight[b.network]
	}
	o.price[p] += raised + epsilon
	return len(bids) > 0
}

// bounds finds what no assignment can be below: the dual of the transport problem.
func (o *oracle) bounds(e *engine) {
	o.bound = 0
	for n := range o.at {
		if o.weight[n] > 0 {
			if at, _, price := o.best(e, n, nowhere); at != nowhere {
				o.bound += float64(o.weight[n] * price)
			}
		}
	}
	for p, price := range o.price {
		o.bound -= float64(price * e.capacity(p))
	}
}

// pull moves networks to nearer PoPs that have room.
func (o *oracle) pull(e *engine) {
	for n := range o.at {
		gone := e.gone[e.region[n]]
		for i := n * o.each; i < (n+1)*o.each; i++ {
			p := o.near[i]
			if o.at[n] == nowhere || o.us[i] >= o.cost[n] {
				break
			}
			if capacity := e.capacity(int(p)); gone[p] || e.drains[p] || capacity > 0 && o.loads[p]+o.weight[n] > capacity {
				continue
			}
			o.loads[o.at[n]] -= o.weight[n]
			o.loads[p] += o.weight[n]
			o.at[n], o.cost[n] = p, o.us[i]
		}
	}
}

// stand puts a network's clients where the oracle says.
func (o *oracle) stand(e *engine, n int, s *standing) {
	part := 1.0
	if o.at[n] == nowhere {
		part = 0
	}
	s.n, s.urge, s.lost = 1, e.fresh, 1-part
	s.c[0] = conn{pop: o.at[n], us: o.cost[n], part: 1, served: part}
}

// decide solves anew; answers are those that nobody asks for.
func (o *oracle) decide(e *engine, v *view) (time.Duration, bool) {
	e.rates(e.now, 1)
	o.solve(e)
	for a := range v.answers {
		v.answers[a] = answer{n: 1, scope: 24}
	}
	return e.now + planEvery, true
}
