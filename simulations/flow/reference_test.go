package flow

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
	"github.com/isochrone/isochrone/topology"
)

// reference is the obvious way: every client, every post, every cache with its entries. It shares nothing with the engine but the world and
// router.Decide.
type reference struct {
	*world.World
	random *rand.Rand
	table  *router.Table
	id     router.ServiceID
	ttl    time.Duration
	fresh  float64
	pop    int // that dies,
	dies   time.Duration
	back   time.Duration // and comes back
	down   time.Duration // the verdict
	up     time.Duration
	states map[time.Duration]*router.State
	caches map[string][]cached
	posts  int
	lost   int
	asks   int
	misses int
	sumUS  float64
	served int
	byPoP  []float64
}

type cached struct {
	scope   netip.Prefix
	expires time.Duration
	pop     int
}

type refClient struct {
	number, network int
	at              time.Duration
	pop             int // -1 before the first post
}

type refQueue []*refClient

func (q refQueue) Len() int           { return len(q) }
func (q refQueue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q refQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *refQueue) Push(x any)        { *q = append(*q, x.(*refClient)) }
func (q *refQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// state returns what our servers go by at a time: it changes with verdicts, and with the steps of a PoP that comes back.
func (r *reference) state(now time.Duration) *router.State {
	key := time.Duration(0)
	one := health.Verdict{Status: health.Up}
	switch {
	case r.down > 0 && now >= r.down && now < r.up:
		key, one.Status = 1, health.Down
	case r.up > 0 && now >= r.up:
		key, one.Recovered = 2+min((now-r.up)/time.Second, 100), scenario.Now.Add(r.up)
	}
	if r.states[key] == nil {
		v := health.Verdicts{{Kind: health.PoP, Name: r.PoPs[r.pop].Name}: one}
		r.states[key] = router.NewState(r.table, router.Inputs{Verdicts: v, Now: scenario.Now.Add(now)})
	}
	return r.states[key]
}

func (r *reference) dead(pop int, now time.Duration) bool {
	return pop == r.pop && now >= r.dies && now < r.back
}

// ask has a client's resolver find an answer: in the cache of one of its machines, by the longest scope that holds the client (RFC 7871, section
// 7.3.1), or at our servers.
func (r *reference) ask(c *refClient, now time.Duration) int {
	r.asks++
	client, cache := netip.PrefixFrom(r.Asker(c.network), 32), ""
	prefix := scenario.Prefix(c.network)
	ecs := false
	switch n := r.Networks[c.network].Resolver; {
	case n == world.Own:
		cache = fmt.Sprint("own", c.number)
	default:
		ecs = r.Resolvers[n].ECS
		cache = fmt.Sprint(n, "/", r.random.IntN(max(r.Resolvers[n].Farm, 1)))
	}
	if ecs {
		client = prefix
	}
	best := -1
	entries := r.caches[cache][:0]
	for _, x := range r.caches[cache] {
		if x.expires <= now {
			continue
		}
		entries = append(entries, x)
		if x.scope.Contains(client.Addr()) && (best < 0 || x.scope.Bits() > entries[best].scope.Bits()) {
			best = len(entries) - 1
		}
	}
	r.caches[cache] = entries
	if best >= 0 {
		return entries[best].pop
	}
	r.misses++
	d := router.Decide(&router.View{Table: r.table, State: r.state(now)}, r.id, router.IPv4, client, nil)
	name, _ := r.table.PoP(d.Choices[0])
	pop, _ := r.PoP(name)
	scope := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if ecs {
		scope, _ = client.Addr().Prefix(min(int(d.ScopeBits), client.Bits()))
	}
	r.caches[cache] = append(r.caches[cache], cached{scope, now + r.ttl, pop})
	return pop
}

// post has a client post.
func (r *reference) post(c *refClient, counted bool) {
	now := c.at
	if c.pop < 0 || r.dead(c.pop, now) || r.random.Float64() < r.fresh {
		c.pop = r.ask(c, now)
	}
	if !counted {
		return
	}
	r.posts++
	if r.dead(c.pop, now) {
		r.lost++
		return
	}
	r.served++
	r.byPoP[c.pop]++
	r.sumUS += float64(r.RTT(c.network, c.pop))
}

// run lets so much time pass, after a while in which nothing is counted.
func (r *reference) run(rate func(network int, at time.Duration) float64, most float64, until time.Duration) {
	const before = -20 * time.Minute
	var q refQueue
	for n := range r.Networks {
		for range r.Networks[n].Nodes {
			q = append(q, &refClient{len(q), n, before + time.Duration(r.random.ExpFloat64()/most*1e9), -1})
		}
	}
	heap.Init(&q)
	counting, asks, misses := false, r.asks, r.misses
	for q[0].at < until {
		c := q[0]
		if !counting && c.at >= 0 {
			counting, r.asks, r.misses = true, asks, misses
		}
		if r.random.Float64() < rate(c.network, c.at)/most { // thinning (Lewis and Shedler, 1979)
			r.post(c, c.at >= 0)
		}
		c.at += time.Duration(r.random.ExpFloat64() / most * 1e9)
		heap.Fix(&q, 0)
	}
}

// TestAgainstEveryClient holds the engine against the reference, in a small world in which a PoP dies and comes back.
func TestAgainstEveryClient(t *testing.T) {
	const dies, lasts, length = 5 * time.Minute, 5 * time.Minute, 15 * time.Minute
	runs, strict := 1, 3.0
	if *big {
		runs, strict = 8, 1.0
	}
	for _, resolvers := range []scenario.Resolvers{{Own: 0.2, Public: 0.1, ECS: 0.4, Farm: 3}, {ECS: 1}} {
		t.Run(fmt.Sprintf("own %v ecs %v", resolvers.Own, resolvers.ECS), func(t *testing.T) {
			t.Parallel()
			s := small(2000, 8, length)
			s.World.PoPs.Capacity, s.World.Network.Jitter = 0, new(bool)
			s.World.Clients.Resolvers, s.World.Clients.Rate, s.World.Clients.Fresh = resolvers, 0.1, 0.3
			w, err := world.Build(s.World, 3)
			if err != nil {
				t.Fatal(err)
			}
			die, _ := w.PoP("iad1")
			s.Timeline = []scenario.Event{{At: scenario.Duration(dies), For: scenario.Duration(lasts), Lose: []string{"iad1"}}}
			e, err := newEngine(s, w, scenario.Nearest, 3)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.run(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
			got := e.result(scenario.Nearest)

			table, err := router.Compile(&topology.Snapshot{Topology: w.Topology}, w.Atlas, nil)
			if err != nil {
				t.Fatal(err)
			}
			id, _ := table.Service(w.Service)
			r := &reference{World: w, random: rand.New(rand.NewPCG(1, 2)), table: table, id: id, ttl: e.ttl, fresh: 0.3, pop: die, dies: dies, back: dies + lasts,
				states: map[time.Duration]*router.State{}, caches: map[string][]cached{}, byPoP: make([]float64, len(w.PoPs))}
			r.down, r.up = told(t, got.Notes, "verdict: iad1 down"), told(t, got.Notes, "verdict: iad1 up")
			rate := func(network int, at time.Duration) float64 {
				hours := at.Hours() + w.Metro(network).LonDeg/15
				return 0.1 * (1 + 0.4*math.Cos(2*math.Pi*(hours-20)/24))
			}
			for range runs {
				r.caches = map[string][]cached{}
				r.run(rate, 0.14, length)
			}
			of := func(n int) float64 { return float64(n) / float64(runs) }

			near := func(name string, got, want, part float64) {
				t.Helper()
				t.Logf("%s: %.6g, by every client %.6g (%+.2f %%)", name, got, want, 100*(got/want-1))
				if !(math.Abs(got-want) <= part*want) {
					t.Errorf("%s is %v, by every client %v: more than %v %% apart", name, got, want, part*100)
				}
			}
			near("posts", got.Figures["posts"].Value, of(r.posts), 0.004*strict)
			near("lost", got.Figures["lost"].Value, of(r.lost), 0.1*strict)
			near("questions", got.Figures["questions"].Value, of(r.misses), 0.01*strict)
			near("cache.hits", got.Figures["cache.hits"].Value, 1-float64(r.misses)/float64(r.asks), 0.01*strict)
			near("rtt of posts", e.meanOfPosts()-1, r.sumUS/float64(r.served)/1000, 0.01*strict)
			for p := range w.PoPs {
				if sum := e.measured.popPosts[p]; r.byPoP[p] > 5000*float64(runs) {
					near("posts at "+w.PoPs[p].Name, sum, r.byPoP[p]/float64(runs), 0.015*strict)
				}
			}
		})
	}
}

// told returns when a note was made.
func told(t *testing.T, notes []string, what string) time.Duration {
	t.Helper()
	for _, n := range notes {
		if strings.Contains(n, what) {
			var h, m int
			var s float64
			if _, err := fmt.Sscanf(n, "%d:%d:%f", &h, &m, &s); err != nil {
				t.Fatal(err)
			}
			return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s*1e9)
		}
	}
	t.Fatalf("no note %q in %v", what, notes)
	return 0
}

// meanOfPosts is the mean time of posts in ms.
func (e *engine) meanOfPosts() float64 {
	all := make(histogram, bins)
	for i := range e.shards {
		for b, w := range e.shards[i].histogram[ofPost] {
			all[b] += w
		}
	}
	return all.mean() / 1000
}
