package flow

import (
	"container/heap"
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
	"github.com/isochrone/isochrone/topology"
)

// engine is a run, at one time.
type engine struct {
	*ground
	scenario *scenario.Scenario
	policy   steering
	seed     uint64
	ttl      time.Duration
	step     time.Duration
	fresh    float64 // part of posts on a new connection
	base     float64 // posts a second of a client, on the mean
	diurnal  float64
	bodyUS   int64 // of a post on the line
	rounds   int   // round trips of a post besides the first
	jitter   bool
	samples  int                // of posts, of each network and step
	edited   *topology.Topology // in force after edits; nil before

	askers  []asker
	of      []int32 // by network: its asker
	state   []standing
	total   float64 // clients
	answers int     // PoPs of an answer

	now     time.Duration
	until   time.Duration // the end
	fine    time.Duration // until when steps are short
	views   []*view       // the one that holds, and those before it that caches may have something of
	spare   []*view
	aged    []float64 // by view: which part of answers in caches is of it, in a step
	landing [][]int16 // by VIP and network: where BGP carries its packets
	epoch   uint32

	// What holds of PoPs.
	truths
	verdicts

	// What holds in a step.
	rate      []float64 // by metro: posts a second of a client
	staying   []float64 // by metro: part of clients that ask within the step
	leaving   []float64 // likewise, of those whose PoP is gone
	ownHit    []float64 // by metro: chance that a client's own resolver has the answer
	load      []float64 // by PoP: posts a second that come
	clientsAt []float64
	delayUS   []float64 // by PoP: how long a post takes there
	refused   []float64 // by PoP: part of what comes

	happenings happenings
	number     int
	shards     []shard
	measured   figures
	planner    *planner
	oracle     *oracle // nil unless it is the policy
	overrides  map[string]*topology.Override
	decisions  int
	deciding   bool     // a view is due
	vips       [][]bool // by VIP and PoP: it announces the VIP
	announced  []bool   // by PoP: its routes are there
	flips      []flip
	notes      []string
}

// shardSize is how many units are worked on together. It must not depend on the machine: sums are by shard.
const shardSize = 1024

// shard has what the units of a part of the world come to.
type shard struct {
	from, to  int
	load      []float64 // by PoP
	clients   []float64 // by PoP: connected
	posts     float64   // a second
	lost      float64
	asks      float64 // questions of clients a second
	misses    float64 // at clients' own resolvers
	entries   float64
	moved     float64 // clients
	served    float64 // clients × part of their posts that are served, × seconds
	us        float64 // likewise, × their round-trip time
	histogram [histograms]histogram
	_         [64]byte
}

// happening is something that is to be done at a time; of two at one time, the one that was asked for first is.
type happening struct {
	at     time.Duration
	number int
	do     func()
}

type happenings []happening

func (q happenings) Len() int { return len(q) }
func (q happenings) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q happenings) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *happenings) Push(x any)   { *q = append(*q, x.(happening)) }
func (q *happenings) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// when has something done at a time.
func (e *engine) when(at time.Duration, do func()) {
	e.number++
	heap.Push(&e.happenings, happening{max(at, e.now), e.number, do})
}

// quantum is how short a step is at the least: what happens within it happens together.
const quantum = 50 * time.Millisecond

// run lets the time of the scenario pass.
func (e *engine) run(ctx context.Context, progress scenario.Progress) error {
	if e.until == 0 {
		e.once()
		return ctx.Err()
	}
	for e.now < e.until {
		if err := ctx.Err(); err != nil {
			return err
		}
		for len(e.happenings) > 0 && e.happenings[0].at <= e.now {
			heap.Pop(&e.happenings).(happening).do()
		}
		next := min(e.now-e.now%e.step+e.step, e.until)
		if len(e.happenings) > 0 {
			next = min(next, max(e.happenings[0].at, e.now+quantum))
		}
		if e.now < e.fine {
			next = min(next, e.now+max(min(time.Second, e.step), e.ttl/20))
		} else if len(e.views) > 1 {
			next = min(next, e.now+max(e.ttl/4, time.Second))
		}
		e.advance(next - e.now)
		if progress != nil {
			progress(float64(e.now) / float64(e.until))
		}
	}
	return nil
}

