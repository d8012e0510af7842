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
	due      bool          // a plan is on its way
	pause    time.Duration // until the next one: longer while plans come to nothing
}

// How often the leader plans: every few seconds, as it does in the field, while clients are on the move or a PoP has too much. While a PoP is nearly
// full and plans come to nothing, it plans ever more rarely; else now and then. More plans would change nothing, but for how long a run takes.
const (
	planSoon  = 5 * time.Second
	planEvery = 15 * time.Minute
	planFull  = 0.97 // part of a PoP's capacity from which on it is nearly full
)

// How it begins: with so many plans before the begin of the scenario, so far apart that each may replace what the one before has.
const (
	warmUps    = 4
	warmUpStep = 40 * time.Second
)

// planWork bounds what a plan may cost (see spill.Options): a quarter of a second, which is enough for all plans of 40 PoPs. With some hundreds
// the shares for losses of single PoPs are not as good as the leader finds them in the field.
const planWork = 150_000_000

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
	e.when(e.now+max(p.pause, planSoon), func() {
		p.due = false
		p.plan(e, r)
	})
}

// watch has plans made every few seconds while a PoP is nearly full, or clients are on the move.
func (p *planner) watch(e *engine, r *routed) {
	full, urgent := false, e.now < e.fine
	for i := range e.pops {
		if capacity := e.capacity(i); capacity > 0 && e.dead[i] == 0 {
			full = full || e.load[i] > planFull*capacity
			urgent = urgent || e.load[i] > capacity
		}
	}
	if urgent {
		p.pause = planSoon
	}
	if full || urgent {
		p.soon(e, r)
	}
}

// plan makes a plan, and a view of it if it is another.
func (p *planner) plan(e *engine, r *routed) {
	p.pause = min(2*p.pause, planEvery)
	if e.etcd == 0 && p.next(e, r, e.now) { // without etcd the last shares stay in force
		p.pause = planSoon
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
		Revision: p.revision, TTL: e.ttl, Options: spill.Options{Work: planWork}})
	if outcome.Changed {
		p.revision++
		r.spill = outcome.Spill
	}
	return outcome.Changed
}
