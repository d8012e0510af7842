package forward

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/dataplane/tracing"
)

// Figures of an endpoint.
const (
	firstLimit     = 32               // envelopes on the way at first
	leastLimit     = 4                // that many may always be on the way
	maxQueueBytes  = 8 << 20          // of bodies that wait for an endpoint, beside one that is longer
	trips          = 5                // failures in a row that open the breaker
	shortestPause  = time.Second      // of a breaker, at first; half of it to all of it, at random
	longestPause   = 30 * time.Second // of a breaker, which doubles with each trial that fails
	slowStart      = 20 * time.Second // in which a cluster that has come back gets its full share
	leastShare     = 0.05             // of what it would get, at the begin of the slow start
	attemptTimeout = 10 * time.Second // from the writing of a request to its answer
)

// job is an envelope on its way.
type job struct {
	item    *spool.Item
	next    *job
	tried   uint64        // by bit of endpoint: those that have failed in this round
	tries   int           // rounds that have failed since it was taken from the spool
	retry   bool          // was sent before, so that sending it again costs of the budget
	spent   bool          // of the budget
	sent    time.Time     // when its writing began
	failure string        // the last one
	span    *tracing.Span // of the attempt that is under way; nil if it is not traced
}

// jobs is a queue.
type jobs struct {
	first, last *job
	n           int
	bytes       int
}

func (q *jobs) push(j *job) {
	j.next = nil
	if q.first == nil {
		q.first = j
	} else {
		q.last.next = j
	}
	q.last = j
	q.n++
	q.bytes += len(j.item.Body)
}

func (q *jobs) pop() *job {
	j := q.first
	q.first, j.next = j.next, nil
	q.n--
	q.bytes -= len(j.item.Body)
	return j
}

// The states of a breaker. It is not gobreaker's: that one wants a closure for each request, and knows nothing of several requests that
// one connection loses at a time, which are one failure here.
const (
	closed = iota
	open
	trial // one envelope is on the way, by which it opens again or closes
)

var breakerStates = [...]string{closed: "closed", open: "open", trial: "half-open"}

// endpoint is one URL of a cluster. All is guarded by the Forwarder's mutex, but for what is atomic.
type endpoint struct {
	target
	forwarder *Forwarder
	cluster   *cluster
	bit       uint64
	head      atomic.Pointer[[]byte] // of HTTP/1.1 requests
	token     atomic.Pointer[string]

	queue    jobs
	inFlight int
	conns    []*conn
	dialling int
	removed  bool // from the topology

	limit    float64 // of inFlight, as it was found; maximum bounds it
	maximum  int
	cut      time.Time     // when the limit was last lowered
	lowest   time.Duration // answer time, of those that are not long ago
	answer   time.Duration // smoothed answer time
	lowestAt time.Time

	breaker  int
	failures int // in a row
	until    time.Time
	pause    time.Duration
	notUntil time.Time // as Retry-After told

	depth       int           // to which requests may be pipelined
	shallow     time.Time     // until then it is not more than 1
	faults      int           // connections that ended in the middle of a pipeline
	service     time.Duration // smoothed time that the endpoint works on one request of a pipeline
	rtt         time.Duration // smoothed, of its connections; 0 when not measured
	lastFailure string
	warmAt      time.Time // before which no connection is opened only to be warm
}

// allows reports whether the breaker, and the endpoint's own word, let an envelope through.
func (e *endpoint) allows(now time.Time) bool {
	if now.Before(e.notUntil) {
		return false
	}
	switch e.breaker {
	case closed:
		return true
	case open:
		return !now.Before(e.until)
	}
	return false
}

// bound is how many envelopes may be on the way now.
func (e *endpoint) bound(now time.Time) int {
	bound := min(int(e.limit), e.maximum)
	if share := e.cluster.share(now); share < 1 {
		bound = min(bound, max(1, int(share*float64(e.maximum))))
	}
	return max(1, bound)
}

