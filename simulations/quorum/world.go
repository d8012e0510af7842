package quorum

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/vantage"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Site is where a node of the world is.
type Site struct {
	Name   string // as nodes are named, such as pop:sin1
	Region string // the continent's code
	topology.Location
}

// Config says what a world is like.
type Config struct {
	Sites  []Site // PoPs, which are targets and vantages, and DNS nodes, which are vantages
	Seed   uint64
	Loss   float64       // of packets; default 0.005
	Offset time.Duration // of clocks: each is wrong by up to so much; default 2 s
	// Lie, if it is not nil, changes what the vantage Liar says, or returns nil when it says nothing.
	Liar string
	Lie  func(r *health.Report) *health.Report
}

// World is a world that runs. Its methods may be called from one goroutine.
type World struct {
	config Config
	sites  map[string]Site
	nodes  map[string]*node

	mu     sync.Mutex
	random *rand.Rand
	state  map[health.Target]State
	cut    func(from Site, to health.Target) bool
	etcd   bool
	Wire   Traffic
}

// Traffic counts what vantages cost the network and the store.
type Traffic struct {
	Probes, Writes, WriteBytes, Datagrams, DatagramBytes int
}

// State is what is the matter with a PoP.
type State int

// The states. A dead PoP does not answer, a killed one says that nobody listens, a slow one takes ten times as long, and a brown one fails every
// third request.
const (
	Well State = iota
	Dead
	Killed
	Slow
	Brown
)

type node struct {
	Site
	*vantage.Node
	offset time.Duration

	mu      sync.Mutex
	history []Change
	last    health.Verdicts
}

// Change is that a node has come to another verdict.
type Change struct {
	At     time.Time
	Target health.Target
	health.Verdict
}

// Start starts a world. It must be called in virtual time; the world ends with ctx, and Wait returns then.
func Start(ctx context.Context, c Config) (w *World, wait func()) {
	if c.Loss == 0 {
		c.Loss = 0.005
	}
	if c.Offset == 0 {
		c.Offset = 2 * time.Second
	}
	w = &World{
		config: c, sites: map[string]Site{}, nodes: map[string]*node{}, random: rand.New(rand.NewPCG(c.Seed, 1)),
		state: map[health.Target]State{}, etcd: true,
	}
	var targets []health.Target
	for _, s := range c.Sites {
		w.sites[s.Name] = s
		if t := (health.Target{Kind: health.PoP, Name: s.Name[len("pop:"):]}); s.Name[:4] == "pop:" {
			targets = append(targets, t)
			w.state[t] = Well
		}
	}
	var running sync.WaitGroup
	for _, s := range c.Sites {
		n := &node{Site: s, offset: time.Duration((2*w.random.Float64() - 1) * float64(c.Offset))}
		n.Node = vantage.New(vantage.Config{
			Name: s.Name, Region: s.Region, Log: slog.New(slog.DiscardHandler),
			Targets: func() []health.Target { return targets },
			Clock:   func() time.Time { return time.Now().Add(n.offset) },
			Probe:   func(ctx context.Context, t health.Target) health.Observation { return w.probe(ctx, n, t) },
			Publish: func(r *health.Report, nearby []string, lasting bool) { w.publish(&running, n, r, nearby, lasting) },
			Judged:  n.judged,
		})
		w.nodes[s.Name] = n
	}
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		begin := time.Duration(w.random.Int64N(int64(time.Second)))
		running.Go(func() {
			select {
			case <-time.After(begin):
				_ = w.nodes[name].Run(ctx)
			case <-ctx.Done():
			}
		})
	}
	running.Go(func() { w.beat(ctx) })
	return w, running.Wait
}

func (n *node) judged(j health.Judgement) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for t, v := range j.Verdicts {
		if old := n.last[t]; old.Status != v.Status || !maps.Equal(old.Regions, v.Regions) {
			n.history = append(n.history, Change{time.Now(), t, v})
		}
	}
	n.last = j.Verdicts
}

// Set makes something the matter with a PoP.
func (w *World) Set(pop string, s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state[health.Target{Kind: health.PoP, Name: pop}] = s
}

// Cut has those probes go unanswered for which cut is true; nil for none.
func (w *World) Cut(cut func(from Site, to health.Target) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

// Store makes the store reachable or not, for all.
func (w *World) Store(there bool) {
	w.mu.Lock()
	w.etcd = there
	w.mu.Unlock()
	for _, n := range w.nodes {
		n.Node.Store(there)
	}
}

// History returns what verdicts a node has come to, in order.
func (w *World) History(name string) []Change {
	n := w.nodes[name]
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.history)
}

// Verdicts returns what a node holds to be true now.
func (w *World) Verdicts(name string) health.Verdicts { return w.nodes[name].Judgement().Verdicts }

