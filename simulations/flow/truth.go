package flow

import (
	"fmt"
	"math"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
)

// truths are what PoPs are, whatever anybody knows of it.
type truths struct {
	dead  []uint8 // by PoP: reasons why it does not answer
	cut   []bool  // by continent + 1: cut off from all others
	delay []time.Duration
	loss  []float64       // by PoP: of packets, one way, besides that of the network
	left  []float64       // by PoP: part of its capacity that is left
	since []int           // by PoP: counts changes, so that a verdict on what was before has no effect
	over  []time.Duration // by PoP: how long it has had too much
	away  []bool          // by cluster: nobody reaches it
	hopUS []uint32        // by PoP: to its nearest cluster
	etcd  int             // how many reasons there are why etcd is away

	gone   [][]bool // by region of clients and PoP: it does not answer them
	leaves [][]bool // likewise: clients who are connected come anew at their next post
	drains []bool   // by PoP: it tells its clients to go elsewhere
	best   []uint32 // by network: µs to its nearest PoP
}

// Reasons why a PoP does not answer.
const (
	lost uint8 = 1 << iota
	fallen
	isolated
	restarting
)

// capacity is what a PoP can do now; 0 is any.
func (e *engine) capacity(p int) float64 { return float64(e.pops[p].capacity * e.left[p]) }

// kill has a PoP not answer any more for a reason.
func (e *engine) kill(p int, why uint8, fault fault) {
	if e.dead[p] |= why; e.dead[p] == why {
		e.turn(p)
		e.suspect(p, fault)
	}
}

// revive takes a reason away.
func (e *engine) revive(p int, why uint8) {
	was := e.dead[p]
	if e.dead[p] &^= why; was != 0 && e.dead[p] == 0 {
		e.over[p] = 0
		e.turn(p)
		e.recover(p)
	}
}

// turn renews what follows from a PoP's truth.
func (e *engine) turn(p int) {
	e.since[p]++
	e.reach()
	e.disturb()
}

// reach finds which PoPs answer whom.
func (e *engine) reach() {
	for r := range e.gone {
		for p := range e.pops {
			at := e.pops[p].region
			apart := int(at) != r && (e.cut[at] || e.cut[r])
			e.gone[r][p] = e.dead[p] != 0 || apart
			e.leaves[r][p] = e.gone[r][p] || e.drains[p]
		}
	}
	e.epoch++
}

// hops finds how far PoPs are from clusters.
func (e *engine) hops() {
	for p := range e.pops {
		e.hopUS[p] = 0
		for c := range e.clusters {
			if us := e.ToCluster(p, c); !e.away[c] && (e.hopUS[p] == 0 || us < e.hopUS[p]) {
				e.hopUS[p] = us
			}
		}
	}
}

// A PoP that gets more than fallsAt times its capacity for fallsAfter falls over, and is back after backAfter: its queues and memory are full,
// probes are not answered any more, and what watches over it starts it anew.
const (
	fallsAt    = 1.1
	fallsAfter = 10 * time.Second
	backAfter  = time.Minute
)

// overload lets PoPs fall over that have had too much for too long.
func (e *engine) overload(d time.Duration) {
	for p := range e.pops {
		capacity := e.capacity(p)
		if capacity <= 0 || e.dead[p] != 0 || e.load[p] <= fallsAt*capacity {
			e.over[p] = 0
			continue
		}
		e.fine = max(e.fine, e.now+2*time.Second)
		if e.over[p] += min(d, 2*time.Second); e.over[p] < fallsAfter {
			continue
		}
		e.over[p] = 0
		e.measured.fell[p] = true
		e.note("%s falls over: %.2f of its capacity", e.pops[p].name, e.load[p]/capacity)
		e.kill(p, fallen, hostDead)
		e.when(e.now+backAfter, func() {
			e.note("%s is started anew", e.pops[p].name)
			e.revive(p, fallen)
		})
	}
}

// crowd is more clients' posts near a place, for a while.
type crowd struct {
	from, to, ramp time.Duration
	times          float64
}

func newCrowd(event *scenario.Event) crowd {
	c := crowd{time.Duration(event.At), math.MaxInt64 / 2, time.Duration(event.Crowd.Ramp), event.Crowd.Factor}
	if event.For > 0 {
		c.to = c.from + time.Duration(event.For)
	}
	return c
}

// factor is by what rates are multiplied at a time.
func (c *crowd) factor(at time.Duration) float64 {
	if at < c.from || at >= c.to+c.ramp {
		return 1
	}
	part := 1.0
	if c.ramp > 0 {
		part = max(0, min(1, float64(at-c.from)/float64(c.ramp), 1-float64(at-c.to)/float64(c.ramp)))
	}
	return 1 + float64((c.times-1)*part)
}

// note tells what happens. Of very many, the first are kept.
func (e *engine) note(format string, args ...any) {
	const most = 400
	if len(e.notes) == most {
		e.notes = append(e.notes, "and more")
	}
	if len(e.notes) < most {
		t := e.now.Round(100 * time.Millisecond)
		e.notes = append(e.notes, fmt.Sprintf("%02d:%02d:%04.1f ", int(t.Hours()), int(t.Minutes())%60, (t%time.Minute).Seconds())+fmt.Sprintf(format, args...))
	}
}
