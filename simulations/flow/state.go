package flow

import "time"

// held is how many PoPs a network's clients are connected to at most; more are thrown together.
const held = 6

// conn is the part of a network's clients that is connected to a PoP.
type conn struct {
	pop    int16
	us     uint32  // round-trip time
	part   float64 // of the clients
	served float64 // part of the clients' posts that comes there
}

// standing is where a network's clients are.
type standing struct {
	n       uint8
	settled bool // nothing changes until what the engine calls its epoch does
	epoch   uint32
	aim     int16   // the one PoP that is answered in this epoch, or several
	urge    float64 // part of posts for which the name is asked
	lost    float64 // part of posts that nobody answers
	c       [held]conn
}

// add gives a part to a PoP. Where there is no room, it goes to the largest.
func (s *standing) add(pop int16, part float64) *conn {
	for i := range s.c[:s.n] {
		if s.c[i].pop == pop {
			s.c[i].part += part
			return &s.c[i]
		}
	}
	if int(s.n) == held {
		most := 0
		for i := range s.c {
			if s.c[i].part > s.c[most].part {
				most = i
			}
		}
		s.c[most].part += part
		return &s.c[most]
	}
	s.c[s.n] = conn{pop: pop, part: part}
	s.n++
	return &s.c[s.n-1]
}

// drop forgets parts of nearly nothing.
func (s *standing) drop() {
	const little = 1e-6
	n, largest := uint8(0), uint8(0)
	gone := 0.0
	for i := range s.c[:s.n] {
		if s.c[i].part < little {
			gone += s.c[i].part
			continue
		}
		s.c[n] = s.c[i]
		if s.c[n].part > s.c[largest].part {
			largest = n
		}
		n++
	}
	if n == 0 {
		return
	}
	s.n = n
	s.c[largest].part += gone
}

// aims are the parts of questions that are answered a PoP, at one time.
type aims struct {
	n    int
	pop  [2 * held]int16
	part [2 * held]float64
}

func (a *aims) add(pop int16, part float64) {
	if part <= 0 {
		return
	}
	for i := range a.pop[:a.n] {
		if a.pop[i] == pop {
			a.part[i] += part
			return
		}
	}
	if a.n == len(a.pop) {
		a.part[0] += part
		return
	}
	a.pop[a.n], a.part[a.n] = pop, part
	a.n++
}

// of returns the part of a PoP.
func (a *aims) of(pop int16) float64 {
	for i := range a.pop[:a.n] {
		if a.pop[i] == pop {
			return a.part[i]
		}
	}
	return 0
}

// aim finds what a network's clients are answered in a step: by the view that holds, and from caches by those before it. What is answered from a cache
// is as old as any number up to the TTL, with the chance of a hit: arrivals are a Poisson process, and a time of a hit is uniform among those of an
// entry's life.
func (e *engine) aim(u int, a *aims) {
	a.n = 0
	asker := e.of[u]
	left := 1.0
	for i := 1; i < len(e.views); i++ {
		stale, old := e.aged[i], e.views[i]
		if stale <= 0 {
			continue
		}
		hit := e.ownHit[e.metro[u]]
		if g := old.group[asker]; g >= 0 {
			hit = old.hit[g]
		}
		part := float64(stale * hit)
		left -= part
		e.land(u, old, asker, part, a)
	}
	e.land(u, e.views[0], asker, left, a)
}

// stale is the part of the TTL before a time in which a view held.
func (e *engine) stale(v *view, at time.Duration) float64 {
	if e.ttl <= 0 {
		return 0
	}
	begin, end := max(v.from, at-e.ttl), min(v.until, at)
	if end <= begin {
		return 0
	}
	return float64(end-begin) / float64(e.ttl)
}

// land adds the PoPs to which a view's answer brings a network's clients.
func (e *engine) land(u int, v *view, asker int32, part float64, a *aims) {
	if v.layers != nil {
		network, asks := u, e.askers[asker].network
		second := v.layers[e.landing[0][asks]].second
		a.add(e.landing[0][network], float64(part*(1-second)))
		if second > 0 {
			third := v.layers[e.landing[1][asks]].third
			a.add(e.landing[1][network], float64(float64(part*second)*(1-third)))
			a.add(e.landing[2][network], float64(float64(part*second)*third))
		}
		return
	}
	answer := &v.answers[asker]
	if answer.n == 0 {
		a.add(nowhere, part)
		return
	}
	first := nowhere
	gone := e.gone[e.region[u]]
	for _, c := range answer.choices[:answer.n] {
		pop := int16(c)
		if vip := int(c) - len(e.pops); vip >= 0 {
			pop = e.landing[vip][u]
		}
		if pop == nowhere {
			continue
		}
		if first == nowhere {
			first = pop
		}
		if !gone[pop] {
			a.add(pop, part) // a client goes down the answer until somebody is there
			return
		}
	}
	a.add(first, part)
}

// nowhere is in place of a PoP where there is none.
const nowhere int16 = -1

// several is in place of a PoP where there are more.
const several int16 = -2

// move lets a network's clients ask and connect, over a step whose rates are known.
func (e *engine) move(u int, s *standing, moved *float64) {
	if s.settled && s.epoch == e.epoch {
		return
	}
	var a aims
	if e.oracle != nil {
		e.oracle.stand(e, u, s)
		return
	}
	if s.epoch == e.epoch && s.aim != several && len(e.views) == 1 {
		a.n, a.pop[0], a.part[0] = 1, s.aim, 1
	} else {
		e.aim(u, &a)
	}
	metro, region := e.metro[u], e.region[u]
	stay, leave := e.staying[metro], e.leaving[metro] // parts that ask within the step
	gone, leaves := e.gone[region], e.leaves[region]
	asking, urge := 0.0, 0.0
	for i := range s.c[:s.n] {
		c := &s.c[i]
		ask, part := leave, 1.0
		if c.pop != nowhere && !leaves[c.pop] {
			refused := e.refused[c.pop] // in the step before: who is refused comes anew
			ask, part = stay+float64((leave-stay)*refused), e.fresh+float64((1-e.fresh)*refused)
		}
		urge += float64(part * c.part)
		c.served = 0
		if part < 1 && c.pop != nowhere {
			c.served = float64(c.part * (1 - part))
		}
		asks := float64(c.part * ask)
		c.part -= asks
		asking += asks
		*moved += float64(float64(asks*(1-a.of(c.pop))) * e.clients[u])
	}
	lost := 0.0
	for i := range a.pop[:a.n] {
		pop := a.pop[i]
		c := s.add(pop, float64(asking*a.part[i]))
		switch {
		case pop == nowhere || gone[pop]:
			lost += float64(urge * a.part[i])
			c.served = 0
		default:
			c.served += float64(urge * a.part[i])
		}
		if c.us == 0 && pop != nowhere {
			c.us = e.RTT(u, int(c.pop))
		}
	}
	s.urge, s.lost = urge, lost
	s.drop()
	s.settled = s.n == 1 && a.n == 1 && s.c[0].pop == a.pop[0] && len(e.views) == 1
	s.epoch, s.aim = e.epoch, several
	if a.n == 1 {
		s.aim = a.pop[0]
	}
}
