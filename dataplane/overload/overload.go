// Package overload keeps a PoP at its peak when more comes than it can do: it sheds a share of the requests, found from how long
// work waits before it is done, and paces the refusals, so that they cannot eat the processor that the accepted ones need.
//
// What is refused, and how that is said to a client, is the intake's part.
//
//	if !o.Enter() {
//		refusal := o.Refuse()
//		// answer 503 with refusal.RetryAfter at once, and do not hear that connection for refusal.Pause
//	}
//	...
//	o.Leave(waited)               // in the spool's queue
package overload

import (
	"cmp"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// Limits of what is refused. A refusal costs the processor a tenth of what an accepted request does, or less.
const (
	refusalsPerAccepted = 0.5         // of what is accepted in a second, so many may be refused in one; connections over that are paused
	refusalsPerCore     = 500         // in a second, by each processor, whatever is accepted
	maxPause            = time.Second // which is the shortest time that Retry-After tells
	shards              = 32
)

// Options of an Overload. Zero values stand for the defaults.
type Options struct {
	Target   time.Duration // how long work may wait for a processor; default 50 ms
	Storage  time.Duration // how long it may wait for the disk; default 500 ms
	Interval time.Duration // between looks; default 50 ms
}

// Overload decides which requests are worked on. Its methods may be called concurrently.
type Overload struct {
	options Options
	share   atomic.Uint32 // of requests that are shed, in 1/2^32
	counts  [shards]count
	next    atomic.Int64 // when the next refusal is due, in nanoseconds since began
	gap     atomic.Int64 // nanoseconds between refusals
	began   time.Time
	load    atomic.Pointer[Load]
}

// count is a part of the totals that few processors write at a time.
type count struct {
	entered, shed, left atomic.Uint64
	waited              atomic.Int64 // nanoseconds, of those that have left
	_                   [96]byte     // two cache lines each
}

// New returns an Overload that sheds nothing until Run looks.
func New(o Options) *Overload {
	o.Target = cmp.Or(o.Target, 50*time.Millisecond)
	o.Storage = cmp.Or(o.Storage, 500*time.Millisecond)
	o.Interval = cmp.Or(o.Interval, 50*time.Millisecond)
	n := &Overload{options: o, began: time.Now()}
	n.pace(0)
	n.load.Store(&Load{})
	return n
}

// Enter says whether a request is worked on. It costs some nanoseconds, takes no lock and allocates nothing.
func (o *Overload) Enter() bool {
	random := rand.Uint32()
	c := &o.counts[random%shards]
	if random < o.share.Load() {
		c.shed.Add(1)
		return false
	}
	c.entered.Add(1)
	return true
}

// Leave tells how long a request that was let in has waited for the disk.
func (o *Overload) Leave(waited time.Duration) {
	c := &o.counts[rand.Uint32()%shards]
	c.left.Add(1)
	c.waited.Add(int64(waited))
}

// Refusal is how a request is refused.
type Refusal struct {
	RetryAfter time.Duration // whole seconds
	Pause      time.Duration // how long the connection is not heard: until it is its turn to be refused again; less than RetryAfter
}

// Refuse tells how to refuse a request. A client gets its answer at once, but one that asks on and on, or on many streams, is slowed
// down to what may be spent on refusals.
func (o *Overload) Refuse() Refusal {
	return Refusal{RetryAfter: retryAfter(o.ShedShare(), rand.Float64()), Pause: o.turn(time.Since(o.began))}
}

// pace has refusals come as seldom as what is accepted in a second allows.
func (o *Overload) pace(accepted float64) {
	perSecond := max(refusalsPerAccepted*accepted, float64(refusalsPerCore*runtime.GOMAXPROCS(0)))
	o.gap.Store(int64(float64(time.Second) / perSecond))
}

// turn takes the next place among the refusals, and returns how long it is away.
func (o *Overload) turn(now time.Duration) time.Duration {
	for {
		next := o.next.Load()
		at := max(next, int64(now))
		if at-int64(now) > int64(maxPause) {
			return maxPause
		}
		if o.next.CompareAndSwap(next, at+o.gap.Load()) {
			return time.Duration(at) - now
		}
	}
}

// retryAfter spreads those who were refused over the more time the more they are. Random is in [0, 1).
func retryAfter(share, random float64) time.Duration {
	return time.Duration(1+int(random*(1+9*share))) * time.Second
}

// ShedShare returns the share of requests that is being shed, in 0..1.
func (o *Overload) ShedShare() float64 { return float64(o.share.Load()) / (1 << 32) }

// Load returns what was found a second ago.
func (o *Overload) Load() Load { return *o.load.Load() }

// Totals returns how many requests were let in and how many were shed since the start.
func (o *Overload) Totals() (entered, shed uint64) {
	for i := range o.counts {
		entered += o.counts[i].entered.Load()
		shed += o.counts[i].shed.Load()
	}
	return entered, shed
}

// left returns how many have left, and how long they have waited in all.
func (o *Overload) left() (n uint64, waited time.Duration) {
	for i := range o.counts {
		n += o.counts[i].left.Load()
		waited += time.Duration(o.counts[i].waited.Load())
	}
	return n, waited
}
