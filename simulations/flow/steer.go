package flow

import (
	"fmt"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/simulations/scenario"
)

// steering is a policy: it fills in what each asker is answered, and says when it would do so anew though nothing happens.
type steering interface {
	decide(e *engine, v *view) (next time.Duration, again bool)
}

// decide makes a view of what holds now.
func (e *engine) decide() {
	v := e.blank()
	next, again := e.policy.decide(e, v)
	e.show(v)
	if again {
		e.decisions++
		number := e.decisions
		e.when(max(next, e.now+quantum), func() { // never at once again
			if number == e.decisions {
				if _, stepwise := e.policy.(*routed); stepwise { // a PoP that comes back
					e.disturb()
				}
				e.decide()
			}
		})
	}
}

// together is within which time verdicts make one view, when there are many of them.
const together = 500 * time.Millisecond

// decideSoon makes a view at once, or together with others that are due then.
func (e *engine) decideSoon() {
	switch {
	case e.deciding:
	case e.now >= e.views[0].from+2*time.Second:
		e.decide()
	default:
		e.deciding = true
		e.when(e.now-e.now%together+together, func() {
			e.deciding = false
			e.decide()
		})
	}
}

// routed is router.Decide, with spill or without.
type routed struct {
	table  *router.Table
	id     router.ServiceID
	number []uint16 // by choice of the table: of the PoP, or of the VIP behind them
	spill  router.Spill
	scopes scenario.Scopes
	leads  []uint32 // by asker, for merged scopes
}

func (r *routed) state(e *engine) *router.State {
	return router.NewState(r.table, router.Inputs{Verdicts: e.verdictsNow(), Overrides: e.overrides, Spill: r.spill, Now: scenario.Now.Add(e.now)})
}

func (r *routed) decide(e *engine, v *view) (time.Duration, bool) {
	state := r.state(e)
	current := &router.View{Table: r.table, State: state}
	const chunk = 4096
	e.each((len(e.askers)+chunk-1)/chunk, func(i int) {
		for a := i * chunk; a < min((i+1)*chunk, len(e.askers)); a++ {
			d := router.Decide(current, r.id, router.IPv4, e.askers[a].client, nil)
			x := &v.answers[a]
			x.n, x.scope = uint8(d.N), d.ScopeBits
			for k, c := range d.Choices[:d.N] {
				x.choices[k] = r.number[c]
			}
		}
	})
	switch r.scopes {
	case scenario.ScopesEcho:
		echo(e, v)
	case scenario.ScopesMerge:
		r.merge(e, v)
	}
	until, ends := state.Expires()
	return until.Sub(scenario.Now), ends
}

// echo gives answers the scope of their question.
func echo(e *engine, v *view) {
	for a := range e.askers {
		v.answers[a].scope = uint8(e.askers[a].client.Bits())
	}
}

// merge gives answers the scopes that gdnsd would.
func (r *routed) merge(e *engine, v *view) {
	if r.leads == nil {
		numbers := map[[3]router.Choice]uint32{}
		r.leads = make([]uint32, len(e.askers))
		for a := range e.askers {
			if !e.askers[a].ecs {
				continue
			}
			var three [3]router.Choice
			if orders := r.table.Orders(r.id, router.IPv4, e.askers[a].client.Addr()); len(orders) > 0 {
				copy(three[:], orders[0].Choices)
			}
			n, known := numbers[three]
			if !known {
				n = uint32(len(numbers))
				numbers[three] = n
			}
			r.leads[a] = n
		}
	}
	merged(e.askers, func(a, b int) bool { return r.leads[a] == r.leads[b] }, func(a int, bits uint8) { v.answers[a].scope = bits })
}

// well reports whether a PoP may be answered to clients of a region, as far as verdicts and operators say.
func (e *engine) well(p int, region uint8) bool {
	at := e.pops[p].region
	return !e.down[p] && !e.drains[p] && (at == region || !e.parted[at] && !e.parted[region])
}

// ranked answers the first PoPs of each asker's order that are well.
type ranked struct {
	answers int
	order   func(e *engine, asker int) []uint16 // best first; safe for concurrent use
}

func (r *ranked) decide(e *engine, v *view) (time.Duration, bool) {
	const chunk = 4096
	e.each((len(e.askers)+chunk-1)/chunk, func(i int) {
		for a := i * chunk; a < min((i+1)*chunk, len(e.askers)); a++ {
			x, order := &v.answers[a], r.order(e, a)
			*x = answer{}
			region := e.region[e.askers[a].network]
			for _, p := range order {
				if int(x.n) == r.answers {
					break
				}
				if e.well(int(p), region) {
					x.choices[x.n] = p
					x.n++
				}
			}
			if x.n == 0 { // all are down: as if all were well
				x.n = uint8(min(r.answers, len(order)))
				copy(x.choices[:x.n], order)
			}
		}
	})
	echo(e, v)
	return 0, false
}

// use has a policy go by a table from now on.
func (r *routed) use(e *engine, table *router.Table) error {
	id, ok := table.Service(e.Service)
	if !ok {
		return fmt.Errorf("there is no service %q", e.Service)
	}
	r.table, r.id, r.leads = table, id, nil
	r.number = make([]uint16, table.Choices())
	var vips [][]bool
	for c := range r.number {
		name, pop := table.PoP(router.Choice(c))
		if !table.IsVIP(router.Choice(c)) {
			p, known := e.PoP(name)
			if !known {
				return fmt.Errorf("the world knows no way to PoP %q", name)
			}
			r.number[c] = uint16(p)
			e.pops[p].capacity = float64(pop.CapacityRPS)
			continue
		}
		r.number[c] = uint16(len(e.pops) + len(vips))
		announcers := make([]bool, len(e.pops))
		for _, a := range table.Announcers(router.Choice(c)) {
			announcers[r.number[a]] = true
		}
		vips = append(vips, announcers)
	}
	if len(vips) > 0 {
		e.policy = r // whose connections stay when routes change
		e.vipsOf(vips...)
	}
	return nil
}
