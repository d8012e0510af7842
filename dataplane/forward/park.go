package forward

import (
	"context"
	"time"
)

// Bounds of what a service's clusters have no room for.
const (
	maxLot      = 256                   // envelopes of a service, at which it is better to wait for room than to take more
	maxLotSize  = 16 << 20              // octets of their bodies, likewise
	maxParked   = 100_000               // envelopes over all services; what comes then goes back to the end of the spool
	maxParkSize = 64 << 20              // octets of their bodies, likewise
	stalled     = 2 * time.Millisecond  // without an answer, after which a service does not hold up the others
	passOver    = 10 * time.Millisecond // between looks at the spool while nothing more fits
)

// lot is where envelopes of a service wait for room. While other services may have something behind them in the spool, and this one does
// not move, more is taken than its clusters can use at once: one service whose clusters are slow or away does not hold up the others.
type lot struct {
	jobs
	settled time.Time // when an envelope of the service last left
}

func (l *lot) full() bool { return l.n >= maxLot || l.bytes >= maxLotSize }

// park has a job wait until there is room. The caller holds mu.
func (f *Forwarder) park(j *job) {
	f.refund(j)
	size := len(j.item.Body)
	if f.parkedJobs >= maxParked || f.parkedJobs > 0 && f.parkedSize+size > maxParkSize {
		f.giveBack(j)
		return
	}
	l := f.parked[j.item.Service]
	if l == nil {
		l = &lot{}
		f.parked[j.item.Service] = l
	}
	l.push(j)
	f.parkedJobs++
	f.parkedSize += size
}

// giveBack puts a job that there is no room for at the end of the spool. One that was never sent comes again as such, so that what an outage has
// piled up is no retry. The caller holds mu.
func (f *Forwarder) giveBack(j *job) {
	if !j.retry {
		j.item.Attempts-- // Return counts it
	}
	f.config.Spool.Return(j.item)
	f.passing = true
}

// unpark places what waits for room, as far as there is some, and drops what is too old. The caller holds mu.
func (f *Forwarder) unpark(now time.Time) {
	for service, l := range f.parked {
		f.unparkOf(service, l, now)
		if l.n == 0 && f.services[service] == nil {
			delete(f.parked, service)
		}
	}
}

func (f *Forwarder) unparkOf(service string, l *lot, now time.Time) {
	r := f.services[service]
	age := r.age()
	for n := l.n; n > 0; n-- {
		if now.Sub(l.first.item.Queued()) <= age && !r.hasRoom(now) {
			return
		}
		j := l.pop()
		f.parkedJobs--
		f.parkedSize -= len(j.item.Body)
		f.place(j, now)
	}
}

// age is that at which an envelope becomes a dead letter.
func (r *route) age() time.Duration {
	if r == nil {
		return defaultDeadAfter
	}
	return r.deadAfter
}

// hasRoom reports whether some endpoint would take an envelope.
func (r *route) hasRoom(now time.Time) bool {
	if r == nil {
		return false
	}
	for _, c := range r.order {
		for _, e := range c.endpoints {
			if e.allows(now) && e.room(now, 0) {
				return true
			}
		}
	}
	return false
}

// hold waits while there is no use in taking more from the spool.
func (f *Forwarder) hold(ctx context.Context) {
	var pause *time.Timer
	for {
		f.mu.Lock()
		wait := f.holds(time.Now())
		f.mu.Unlock()
		if wait == 0 {
			return
		}
		if pause == nil {
			pause = time.NewTimer(wait)
			defer pause.Stop()
		} else {
			pause.Reset(wait)
		}
		select {
		case <-f.room:
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// holds is how long to wait before taking more; 0 for not at all. The caller holds mu.
func (f *Forwarder) holds(now time.Time) time.Duration {
	known, moving := 0, false
	for service, l := range f.parked {
		if l.full() {
			if f.services[service] != nil {
				known++
			}
			moving = moving || now.Sub(l.settled) < stalled
		}
	}
	switch {
	case known > 0 && known >= len(f.services): // nobody else is held up
		return tick
	case moving: // it will have room at once
		return stalled
	case f.passing:
		f.passing = false
		return passOver
	}
	return 0
}