// room reports whether a body may wait for the endpoint: as many wait as may be on the way at most, so that a burst does not go to a cluster
// that is further away; only as many as may be on the way now while the endpoint fails or starts slowly.
func (e *endpoint) room(now time.Time, length int) bool {
	if e.breaker == open || e.breaker == trial {
		return e.queue.n == 0 && e.inFlight == 0
	}
	most := e.maximum
	if e.failures > 0 || e.cluster.share(now) < 1 {
		most = e.bound(now)
	}
	return e.queue.n < most && (e.queue.n == 0 || e.queue.bytes+length <= maxQueueBytes)
}

// admit puts an envelope into the queue.
func (e *endpoint) admit(j *job) {
	if e.breaker == open {
		e.breaker = trial
	}
	e.queue.push(j)
}

// succeeded is told when an answer shows that the endpoint is well.
func (e *endpoint) succeeded(now time.Time) {
	e.failures = 0
	e.cluster.met.Well++
	if e.breaker != closed {
		e.breaker, e.pause = closed, 0
		e.limit = min(e.limit, firstLimit)
		e.cluster.slowFrom = now
	}
}

// failed is told once for each event that shows that the endpoint is not well: an answer, or the end of a connection.
func (e *endpoint) failed(now time.Time, why string) {
	e.failures++
	e.lastFailure = why
	e.cluster.met.Failed++
	e.cluster.met.Failure = why
	if e.breaker == trial || e.breaker == closed && e.failures >= trips {
		e.breaker = open
		e.pause = min(longestPause, max(shortestPause, 2*e.pause))
		e.until = now.Add(e.pause/2 + rand.N(e.pause/2+1))
	}
}

// spared is told when a trial ended without saying anything of the endpoint, so that there will be another.
func (e *endpoint) spared() {
	if e.breaker == trial {
		e.breaker = open
	}
}

// slower lowers the limit, at most once in an answer time.
func (e *endpoint) slower(now time.Time, factor float64) {
	if now.Sub(e.cut) < max(e.answer, 10*time.Millisecond) {
		return
	}
	e.cut = now
	e.limit = max(leastLimit, e.limit*factor)
}

// answered adjusts the limit by an answer's time: additive increase while the limit is made use of, multiplicative decrease when answers
// take much longer than they did at their best.
func (e *endpoint) answered(now time.Time, took time.Duration) {
	if e.lowest == 0 || took < e.lowest || now.Sub(e.lowestAt) > time.Minute {
		e.lowest, e.lowestAt = took, now
	}
	if e.answer == 0 {
		e.answer = took
	}
	e.answer += (took - e.answer) / 16
	if e.answer > 4*e.lowest+100*time.Millisecond {
		e.slower(now, 0.9)
	} else if float64(e.inFlight) >= e.limit/2 && e.limit < float64(e.maximum) {
		e.limit += 1 / max(1, e.limit/8)
	}
}

// wake wakes connections that have room for what waits, and opens another where they have not.
func (e *endpoint) wake(now time.Time) {
	waiting := min(e.queue.n, e.bound(now)-e.inFlight)
	for _, c := range e.conns {
		if waiting <= 0 {
			return
		}
		if n := c.capacity(now); n > 0 {
			waiting -= n
			c.signal()
		}
	}
	if waiting > 0 && e.dialling == 0 && len(e.conns) < e.wanted() {
		e.open()
	}
}

// wanted is how many connections are worth having. Where each request of a connection waits for the one before it, a slow cluster
// needs more of them; where many are on the way at a time in one connection, a few do.
func (e *endpoint) wanted() int {
	if len(e.conns) > 0 && e.conns[0].http2 != nil {
		return maxHTTP2
	}
	switch {
	case e.service == 0 && len(e.conns) > 0 && e.depth <= 1 && time.Now().Before(e.shallow):
		return maxWide
	case e.service <= 250*time.Microsecond:
		return maxDeep
	}
	return min(maxWide, maxDeep*int((e.service+249*time.Microsecond)/(250*time.Microsecond)))
}

// pipeline is how many requests may be on the way in one connection: no more than are worked on in ten milliseconds.
func (e *endpoint) pipeline(now time.Time) int {
	if now.Before(e.shallow) {
		return 1
	}
	depth := max(1, e.depth)
	if e.service > 0 {
		depth = min(depth, max(1, int(10*time.Millisecond/e.service)))
	}
	return depth
}
