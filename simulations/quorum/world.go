package quorum

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// world is everything, at one time. What happens is a function of the seed.
type world struct {
	random   *rand.Rand
	model    *rtt.Model
	pops     []place
	half     map[[2]topology.Location]time.Duration // of its round trips, as far as they were asked
	bad      Bad
	badOne   int
	now      time.Duration // since the begin
	queue    queue
	number   uint64
	events   []*event
	vantages []*vantage
	judges   []*judge
	targets  []health.Target
	index    map[string]int // of a PoP, by name
	score    Result
	taped    [][]byte // datagrams, for who replays them
}

// newWorld makes a world in which nothing has happened.
func newWorld(seed uint64, bad Bad, faults int, pops []place) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 8)), model: rtt.Default(), pops: pops, bad: bad, index: map[string]int{},
		half: map[[2]topology.Location]time.Duration{}}
	w.badOne = w.random.IntN(len(pops))
	w.events = plan(w.random, faults, len(pops), w.badOne)
	all := []health.Vantage{}
	for i, p := range pops {
		w.targets = append(w.targets, health.Target{Kind: health.PoP, Name: p.name})
		w.index[p.name] = i
		all = append(all, health.Vantage{Name: "pop:" + p.name, Region: p.continent})
	}
	for i, p := range pops {
		v := &vantage{world: w, index: i, place: p, Vantage: all[i], clock: w.clock(i), all: all}
		w.vantages = append(w.vantages, v)
		w.when(time.Duration(w.random.Int64N(int64(time.Second))), v.start)
	}
	for i, p := range judges {
		j := &judge{world: w, index: i, place: p, clock: w.clock(-1), all: all, ledger: health.NewLedger(), leases: map[string]bool{}}
		w.judges = append(w.judges, j)
		w.when(time.Duration(w.random.Int64N(int64(time.Second))), j.tick)
	}
	for _, e := range w.events {
		if e.fault == HostDead || e.fault == ProcessKilled {
			w.when(e.begin, w.vantages[e.pop].stop)
			w.when(e.end, w.vantages[e.pop].start)
		}
	}
	return w
}

// when has f called at a time.
func (w *world) when(t time.Duration, f func()) {
	w.number++
	heap.Push(&w.queue, happening{max(t, w.now), w.number, f})
}

// run lets time pass.
func (w *world) run(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		next := heap.Pop(&w.queue).(happening)
		w.now = next.at
		next.f()
	}
	w.now = until
}

// happening is what is to happen; of two at one time, the one that was asked for first.
type happening struct {
	at     time.Duration
	number uint64
	f      func()
}

type queue []happening

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(happening)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// clock is a node's: wrong by offset at the begin, and by rate more with each second.
type clock struct {
	offset time.Duration
	rate   float64
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// clock draws the clock of a vantage: right to 20 ms and to 50 in a million. That of the bad vantage may be wrong by hours.
func (w *world) clock(i int) clock {
	c := clock{time.Duration(w.random.NormFloat64() * float64(20*time.Millisecond)), w.random.NormFloat64() * 50e-6}
	if i == w.badOne && w.bad == WrongClock {
		c = clock{time.Duration(w.random.NormFloat64() * float64(10*time.Hour)), 0.01}
	}
	return c
}

func (c clock) local(t time.Duration) time.Time {
	return epoch.Add(c.offset + t + time.Duration(float64(t)*c.rate))
}

// global returns when a local clock will show a time.
func (c clock) global(t time.Time) time.Duration {
	return time.Duration(float64(t.Sub(epoch)-c.offset) / (1 + c.rate))
}
