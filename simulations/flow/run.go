package flow

import (
	"context"
	"fmt"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
	"github.com/isochrone/isochrone/topology"
)

// defaults of a scenario.
const (
	defaultStep  = time.Minute
	defaultRate  = 0.02
	defaultFresh = 0.1
	defaultBody  = 1000
)

// Run lets a scenario pass in its world under one policy. Progress may be nil. The error is that of the context, of an event that cannot be, or of a
// topology that is too large.
func Run(ctx context.Context, s *scenario.Scenario, w *world.World, policy scenario.PolicyName, seed uint64, progress scenario.Progress) (*scenario.Run, error) {
	e, err := newEngine(s, w, policy, seed)
	if err != nil {
		return nil, fmt.Errorf("flow level, policy %s: %w", policy, err)
	}
	if err := e.run(ctx, progress); err != nil {
		return nil, err
	}
	return e.result(policy), nil
}

func newEngine(s *scenario.Scenario, w *world.World, policy scenario.PolicyName, seed uint64) (*engine, error) {
	g, err := newGround(w, s.Timeline)
	if err != nil {
		return nil, err
	}
	steering := w.Topology.Services[w.Service].Steering
	e := &engine{ground: g, scenario: s, seed: seed, ttl: time.Duration(steering.TTL), answers: steering.Answers,
		step: orDefault(time.Duration(s.Step), defaultStep), until: time.Duration(s.Duration),
		fresh: orDefault(w.Spec.Clients.Fresh, defaultFresh), base: orDefault(w.Spec.Clients.Rate, defaultRate), diurnal: w.Spec.Clients.Diurnal}
	e.askers, e.of = askersOf(g)
	e.room()
	e.prepareObserving()
	e.reach()
	e.hops()
	if err := e.choose(policy); err != nil {
		return nil, err
	}
	e.begin()
	return e, e.schedule()
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// room makes the slices of an engine.
func (e *engine) room() {
	pops, networks, metros := len(e.pops), len(e.Networks), len(e.Metros)
	e.state = make([]standing, networks)
	for _, n := range e.clients {
		e.total += n
	}
	for _, s := range []*[]float64{&e.load, &e.clientsAt, &e.delayUS, &e.refused, &e.left, &e.penalty, &e.loss} {
		*s = make([]float64, pops)
	}
	for _, s := range []*[]float64{&e.rate, &e.staying, &e.leaving, &e.ownHit} {
		*s = make([]float64, metros)
	}
	for _, s := range []*[]time.Duration{&e.delay, &e.over, &e.back, &e.lastFall} {
		*s = make([]time.Duration, pops)
	}
	for _, s := range []*[]bool{&e.drains, &e.down, &e.announced} {
		*s = make([]bool, pops)
	}
	e.dead, e.since, e.hopUS = make([]uint8, pops), make([]int, pops), make([]uint32, pops)
	e.cut, e.parted, e.away = make([]bool, regions), make([]bool, regions), make([]bool, len(e.clusters))
	for range regions {
		e.gone, e.leaves = append(e.gone, make([]bool, pops)), append(e.leaves, make([]bool, pops))
	}
	for p, pop := range e.pops {
		e.left[p], e.announced[p] = 1, true
		e.drains[p] = e.Topology.PoPs[pop.name].State != topology.Active
	}
	for from := 0; from < networks; from += shardSize {
		s := shard{from: from, to: min(from+shardSize, networks), load: make([]float64, pops), clients: make([]float64, pops)}
		for i := range s.histogram {
			s.histogram[i] = make(histogram, bins)
		}
		e.shards = append(e.shards, s)
	}
	e.best = make([]uint32, networks)
	e.each(len(e.shards), func(i int) {
		for n := e.shards[i].from; n < e.shards[i].to; n++ {
			_, e.best[n] = e.Best(n, nil)
		}
	})
	m := &e.measured
	m.popPosts = make([]float64, pops)
	m.popLoad, m.popTime, m.over, m.fell = make([]float64, pops), make([]float64, pops), make([]bool, pops), make([]bool, pops)
	m.series = newRecorder(e)
}

// choose makes the policy.
func (e *engine) choose(policy scenario.PolicyName) error {
	table, err := router.Compile(&topology.Snapshot{Topology: e.Topology}, e.Atlas, nil)
	if err != nil {
		return err
	}
	all := make([]bool, len(e.pops))
	for p := range all {
		all[p] = true
	}
	switch policy {
	case scenario.Ours, scenario.Nearest:
		r := &routed{scopes: e.Spec.Scopes}
		if err := r.use(e, table); err != nil {
			return err
		}
		e.policy = r
		if policy == scenario.Ours {
			e.planner = newPlanner(e)
		}
	case scenario.Random:
		e.policy = randomly{}
	case scenario.Country:
		e.policy = byCountry(e, table)
	case scenario.Distance:
		e.policy = byDistance(e, table)
	case scenario.Anycast:
		e.policy = carriedAll{}
		e.vipsOf(all)
	case scenario.FastRoute:
		e.policy = newFastRoute(e)
	case scenario.Oracle:
		e.oracle = newOracle(e)
		e.policy = e.oracle
	default:
		return fmt.Errorf("there is no policy %q", policy)
	}
	return nil
}

// begin has all clients where they are answered, as if it had been so for long.
func (e *engine) begin() {
	e.rates(0, 1)
	e.decide()
	e.placeAll()
	if r, ok := e.policy.(*routed); ok && e.planner != nil {
		e.planner.begin(e, r)
	}
	e.fine = 0
}

// placeAll puts all clients where the view that holds says.
func (e *engine) placeAll() {
	e.each(len(e.shards), func(i int) {
		for n := e.shards[i].from; n < e.shards[i].to; n++ {
			e.place(n)
		}
	})
}

// place puts a network's clients where the view that holds says.
func (e *engine) place(n int) {
	s := &e.state[n]
	*s = standing{}
	if e.oracle != nil {
		e.oracle.stand(e, n, s)
		return
	}
	var a aims
	e.land(n, e.views[0], e.of[n], 1, &a)
	s.urge = e.fresh
	for i := range a.pop[:a.n] {
		c := s.add(a.pop[i], a.part[i])
		if c.served = c.part; c.pop != nowhere {
			c.us = e.RTT(n, int(c.pop))
		}
	}
}
