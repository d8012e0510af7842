package flow

import (
	"math"
	"math/bits"
	"time"
)

// What is counted of units.
const (
	ofRTT   = iota // by clients and time
	ofOff          // likewise: above the best
	ofFresh        // by posts
	ofPost         // likewise
	ofAcknowledged
	histograms
)

// A histogram has bins of microseconds: 128 to each doubling.
const (
	binBits = 7
	bins    = (26 - binBits) << binBits
)

// histogram counts weights by microseconds.
type histogram []float64

// bin returns the bin of a number of microseconds: exact below 256, then of a width of one part in 128.
func bin(us uint32) int {
	e := bits.Len32(us) - binBits - 1
	if e <= 0 {
		return int(us)
	}
	return min(e<<binBits+int(us>>e), bins-1)
}

// bound returns where a bin begins, in microseconds.
func bound(b int) float64 {
	if b < 2<<binBits {
		return float64(b)
	}
	e := b>>binBits - 1
	return math.Ldexp(float64(b-e<<binBits), e)
}

// quantile returns the value that a part of the weight does not exceed, in microseconds; within a bin the weight is spread evenly.
func (h histogram) quantile(q float64) float64 {
	total := 0.0
	for _, w := range h {
		total += w
	}
	if total <= 0 {
		return 0
	}
	below, want := 0.0, float64(q*total)
	last := 0
	for b, w := range h {
		if w <= 0 {
			continue
		}
		if below+w >= want {
			return bound(b) + float64((bound(b+1)-bound(b))*((want-below)/w))
		}
		below, last = below+w, b
	}
	return bound(last + 1)
}

// mean returns the mean, in microseconds.
func (h histogram) mean() float64 {
	total, sum := 0.0, 0.0
	for b, w := range h {
		total += w
		sum += float64(w * float64(bound(b)+bound(b+1)) / 2)
	}
	if total <= 0 {
		return 0
	}
	return sum / total
}

// above returns which part of the weight is at or above a number of microseconds.
func (h histogram) above(us float64) float64 {
	total, sum := 0.0, 0.0
	for b, w := range h {
		total += w
		switch low, high := bound(b), bound(b+1); {
		case low >= us:
			sum += w
		case high > us:
			sum += float64(w * (high - us) / (high - low))
		}
	}
	if total <= 0 {
		return 0
	}
	return sum / total
}

// observe counts the round-trip times of a shard's networks in a step.
func (e *engine) observe(s *shard, seconds float64) {
	s.served, s.us = 0, 0
	moment := uint64(e.now)
	for u := s.from; u < s.to; u++ {
		x, best := &e.state[u], e.best[u]
		weight := float64(e.clients[u] * seconds)
		posts := float64(weight * e.rate[e.metro[u]])
		for i := range x.c[:x.n] {
			c := &x.c[i]
			if c.served <= 0 {
				continue
			}
			w, p := float64(weight*c.served), float64(float64(posts*c.served)*(1-e.refused[c.pop]))
			s.served, s.us = s.served+w, s.us+float64(w*float64(c.us))
			s.histogram[ofRTT][bin(c.us)] += w
			s.histogram[ofOff][bin(c.us-min(best, c.us))] += w
			for k := range e.samples {
				e.observePost(s, u, c, moment+uint64(k), p/float64(e.samples))
			}
		}
	}
}

// firstAgain is after how long the first packet of a connection is sent again when nothing comes back, in µs (docs/health.md, "How long a probe may
// take").
const firstAgain = 300_000

