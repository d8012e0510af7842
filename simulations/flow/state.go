package flow

import "time"

// held is how many PoPs a network's clients are connected to at most; more are thrown together.
const held = 6

// conn is the part of a network's clients that is connected to a PoP.
type conn struct {
	pop    int16
	us     uint32  // round-trip time
	part   float64 // of the clients
	was    float64 // likewise, when the view that holds came
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
	last int16 // that was added last
	now  int16 // the PoP that the view that holds brings to, or several
	pop  [2 * held]int16
	part [2 * held]float64
}

func (a *aims) add(pop int16, part float64) {
	if part <= 0 {
		return
	}
	a.last = pop
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
	a.now = several
	if v := e.views[0]; v.layers == nil && left > 0 {
		a.now = a.last
	}
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
		if e.landing[0][asks] == nowhere { // who asks is carried to no PoP: it learns of no other layer
			a.add(e.landing[0][network], part)
			return
		}
		second := v.layers[e.landing[0][asks]].second
		a.add(e.landing[0][network], float64(part*(1-second)))
		if second > 0 {
			third := 0.0
			if at := e.landing[1][asks]; at != nowhere {
				third = v.layers[at].third
			}
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
//
// A cache does not go back: who was answered by the view that holds is not answered by an earlier one later. And of those who had an earlier answer
// when the view came, just those are answered it again whose cache has it still, whether they have asked meanwhile or not: of x clients that were
// there, x × the part of caches that are stale. So the chance for those who are there still is that much higher. Of a farm that is so for the one
// machine of all that was asked before.
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
		a.n, a.pop[0], a.part[0], a.now = 1, s.aim, 1, s.aim
	} else {
		e.aim(u, &a)
	}
	metro, region := e.metro[u], e.region[u]
	stay, leave := e.staying[metro], e.leaving[metro] // parts that ask within the step
	gone, leaves := e.gone[region], e.leaves[region]
	var asks, urges [2 * held]float64 // by aim: clients that come there in the step, and part of posts
	urge, same := 0.0, 1.0            // same is the chance to ask the cache that was asked before
	if r := e.askers[e.of[u]].resolver; r >= 0 {
		same = 1 / float64(e.resolvers[r].machines)
	}
	for i := range s.c[:s.n] {
		c := &s.c[i]
		if s.epoch != e.epoch {
			c.was = c.part
		}
		ask, part := leave, 1.0
		if c.pop != nowhere && !leaves[c.pop] {
			refused := e.refused[c.pop] // in the step before: who is refused comes anew
			ask, part = stay+float64((leave-stay)*refused), e.fresh+float64((1-e.fresh)*refused)
		}
		again, elsewhere := a.chances(c, same)
		c.served = 0
		if c.pop != nowhere && !gone[c.pop] {
			c.served = float64(c.part * (1 - part))
		}
		asking, urging := float64(c.part*ask), float64(c.part*part)
		urge += urging
		c.part -= asking
		*moved += float64(float64(asking*(1-again)) * e.clients[u])
		for j := range a.pop[:a.n] {
			chance := float64(elsewhere * a.part[j])
			if a.pop[j] == c.pop {
				chance = again
			}
			asks[j] += float64(asking * chance)
			urges[j] += float64(urging * chance)
		}
	}
	lost := 0.0
	for j := range a.pop[:a.n] {
		pop := a.pop[j]
		c := s.add(pop, asks[j])
		switch {
		case pop == nowhere || gone[pop]:
			lost += urges[j]
			c.served = 0
		default:
			c.served += urges[j]
		}
		if c.us == 0 && c.pop != nowhere {
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

// chances returns with which chance clients who are at a PoP and ask are answered it again, and by what the parts of others are to be multiplied.
func (a *aims) chances(c *conn, same float64) (again, elsewhere float64) {
	here := a.of(c.pop)
	switch {
	case here >= 1-1e-12:
		return 1, 0
	case c.pop == a.now && here > 0:
		again = 1 - float64((1-here)*(1-same))
	case c.part > 0:
		again = min(1, float64(here*(1+float64(max(0, c.was/c.part-1)*same))))
	}
	return again, (1 - again) / (1 - here)
}
