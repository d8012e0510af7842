package flow

import "time"

// How long it takes until routes to a PoP are gone that is dead, or there again: the hold timer of its router, of 9 s with a keepalive each 3 s
// (docs/bgp.md), and up to 3 s until other networks have found another way; the time from the start until health lets it announce.
const (
	leastHold  = 6 * time.Second
	spreadHold = 6 * time.Second
	announces  = 3 * time.Second
)

// flip is a part of networks whose packets BGP carries to the second PoP that it likes.
type flip struct {
	event int // its number in the timeline
	part  float64
}

// route has BGP follow what has become of a PoP.
func (e *engine) route(p int) {
	if len(e.vips) == 0 {
		return
	}
	since, wait := e.since[p], announces
	if e.dead[p] != 0 {
		wait = leastHold + time.Duration(draw(e.seed, 11, uint64(p), uint64(e.now))*float64(spreadHold))
	}
	e.when(e.now+wait, func() {
		if e.since[p] == since {
			e.announced[p] = e.dead[p] == 0
			e.note("routes to %s: %v", e.pops[p].name, e.announced[p])
			e.converge()
		}
	})
}

// converge finds where BGP carries packets to VIPs now. Connections of clients whose route has changed are opened anew where it leads, unless PoPs
// pass packets on to each other (docs/bgp.md, "Staying through a change of the route"), as ours do.
func (e *engine) converge() {
	if len(e.vips) == 0 {
		return
	}
	before := make([][]int16, len(e.vips))
	for v := range e.vips {
		before[v] = e.landing[v]
		e.landing[v] = make([]int16, len(e.Networks))
		announces := make([]bool, len(e.pops))
		for p := range announces {
			announces[p] = e.vips[v][p] && e.announced[p]
		}
		const chunk = 1024
		e.each((len(e.Networks)+chunk-1)/chunk, func(i int) {
			for n := i * chunk; n < min((i+1)*chunk, len(e.Networks)); n++ {
				e.landing[v][n] = e.carried(n, announces)
			}
		})
	}
	if _, plain := e.policy.(*routed); !plain && before[0] != nil {
		e.each(len(e.shards), func(i int) {
			for u := e.shards[i].from; u < e.shards[i].to; u++ {
				e.reroute(u, before)
			}
		})
	}
	e.disturb()
}

// carried returns where a network's packets to a VIP go, which some PoPs announce.
func (e *engine) carried(network int, announces []bool) int16 {
	for _, f := range e.flips {
		if e.Flipped(network, f.event, f.part) {
			return int16(e.Catchment(network, announces, true))
		}
	}
	return int16(e.Catchment(network, announces, false))
}

// reroute moves a unit's connections to where their VIP leads now.
func (e *engine) reroute(u int, before [][]int16) {
	s, network := &e.state[u], u
	old := *s
	s.n = 0
	for _, c := range old.c[:old.n] {
		to := c.pop
		for v := range before {
			if before[v][network] == c.pop {
				to = e.landing[v][network]
				break
			}
		}
		x := s.add(to, c.part)
		if x.us == 0 && to != nowhere {
			x.us = e.RTT(network, int(to))
		}
	}
	s.settled = false
}

// vipsOf has VIPs that PoPs announce.
func (e *engine) vipsOf(announcers ...[]bool) {
	e.vips = announcers
	e.landing = make([][]int16, len(announcers))
	e.converge()
}
