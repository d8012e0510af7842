package flow

import (
	"math"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/spill"
	"github.com/isochrone/isochrone/simulations/world"
)

// planner plans shares as the leader does: at the beginning, when a PoP is nearly full, after a verdict, and when demand has changed.
type planner struct {
	routed *routed
	cells  []spill.Cell // with all PoPs of the table
	of     []int32      // by asker: its cell
	weight []float64    // by cell, of the last plan
	due    bool         // a plan is on its way
}

// How soon the leader plans anew: within seconds when something is wrong, else it looks at demand now and then.
const (
	planSoon  = 5 * time.Second
	planEvery = 5 * time.Minute
	planFull  = 0.96 // part of a PoP's capacity
	planDrift = 0.01 // part of demand that has moved between cells, or come or gone
)

// newPlanner groups askers into cells: those with one place and one order; a resolver's address is a cell of its own, since its clients cannot be
// divided.
func newPlanner(e *engine, r *routed) *planner {
	type key struct {
		location uint32
		leading  router.Leading
		resolver int32
	}
	p := &planner{routed: r, of: make([]int32, len(e.askers))}
	numbers, meter := map[key]int32{}, r.table.Meter()
	for a := range e.askers {
		asker := &e.askers[a]
		order, leading := r.table.Order(r.id, router.IPv4, asker.client.Addr())
		location, _ := r.table.Location(asker.client.Addr())
		k := key{location, leading, -1}
		alone := asker.resolver != world.Own && !asker.ecs
		if alone {
			k.resolver = asker.resolver
		}
		n, known := numbers[k]
		if !known {
			n = int32(len(p.cells))
			numbers[k] = n
			c := spill.Cell{Leading: leading, Answers: e.answers}
			for _, choice := range order {
				at := int(r.number[choice])
				c.Hops = append(c.Hops, spill.Hop{PoP: at, MS: meter.Milliseconds(asker.client.Addr(), choice)})
				if alone {
					c.Draws = append(c.Draws, router.Draw(asker.client.Addr(), e.pops[at].name))
				}
			}
			p.cells = append(p.cells, c)
		}
		p.of[a] = n
	}
	p.weight = make([]float64, len(p.cells))
	return p
}

// demand is what cells ask for now.
func (p *planner) demand(e *engine) []float64 {
	weight := make([]float64, len(p.cells))
	for n, clients := range e.clients {
		weight[p.of[e.of[n]]] += float64(clients * e.rate[e.metro[n]])
	}
	return weight
}

// begin plans for the demand at the beginning, and looks from then on.
func (p *planner) begin(e *engine) {
	e.rates(e.now, 1)
	p.plan(e)
	p.look(e)
}

// look plans when demand has changed.
func (p *planner) look(e *engine) {
	e.when(e.now+planEvery, func() {
		weight, drift, sum := p.demand(e), 0.0, 0.0
		for i := range weight {
			drift += math.Abs(weight[i] - p.weight[i])
			sum += weight[i]
		}
		if drift > planDrift*sum {
			p.plan(e)
		}
		p.look(e)
	})
}

// soon plans within seconds.
func (p *planner) soon(e *engine) {
	if p.due {
		return
	}
	p.due = true
	e.when(e.now+planSoon, func() {
		p.due = false
		p.plan(e)
	})
}

// watch has a plan made soon if a PoP is nearly full.
func (p *planner) watch(e *engine) {
	for i := range e.pops {
		if capacity := e.capacity(i); capacity > 0 && e.load[i] > planFull*capacity && e.dead[i] == 0 {
			p.soon(e)
			return
		}
	}
}

// plan makes shares, and a view of them if they are others.
func (p *planner) plan(e *engine) {
	if e.etcd > 0 {
		return // the last shares stay in force
	}
	state := p.routed.state(e)
	current := &router.View{Table: p.routed.table, State: state}
	p.weight = p.demand(e)
	w := &spill.World{Away: state.Away(p.routed.table)}
	number := make([]int, len(e.pops))
	away := map[string]bool{}
	for _, name := range w.Away {
		away[name] = true
	}
	choice := make([]router.Choice, len(e.pops))
	for c := range p.routed.table.PoPs() {
		choice[p.routed.number[c]] = router.Choice(c)
	}
	for i, pop := range e.pops {
		number[i] = -1
		if !away[pop.name] {
			number[i] = len(w.PoPs)
			load := spill.Load{RequestsRPS: e.load[i], CapacityRPS: e.capacity(i)}
			w.PoPs = append(w.PoPs, spill.PoP{Name: pop.name, CapacityRPS: load.Capacity(pop.capacity)})
		}
	}
	clients := make([]int32, len(p.cells))
	for a, n := range p.of {
		clients[n] = int32(a)
	}
	for n, c := range p.cells {
		c.Weight = p.weight[n]
		hops, draws := c.Hops, c.Draws
		c.Hops, c.Draws = make([]spill.Hop, 0, len(hops)), nil
		for i, h := range hops {
			if at := number[h.PoP]; at >= 0 && current.MayAnswer(choice[h.PoP], e.askers[clients[n]].client.Addr()) {
				c.Hops = append(c.Hops, spill.Hop{PoP: at, MS: h.MS})
				if draws != nil {
					c.Draws = append(c.Draws, draws[i])
				}
			}
		}
		if len(c.Hops) > 0 {
			w.Cells = append(w.Cells, c)
		}
	}
	next, report := spill.Plan(w, p.routed.spill, spill.Options{})
	if report.Why == "" {
		return
	}
	p.routed.spill = next
	e.decide()
}
