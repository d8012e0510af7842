package flow

import (
	"cmp"
	"slices"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/spill"
	"github.com/isochrone/isochrone/simulations/scenario"
)

// planner is the leader that plans shares: the real one, told what PoPs tell of themselves.
type planner struct {
	leader   spill.Leader
	clients  []spill.Client
	revision int64
	due      bool // a plan is on its way
}

// How often the leader plans: every few seconds, as it does in the field, while something is wrong or clients are on the move, else now and then.
const (
	planSoon  = 5 * time.Second
	planEvery = 5 * time.Minute
	planFull  = 0.96 // part of a PoP's capacity from which on something is wrong
)

// How it begins: with so many plans before the begin of the scenario.
const (
	warmUps    = 12
	warmUpStep = 10 * time.Second
)

// newPlanner has a leader that knows from where our servers are asked, and for how many clients.
func newPlanner(e *engine) *planner {
	weight := make([]float64, len(e.askers))
	for n, clients := range e.clients {
		weight[e.of[n]] += clients
	}
	p := &planner{}
	for a := range e.askers {
		p.clients = append(p.clients, spill.Client{Client: e.askers[a].client, Weight: weight[a]})
	}
	slices.SortStableFunc(p.clients, func(a, b spill.Client) int { return cmp.Compare(number4(a.Client.Addr()), number4(b.Client.Addr())) })
	return p
}

// begin plans for the demand at the beginning, and looks from then on.
func (p *planner) begin(e *engine, r *routed) {
	for i := range warmUps {
		e.ages(e.now)
		e.each(len(e.shards), func(i int) { e.pass(&e.shards[i]) })
		e.gather(1)
		e.queues()
		if p.next(e, r, e.now-time.Duration(warmUps-i)*warmUpStep) {
			e.decide()
			e.views = e.views[:1]
			e.placeAll()
		}
	}
	p.look(e, r)
}

// look plans now and then.
func (p *planner) look(e *engine, r *routed) {
	e.when(e.now+planEvery, func() {
		p.plan(e, r)
		p.look(e, r)
	})
}

// soon plans within seconds.
func (p *planner) soon(e *engine, r *routed) {
	if p.due {
		return
	}
	p.due = true
	e.when(e.now+planSoon, func() {
		p.due = false
		p.plan(e, r)
	})
}

// watch has plans made every few seconds while a PoP is nearly full, or clients are on the move.
func (p *planner) watch(e *engine, r *routed) {
	busy := e.now < e.fine
	for i := range e.pops {
		capacity := e.capacity(i)
		busy = busy || capacity > 0 && e.load[i] > planFull*capacity && e.dead[i] == 0
	}
	if busy {
		p.soon(e, r)
	}
}

// plan makes a plan, and a view of it if it is another.
func (p *planner) plan(e *engine, r *routed) {
	if e.etcd == 0 && p.next(e, r, e.now) { // without etcd the last shares stay in force
		e.decide()
	}
}

// next has the leader plan, and reports whether there are other shares now.
func (p *planner) next(e *engine, r *routed, now time.Duration) bool {
	loads := map[string]spill.Load{}
	for i, pop := range e.pops {
		if e.dead[i] != 0 {
			continue
		}
		l := spill.Load{RequestsRPS: e.load[i], ShedRPS: float64(e.load[i] * e.refused[i])}
		if capacity := e.capacity(i); capacity > 0 {
			// What is stated is done with processors that are busy for nine tenths.
			l.CPU = min(1, float64(0.9*e.load[i])/capacity)
			if e.refused[i] > 0 {
				l.CapacityRPS = capacity
			}
		}
		loads[pop.name] = l
	}
	at := scenario.Now.Add(now)
	outcome := p.leader.Next(spill.Told{Now: at, View: &router.View{Table: r.table, State: r.state(e)}, Clients: p.clients, Loads: loads, InForce: r.spill,
		Revision: p.revision, TTL: e.ttl})
	if outcome.Changed {
		p.revision++
		r.spill = outcome.Spill
	}
	return outcome.Changed
}
