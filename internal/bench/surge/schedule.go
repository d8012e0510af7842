package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

// maxWaiting is how many requests wait for one connection; more are unsent at once.
const maxWaiting = 4096

// schedule hands requests to connections when they are due, and counts what becomes of them.
type schedule struct {
	patience time.Duration
	carriers []carrier
	queues   []chan time.Time // one for each connection: when its requests were due
	again    atomic.Bool      // an answer is followed by the next request on its connection
	open     atomic.Int64     // requests that are due and have no outcome
	obey     bool
	quiet    []atomic.Int64 // for each connection, until when it keeps to Retry-After: nanoseconds since began
	began    time.Time

	mu       sync.Mutex
	counting bool
	counts   outcomes
	first    string // error
}

// outcomes are what became of requests.
type outcomes struct {
	offered, accepted, refused, retryAfter, other, broken, unsent, obeyed int
	late                                                                  time.Duration      // how far the schedule itself was behind, at worst
	took, refusal                                                         loadtool.Histogram // from when they were due
	answered                                                              loadtool.Histogram // refusals, from when they were sent
}

// answer is what a connection tells of a request.
type answer struct {
	conn       int
	status     int
	retryAfter time.Duration // 0 for none
	due, sent  time.Time
	err        error
}

var errObeyed = errors.New("the server has said that it should be asked later")

func newSchedule(patience time.Duration, obey bool, conns int) *schedule {
	return &schedule{patience: patience, obey: obey, quiet: make([]atomic.Int64, conns), began: time.Now()}
}

func (s *schedule) tell(a answer) {
	now := time.Now()
	s.open.Add(-1)
	if s.again.Load() {
		s.push(a.conn, now)
	} else if s.obey && a.retryAfter > 0 {
		s.quiet[a.conn].Store(int64(now.Add(a.retryAfter).Sub(s.began)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.err != nil && s.first == "" && !errors.Is(a.err, errUnsent) && !errors.Is(a.err, errObeyed) {
		s.first = a.err.Error()
	}
	o := &s.counts
	switch {
	case !s.counting:
	case errors.Is(a.err, errUnsent):
		o.unsent++
	case errors.Is(a.err, errObeyed):
		o.obeyed++
	case a.err != nil:
		o.broken++
	case a.status/100 == 2:
		o.accepted++
		o.took.Add(now.Sub(a.due))
	case a.status == 503:
		o.refused++
		o.refusal.Add(now.Sub(a.due))
		o.answered.Add(now.Sub(a.sent))
		if a.retryAfter > 0 {
			o.retryAfter++
		}
	default:
		o.other++
	}
}

// push has a request be due on a connection.
func (s *schedule) push(conn int, due time.Time) {
	s.open.Add(1)
	select {
	case s.queues[conn] <- due:
	default:
		s.again.Store(false)
		s.tell(answer{conn: conn, err: errUnsent})
	}
}

// add has a connection carry requests until ctx ends.
func (s *schedule) add(ctx context.Context, c carrier) {
	conn, queue := len(s.queues), make(chan time.Time, maxWaiting)
	s.carriers, s.queues = append(s.carriers, c), append(s.queues, queue)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case due := <-queue:
				err := errUnsent
				if time.Since(s.began) < time.Duration(s.quiet[conn].Load()) {
					err = errObeyed
				} else if until := due.Add(s.patience); time.Now().Before(until) {
					err = c.send(ctx, due, until)
				}
				if err != nil {
					s.tell(answer{conn: conn, err: err})
				}
			}
		}
	}()
}

// part runs a kind of load, first without counting, and returns its figures. It begins when nothing is open any more.
func (s *schedule) part(ramp, long time.Duration, pid int, run func(time.Duration)) map[string]float64 {
	for deadline := time.Now().Add(5 * time.Second); s.open.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(ramp) // the server forgets
	for i := range s.quiet {
		s.quiet[i].Store(0)
	}
	run(ramp)
	count := func(on bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.counting = on; on {
			s.counts = outcomes{}
		}
	}
	count(true)
	own, server, began := cpuTime(), cpuOf(pid), time.Now()
	run(long)
	seconds := time.Since(began).Seconds()
	own, server = cpuTime()-own, cpuOf(pid)-server
	count(false)
	s.again.Store(false)
	o := &s.counts
	figures := map[string]float64{
		"offered_per_second": float64(o.offered) / seconds, "accepted_per_second": float64(o.accepted) / seconds,
		"refused_per_second": float64(o.refused) / seconds, "with_retry_after_per_second": float64(o.retryAfter) / seconds,
		"broken_per_second": float64(o.broken) / seconds, "unsent_per_second": float64(o.unsent) / seconds, "obeyed_per_second": float64(o.obeyed) / seconds, "other": float64(o.other),
		"load_cpu": own.Seconds() / seconds, "server_cpu": server.Seconds() / seconds, "late_ms": float64(o.late) / 1e6,
	}
	for _, h := range []struct {
		name string
		of   *loadtool.Histogram
	}{{"accepted", &o.took}, {"refused", &o.refusal}, {"refused_since_sent", &o.answered}} {
		figures[h.name+"_p50_ms"], figures[h.name+"_p99_ms"] = h.of.Micros(0.5)/1e3, h.of.Micros(0.99)/1e3
	}
	return figures
}

// closed keeps so many requests open on each connection.
func (s *schedule) closed(long time.Duration, outstanding int) {
	if !s.again.Swap(true) {
		for range outstanding {
			for conn := range s.queues {
				s.push(conn, time.Now())
			}
		}
	}
	time.Sleep(long)
}

// offer offers for a while, whatever becomes of it. Arrivals are a Poisson process.
func (s *schedule) offer(long time.Duration, rate float64) {
	began := time.Now()
	next, offered, late := began, 0, time.Duration(0)
	for now := began; now.Sub(began) < long; now = time.Now() {
		for !next.After(now) {
			s.push(rand.IntN(len(s.queues)), next)
			offered++
			late = max(late, now.Sub(next))
			next = next.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
		}
		time.Sleep(min(max(time.Until(next), 500*time.Microsecond), time.Until(began.Add(long))))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.offered, s.counts.late = s.counts.offered+offered, late
}
