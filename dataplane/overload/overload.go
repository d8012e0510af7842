// Package overload keeps a PoP at its peak when more comes than it can do. It lets in what can be done within a bounded time, which is
// the rate at which work was done of late times that time (Little's law), and refuses the rest at once; and it paces the refusals, so
// that they cannot eat the processor that the accepted ones need.
//
// What is refused, and how that is said to a client, is the intake's part.
//
//	ticket, refusal, ok := o.Ask(false, …)
//	if !ok {
//		// answer 503 with refusal.RetryAfter at once, and do not hear that connection until o.Await(refusal.Turn, …) returns
//	}
//	defer o.Drop(&ticket)
//	...                         // the body comes
//	o.Received(&ticket)
//	...                         // it is stored
//	o.Leave(&ticket, waited)
package overload

import (
	"cmp"
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// Limits of what is let in and refused.
const (
	atLeast             = 256             // requests are let in at a time for each processor, however few were done of late
	refusalsPerAccepted = 0.5             // cheap refusals a second, for each request that is done in it
	refusalsPerCore     = 500             // and for each processor, whatever is done
	dear                = 8               // cheap ones that another one costs
	maxPause            = 5 * time.Second // of a connection, unless there is room before
	epochs              = 64              // that are told apart
	refusedOfAll        = 3.0             // connections that were not refused of late, in a second, for each that is open,
	refusedAtLeast      = 100.0           // or so many
	maxHold             = 400 * time.Millisecond
	bodyTime            = 5 // epochs for which a request counts whose body has not come yet
)

// Options of an Overload. Zero values stand for the defaults.
type Options struct {
	Delay    time.Duration // within which all that is let in should be done; default 100 ms
	Busy     time.Duration // how long goroutines wait for a processor that is busy; default 50 ms
	Interval time.Duration // between looks, and the length of an epoch; default 50 ms

	Connections func() int64 // that are open; default none
}

// Overload decides which requests are worked on. Its methods may be called concurrently.
type Overload struct {
	options Options
	began   time.Time

	limit    atomic.Int64         // of requests at a time
	stored   atomic.Int64         // requests whose body is here
	coming   [epochs]atomic.Int64 // those whose body is not, by the epoch in which they were let in
	epoch    atomic.Uint32
	entered  atomic.Uint64
	shed     atomic.Uint64
	left     atomic.Uint64
	waited   atomic.Int64  // nanoseconds, of those that have left
	share    atomic.Uint64 // of requests that were shed of late: bits of a float64
	busy     atomic.Bool
	refusals atomic.Int64 // cheap ones that may be made in a second
	turns    turns
	load     atomic.Pointer[Load]
	peakDone float64 // requests a second: the most of late; for Run alone
}

// Ticket is a request that was let in. The zero Ticket is none.
type Ticket struct {
	epoch uint32
	state uint8
}

const (
	none uint8 = iota
	coming
	stored
)

// In reports whether the request counts.
func (t Ticket) In() bool { return t.state != none }

// New returns an Overload that lets in little at a time until Run has seen how much is done.
func New(o Options) *Overload {
	o.Delay = cmp.Or(o.Delay, 100*time.Millisecond)
	o.Busy = cmp.Or(o.Busy, 50*time.Millisecond)
	o.Interval = cmp.Or(o.Interval, 50*time.Millisecond)
	if o.Connections == nil {
		o.Connections = func() int64 { return 0 }
	}
	n := &Overload{options: o, began: time.Now()}
	n.pace(0)
	n.load.Store(&Load{})
	return n
}

// Enter lets a request in, or not. It costs some nanoseconds, takes no lock and allocates nothing. Each Ticket has one Leave or Drop.
func (o *Overload) Enter() (Ticket, bool) {
	t, ok := o.enter()
	if !ok {
		o.shed.Add(1)
	}
	return t, ok
}

func (o *Overload) enter() (Ticket, bool) {
	if o.inside() >= o.limit.Load() {
		return Ticket{}, false
	}
	return o.place(), true
}

// place counts one more that is let in.
func (o *Overload) place() Ticket {
	t := Ticket{o.epoch.Load(), coming}
	o.coming[t.epoch%epochs].Add(1)
	o.entered.Add(1)
	return t
}

// Told is what the client of a connection was told of late: of requests that come before the time is over, some were on their way. Its zero
// value is nothing. It is safe for concurrent use.
type Told struct {
	turn  atomic.Int64
	until atomic.Int64 // when it may ask again, in nanoseconds since the Overload began
}

// Ask lets a request in, or tells how to refuse it; some transports refuse at a low cost. Told is its connection's. Where there is no room, a
// request waits for some, maxHold at most, or until one of two channels is closed, while connections are refused few by few as long as
// those that wait become more. If all were refused at once, those who keep to Retry-After would be silent together, and come back together.
func (o *Overload) Ask(cheap bool, told *Told, ended, stop <-chan struct{}) (Ticket, Refusal, bool) {
	if t, ok := o.enter(); ok {
		return t, Refusal{}, true
	}
	now := time.Since(o.began)
	silent := time.Duration(told.until.Load()) - now
	if silent <= 0 {
		if t, ok := o.hold(ended, stop); ok {
			return t, Refusal{}, true
		}
	}
	o.shed.Add(1)
	if turn := Turn(told.turn.Load()); silent > 0 && int64(turn) > o.turns.reached.Load() { // it is not heard now: this was on its way
		return Ticket{}, Refusal{RetryAfter: wholeSeconds(silent), Turn: turn}, false
	}
	cost := int64(dear)
	if cheap {
		cost = 1
	}
	perSecond := o.refusals.Load()
	turn, away := o.turns.take(cost, perSecond*int64(maxPause/time.Second))
	r := Refusal{RetryAfter: retryAfter(o.ShedShare(), rand.Float64()), Turn: turn}
	if pause := time.Duration(float64(away) / float64(perSecond) * float64(time.Second)); pause > r.RetryAfter {
		r.RetryAfter = wholeSeconds(pause)
	}
	told.turn.Store(int64(turn))
	told.until.Store(int64(time.Since(o.began) + r.RetryAfter))
	return Ticket{}, r, false
}

func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// inside returns how many requests count: those whose bodies do not come soon are not worked on, and nobody shall be able to take the
// places of others by sending slowly.
func (o *Overload) inside() int64 {
	n, epoch := o.stored.Load(), o.epoch.Load()
	for back := range uint32(bodyTime) {
		n += max(0, o.coming[(epoch-back)%epochs].Load())
	}
	return n
}

// Full reports whether half of what may be let in is inside: it may come to refusals.
func (o *Overload) Full() bool { return o.inside() >= o.limit.Load()/2 }

// Working reports whether any request counts.
func (o *Overload) Working() bool { return o.inside() > 0 }

// Received tells that a request's body is here.
func (o *Overload) Received(t *Ticket) {
	if t.state == coming {
		o.gone(t)
		o.stored.Add(1)
		t.state = stored
	}
}

// gone takes a request from those whose body is coming. After a whole turn of the epochs its count was cleared.
func (o *Overload) gone(t *Ticket) {
	if o.epoch.Load()-t.epoch < epochs-1 {
		o.coming[t.epoch%epochs].Add(-1)
	}
}

// Leave tells that a request is done, after it has waited so long for the disk.
func (o *Overload) Leave(t *Ticket, waited time.Duration) {
	if t.state == none {
		return
	}
	o.left.Add(1)
	o.waited.Add(int64(waited))
	o.Drop(t)
	o.grant()
	if o.turns.waiting.Load() > 0 && o.inside() < o.limit.Load()*3/4 {
		o.turns.hear(1)
	}
}

// Drop tells that a request has ended, if it has not left.
func (o *Overload) Drop(t *Ticket) {
	switch t.state {
	case coming:
		o.gone(t)
	case stored:
		o.stored.Add(-1)
	}
	t.state = none
}

// Refusal is how a request is refused.
type Refusal struct {
	RetryAfter time.Duration // whole seconds, 1 to 5
	Turn       Turn          // when its connection is heard again; not after RetryAfter
}

// pace has refusals come as seldom as what is done in a second allows.
func (o *Overload) pace(done float64) {
	procs := float64(runtime.GOMAXPROCS(0))
	o.refusals.Store(int64(max(refusalsPerAccepted*done, refusalsPerCore*procs)))
	o.peakDone = max(done, o.peakDone*(1-0.05*o.options.Interval.Seconds()))
	o.limit.Store(int64(max(atLeast*procs, o.peakDone*o.options.Delay.Seconds())))
}

// proceed lets connections be heard again, at a look.
func (o *Overload) proceed(since time.Duration) {
	o.turns.pass(int64(float64(o.refusals.Load()) * since.Seconds()))
	o.grant()
	o.turns.refuse(max(refusedAtLeast, refusedOfAll*float64(o.options.Connections())) * since.Seconds())
	if room := o.limit.Load()/2 - o.inside(); room > 0 {
		o.turns.hear(room/8 + 1)
	}
}

// retryAfter spreads those who were refused over the more time the more they are. Random is in [0, 1).
func retryAfter(share, random float64) time.Duration {
	return time.Duration(1+int(random*(1+4*share))) * time.Second
}

// ShedShare returns the share of requests that was shed of late, in 0..1; 0 when there were none for a second.
func (o *Overload) ShedShare() float64 { return math.Float64frombits(o.share.Load()) }

// Busy reports whether goroutines wait long for a processor, be it for requests or for anything else, such as handshakes.
func (o *Overload) Busy() bool { return o.busy.Load() }

// Load returns what was found a second ago.
func (o *Overload) Load() Load { return *o.load.Load() }

// Totals returns how many requests were let in and how many were shed since the start.
func (o *Overload) Totals() (entered, shed uint64) { return o.entered.Load(), o.shed.Load() }