// observePost counts one sample of posts to a PoP: a round trip on an open connection, two on a new one (QUIC), with jitter, and with what is lost
// sent again: after 300 ms while nothing is known of the way, else after three round trips (RFC 9002, section 6.2.1, with a variation of half of
// it). Of packets lost, two in a row are left out.
func (e *engine) observePost(s *shard, network int, c *conn, sample uint64, weight float64) {
	first, second := int64(c.us), int64(c.us)
	if e.jitter {
		first += int64(e.Jitter(network, int(c.pop), 2*sample))
		second += int64(e.Jitter(network, int(c.pop), 2*sample+1))
	}
	work := int64(e.delayUS[c.pop]) + e.bodyUS + int64(e.rounds)*int64(c.us)
	fresh, post := uint32(first+second+work), uint32(second+work)
	acknowledged := uint32(first+second/2+work) + e.hopUS[c.pop]
	if lost := e.lossOf(c.pop); lost > 0 {
		again := float64(weight * lost)
		s.histogram[ofPost][bin(post+3*c.us)] += again
		s.histogram[ofFresh][bin(fresh+firstAgain)] += again
		s.histogram[ofFresh][bin(fresh+3*c.us)] += again
		s.histogram[ofAcknowledged][bin(acknowledged+firstAgain)] += again
		s.histogram[ofFresh][bin(fresh)] -= again
		s.histogram[ofAcknowledged][bin(acknowledged)] += float64(weight - again)
		s.histogram[ofPost][bin(post)] += float64(weight - again)
		s.histogram[ofFresh][bin(fresh)] += float64(weight - again)
		return
	}
	s.histogram[ofFresh][bin(fresh)] += weight
	s.histogram[ofPost][bin(post)] += weight
	s.histogram[ofAcknowledged][bin(acknowledged)] += weight
}

// lossOf is the chance that a round trip to a PoP loses a packet, of at most a half.
func (e *engine) lossOf(pop int16) float64 {
	through := float64((1 - e.Spec.Network.Loss) * (1 - e.loss[pop]))
	return min(1-float64(through*through), 0.5)
}

// prepareObserving finds what posts cost besides round trips and the PoP's work: their time on the line, and further round trips of those that do not fit into
// the initial window of ten packets (RFC 9002, section 7.2), which doubles.
func (e *engine) prepareObserving() {
	body := orDefault(e.Spec.Clients.Body, defaultBody)
	if bandwidth := e.Spec.Network.Bandwidth; bandwidth > 0 {
		e.bodyUS = int64(float64(body) * 8e6 / bandwidth)
	}
	for window := 12_000; body > window; window *= 2 {
		body -= window
		e.rounds++
	}
	e.jitter = e.Spec.Network.Jitter == nil || *e.Spec.Network.Jitter
	e.samples = 1
	if e.jitter {
		steps := max(1, int(e.until/max(e.step, 1)))
		e.samples = max(1, min(32, 1_000_000/max(1, len(e.Networks)*steps)))
	}
}

// figures are what a run has come to so far.
type figures struct {
	// In the step.
	posts, lost, asks, misses, entries, moved, meanUS float64

	sumPosts, sumRefused, sumLost, sumAsks, sumMisses float64
	mostEntries, mostLoad                             float64
	popLoad                                           []float64 // by PoP: the highest part of its capacity
	popPosts                                          []float64 // by PoP: that came
	popTime                                           []float64 // by PoP: clients × seconds
	over                                              []bool    // by PoP: it got more than it can do
	fell                                              []bool
	hourMoved, mostMoved                              float64
	hour                                              int
	lastWrong, verdict                                time.Duration
	series                                            *recorder
}

// step takes a step into the figures.
func (m *figures) step(e *engine, d time.Duration) {
	seconds := d.Seconds()
	m.sumPosts += float64(m.posts * seconds)
	m.sumLost += float64(m.lost * seconds)
	m.sumAsks += float64(m.asks * seconds)
	m.sumMisses += float64(m.misses * seconds)
	m.mostEntries = max(m.mostEntries, m.entries)
	refused := 0.0
	for p, load := range e.load {
		refused += float64(load * e.refused[p])
		m.popTime[p] += float64(e.clientsAt[p] * seconds)
		m.popPosts[p] += float64(load * seconds)
		if capacity := e.capacity(p); capacity > 0 {
			part := load / capacity
			m.popLoad[p] = max(m.popLoad[p], part)
			m.mostLoad = max(m.mostLoad, part)
			m.over[p] = m.over[p] || part > 1+1e-9
		}
	}
	m.sumRefused += float64(refused * seconds)
	if hour := int((e.now - 1) / time.Hour); hour != m.hour {
		m.hour, m.hourMoved = hour, 0
	}
	m.hourMoved += m.moved
	m.mostMoved = max(m.mostMoved, m.hourMoved)
	m.series.take(e, refused, d)
}