// once has each client ask once and post once, all within a TTL, as it is while nothing happens.
func (e *engine) once() {
	e.rates(0, 1)
	e.ages(0)
	e.each(len(e.shards), func(i int) { e.pass(&e.shards[i]) })
	e.gather(1)
	e.queues()
	e.each(len(e.shards), func(i int) { e.observe(&e.shards[i], 1) })
	m := &e.measured
	m.step(e, time.Second)
	m.mostMoved, m.sumPosts, m.sumAsks = 0, e.total, e.total
	m.sumLost, m.sumRefused = m.sumLost/m.posts*e.total, m.sumRefused/m.posts*e.total
	m.sumMisses, m.mostEntries = 0, 0
	v := e.views[0]
	for g := range v.count {
		clients := 0.0
		for _, n := range v.networks[v.first[g]:v.first[g+1]] {
			clients += e.clients[n]
		}
		// The caches that are asked at all, if each question comes to any of them.
		m.sumMisses += float64(v.machines[g] * (1 - pow(1-1/v.machines[g], clients)))
	}
	for n := range e.Networks {
		if e.Networks[n].Resolver == world.Own {
			m.sumMisses += e.clients[n]
		}
	}
	m.mostEntries = m.sumMisses
}

// disturb has steps be short for a time, since clients are sent elsewhere.
func (e *engine) disturb() {
	e.fine = max(e.fine, e.now+e.ttl+5*time.Second)
	e.epoch++
}

// show has a new view hold from now on.
func (e *engine) show(v *view) {
	v.from, v.until = e.now, math.MaxInt64
	v.entries(e.ground, e.askers, e.of)
	if len(e.views) > 0 {
		e.views[0].until = e.now
		e.lastWrong(e.views[0])
	}
	e.views = append(e.views, nil)
	copy(e.views[1:], e.views)
	e.views[0] = v
	e.epoch++
}

// blank returns a view to be filled in.
func (e *engine) blank() *view {
	if n := len(e.spare); n > 0 {
		v := e.spare[n-1]
		e.spare = e.spare[:n-1]
		v.layers = nil
		return v
	}
	return &view{answers: make([]answer, len(e.askers))}
}

// forget drops views that caches have nothing of any more.
func (e *engine) forget() {
	for n := len(e.views) - 1; n > 0 && e.views[n].until+e.ttl <= e.now; n-- {
		e.spare = append(e.spare, e.views[n])
		e.views = e.views[:n]
	}
}

// advance lets a time pass in which nothing happens.
func (e *engine) advance(d time.Duration) {
	e.forget()
	seconds, middle := d.Seconds(), e.now+d/2
	e.rates(middle, seconds)
	e.hits()
	e.ages(middle)
	e.each(len(e.shards), func(i int) { e.pass(&e.shards[i]) })
	e.gather(seconds)
	e.queues()
	e.each(len(e.shards), func(i int) { e.observe(&e.shards[i], seconds) })
	e.mean()
	e.now += d
	e.measured.step(e, d)
	e.overload(d)
	if r, ok := e.policy.(*routed); ok && e.planner != nil {
		e.planner.watch(e, r)
	}
}

// rates finds what a client of each class does.
func (e *engine) rates(at time.Duration, seconds float64) {
	ttl := e.ttl.Seconds()
	for i := range e.Metros {
		hours := at.Hours() + e.Metros[i].LonDeg/15
		r := e.base * (1 + float64(e.diurnal*cosTurns((hours-20)/24)))
		for k := range e.crowds {
			if e.crowded[i]>>k&1 == 1 {
				r *= e.crowds[k].factor(at)
			}
		}
		e.rate[i] = r
		e.staying[i], e.leaving[i] = 1-exp(-float64(float64(r*e.fresh)*seconds)), 1-exp(-float64(r*seconds))
		x := float64(float64(r*e.fresh) * ttl)
		e.ownHit[i] = x / (1 + x)
	}
}