// Doubted returns whom a node does not believe now.
func (w *World) Doubted(name string) map[string]string { return w.nodes[name].Judgement().Doubted }

// Traffic returns what was sent until now.
func (w *World) Traffic() Traffic {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Wire
}

// rtt returns the round-trip time between two sites, with what a packet's luck adds.
func (w *World) rtt(a, b Site) time.Duration {
	return time.Duration(rtt.Default().Milliseconds(a.Location, b.Location) * float64(time.Millisecond))
}

// exchange returns how long n round trips take one after the other, of which packets are lost now and then: a lost one is sent again after three
// round-trip times, as QUIC does where it knows little (RFC 9002 section 6.2), and later after twice that.
func (w *World) exchange(a, b Site, n int, slowdown float64) time.Duration {
	base := max(w.rtt(a, b), time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	total := time.Duration(0)
	for range n {
		one := float64(base) * (1 + 0.05*w.random.ExpFloat64())
		for wait := 3 * float64(base); w.random.Float64() < 2*w.config.Loss; wait *= 2 {
			one += wait
		}
		total += time.Duration(one + slowdown*float64(2*time.Millisecond)*(1+w.random.ExpFloat64()))
	}
	return time.Duration(float64(total) * max(1, slowdown))
}

// probe is a probe of the intake over a fresh connection: two round trips.
func (w *World) probe(ctx context.Context, n *node, t health.Target) health.Observation {
	to := w.sites["pop:"+t.Name]
	w.mu.Lock()
	state, cut := w.state[t], w.cut != nil && w.cut(n.Site, t)
	fails := w.random.Float64() < 1.0/3
	w.Wire.Probes++
	w.mu.Unlock()
	o := health.Observation{OK: true, Code: health.CodeOK, Reason: "accepted a probe"}
	took, slowdown := time.Duration(0), 1.0
	switch {
	case state == Dead || cut:
		took = math.MaxInt64
	case state == Killed:
		took = w.exchange(n.Site, to, 1, 1)
		o = health.Observation{Code: health.CodeRefused, Reason: "connection refused"}
	case state == Slow:
		slowdown = 10
	case state == Brown && fails:
		o = health.Observation{Code: health.CodeStatus, Reason: "answered 503"}
	}
	if took == 0 {
		took = w.exchange(n.Site, to, 2, slowdown)
	}
	began := time.Now()
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		o = health.Observation{Code: health.CodeTimeout, Reason: "no answer"}
	}
	o.Took = time.Since(began)
	return o
}

// publish carries a report to all by the store, and directly to the DNS nodes and those who look at the same target.
func (w *World) publish(running *sync.WaitGroup, n *node, r *health.Report, nearby []string, lasting bool) {
	if w.config.Liar == n.Name && w.config.Lie != nil {
		if r = w.config.Lie(r); r == nil {
			return
		}
	}
	text := r.Encode()
	w.mu.Lock()
	byStore, delay := w.etcd && lasting, 50*time.Millisecond+time.Duration(w.random.Int64N(int64(100*time.Millisecond)))
	if byStore {
		w.Wire.Writes++
		w.Wire.WriteBytes += len(text)
	}
	w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		other := w.nodes[name]
		if other == n {
			continue
		}
		if byStore {
			w.deliver(running, other, text, delay, true)
		}
		if name[:4] == "dns:" || slices.Contains(nearby, name) {
			w.mu.Lock()
			lost := w.random.Float64() < w.config.Loss
			w.Wire.Datagrams += (len(text) + 1000) / 1001
			w.Wire.DatagramBytes += len(text) + 150
			w.mu.Unlock()
			if !lost {
				w.deliver(running, other, text, w.rtt(n.Site, other.Site)/2, false)
			}
		}
	}
}

func (w *World) deliver(running *sync.WaitGroup, to *node, text []byte, after time.Duration, stored bool) {
	running.Add(1)
	time.AfterFunc(after, func() {
		defer running.Done()
		r, err := health.DecodeReport(text)
		if err != nil {
			panic(fmt.Sprint("a report cannot be read: ", err))
		}
		to.Hear(r, stored)
	})
}

// beat carries signs of life directly, each second, until ctx ends.
func (w *World) beat(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for name, to := range w.nodes {
			for from, n := range w.nodes {
				if name[:4] != "dns:" && from[:4] != "dns:" {
					continue
				}
				w.mu.Lock()
				lost := w.random.Float64() < w.config.Loss
				w.Wire.Datagrams++
				w.Wire.DatagramBytes += 110
				w.mu.Unlock()
				if from != name && !lost && n.Report() != nil {
					to.Sign(from, time.Now().Add(n.offset-w.rtt(n.Site, to.Site)/2))
				}
			}
		}
	}
}