// hits finds the chances that caches have an answer of the view that holds.
func (e *engine) hits() {
	v, ttl := e.views[0], e.ttl.Seconds()
	const chunk = 1024
	e.each((v.count+chunk-1)/chunk, func(i int) {
		for g := i * chunk; g < min((i+1)*chunk, v.count); g++ {
			sum := 0.0
			for _, u := range v.networks[v.first[g]:v.first[g+1]] {
				sum += float64(float64(e.clients[u]*e.rate[e.metro[u]]) * e.state[u].urge)
			}
			x := sum / v.machines[g] * ttl
			v.hit[g] = x / (1 + x)
		}
	})
}

// ages finds which part of the answers in caches is of each view before the one that holds.
func (e *engine) ages(at time.Duration) {
	e.aged = e.aged[:0]
	for _, v := range e.views {
		e.aged = append(e.aged, e.stale(v, at))
	}
}

// pass lets the units of a shard move, and adds up what they bring to PoPs.
func (e *engine) pass(s *shard) {
	clear(s.load)
	clear(s.clients)
	s.posts, s.lost, s.asks, s.misses, s.entries, s.moved = 0, 0, 0, 0, 0, 0
	for u := s.from; u < s.to; u++ {
		x, clients := &e.state[u], e.clients[u]
		e.move(u, x, &s.moved)
		metro := e.metro[u]
		posts := float64(clients * e.rate[metro])
		s.posts += posts
		s.lost += float64(posts * x.lost)
		asks := float64(posts * x.urge)
		s.asks += asks
		if e.Networks[u].Resolver == world.Own {
			s.misses += float64(asks * (1 - e.ownHit[metro]))
			s.entries += float64(clients * e.ownHit[metro])
		}
		for i := range x.c[:x.n] {
			c := &x.c[i]
			if c.pop != nowhere {
				s.load[c.pop] += float64(posts * c.served)
				s.clients[c.pop] += float64(clients * c.part)
			}
		}
	}
}

// gather adds up the shards, in their order.
func (e *engine) gather(seconds float64) {
	m := &e.measured
	clear(e.load)
	clear(e.clientsAt)
	m.posts, m.lost, m.asks, m.misses, m.entries, m.moved = 0, 0, 0, 0, 0, 0
	for i := range e.shards {
		s := &e.shards[i]
		for p := range e.load {
			e.load[p] += s.load[p]
			e.clientsAt[p] += s.clients[p]
		}
		m.posts, m.lost, m.asks = m.posts+s.posts, m.lost+s.lost, m.asks+s.asks
		m.misses, m.entries, m.moved = m.misses+s.misses, m.entries+s.entries, m.moved+s.moved
	}
	v, ttl := e.views[0], e.ttl.Seconds()
	for g, hit := range v.hit[:v.count] {
		// Of x/(1+x), 1/(1+x) is what misses, and x/T comes: so the misses a second of a cache are hit/T.
		if ttl > 0 {
			m.misses += float64(v.machines[g] * hit / ttl)
		}
		m.entries += float64(v.machines[g] * hit)
	}
	if ttl <= 0 {
		m.misses = m.asks
	}
}

// mean finds the mean round-trip time of the step.
func (e *engine) mean() {
	served, us := 0.0, 0.0
	for i := range e.shards {
		served, us = served+e.shards[i].served, us+e.shards[i].us
	}
	e.measured.meanUS = us / max(served, 1e-300)
}

// queues finds how long posts take at PoPs.
func (e *engine) queues() {
	for p := range e.pops {
		w, refused := wait(e.load[p], e.capacity(p))
		e.refused[p] = refused
		e.delayUS[p] = float64((w+serviceTime)*1e6) + float64(e.delay[p].Microseconds())
	}
}

// each has something done n times, on all processors.
func (e *engine) each(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	running.Wait()
}
