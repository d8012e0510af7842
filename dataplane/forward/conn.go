package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// Figures of connections.
const (
	maxDeep      = 4                      // HTTP/1.1 connections to an endpoint that answers quickly
	maxWide      = 64                     // and to one that takes its time
	maxHTTP2     = 2                      // HTTP/2 connections to an endpoint
	maxDepth     = 32                     // requests of a pipeline
	dialTimeout  = 3 * time.Second        // for TCP
	setupTimeout = 5 * time.Second        // for TCP and TLS
	idleTimeout  = 30 * time.Second       // of connections beside the first
	warmPause    = 10 * time.Second       // before a connection is opened again that nobody needed
	shallowTime  = 10 * time.Minute       // without pipelines after an endpoint ended connections in the middle of them
	slowAnswer   = 100 * time.Millisecond // behind one that takes longer, and four times the RTT, nothing more is sent
	maxBatch     = 256 << 10              // octets that are written at once, beside one that is longer
)

// What ends a connection.
var (
	errLast        = errors.New("the cluster closes the connection")
	errTimeout     = fmt.Errorf("no answer in %s", attemptTimeout)
	errIdle        = errors.New("the connection was idle")
	errUnsolicited = fmt.Errorf("%w: an answer that nothing was asked for", errMalformed)
)

// conn is a connection to an endpoint, over HTTP/1.1 or 2. All is guarded by the Forwarder's mutex, but for what never changes.
type conn struct {
	*endpoint
	net    net.Conn
	raw    net.Conn // below TLS; closing it waits for nothing
	wakeup chan struct{}
	gone   chan struct{} // closed when reading has ended
	ended  chan struct{} // closed when writing has ended
	http1  *http1
	http2  *http2Conn

	outstanding jobs // HTTP/1.1: sent, in order
	closing     bool // nothing more is sent
	answers     int
	last        time.Time // answer, or when it was opened
	why         error     // it was closed by us
}

// open opens a connection. The caller holds the mutex.
func (e *endpoint) open() {
	f := e.forwarder
	if f.running == nil || f.stopping || e.removed {
		return
	}
	e.dialling++
	e.warmAt = time.Now().Add(warmPause)
	ctx := f.running
	f.conns.Go(func() { e.connect(ctx) })
}

// connect opens a connection and serves it until it ends.
func (e *endpoint) connect(ctx context.Context) {
	f := e.forwarder
	if e.head.Load() == nil {
		e.renewToken()
	}
	c, err := e.dial(ctx)
	now := time.Now()
	f.mu.Lock()
	e.dialling--
	if err != nil {
		if ctx.Err() == nil {
			f.failure(e, "cannot be connected to: "+cause(err), now)
			if len(e.conns) == 0 {
				f.evict(e, e.bit, now)
			}
		}
		f.mu.Unlock()
		return
	}
	c.last = now
	if e.conns = append(e.conns, c); e.removed {
		c.closing, c.why = true, errIdle
		c.raw.Close()
	}
	e.wake(now)
	f.mu.Unlock()
	defer context.AfterFunc(ctx, func() { c.raw.Close() })()

	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(c.ended)
		if err := c.write(); err != nil {
			c.hangUp(err)
		}
	})
	if c.http2 != nil {
		err = c.http2.read()
	} else {
		err = c.http1.read()
	}
	close(c.gone)
	c.raw.Close()
	writer.Wait()
	c.end(ctx, err)
}

func (c *conn) write() error {
	if c.http2 != nil {
		return c.http2.write()
	}
	return c.http1.write()
}

func (e *endpoint) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	tcp, cancelTCP := context.WithTimeout(ctx, dialTimeout)
	raw, err := e.forwarder.config.Dial(tcp, "tcp", e.address)
	cancelTCP()
	if err != nil {
		return nil, err
	}
	c := &conn{endpoint: e, net: raw, raw: raw, wakeup: make(chan struct{}, 1), gone: make(chan struct{}), ended: make(chan struct{})}
	if e.secure {
		secure := tls.Client(raw, &tls.Config{
			RootCAs: e.forwarder.config.Roots, ServerName: e.host, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
			ClientSessionCache: e.forwarder.sessions,
		})
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		c.net = secure
		if secure.ConnectionState().NegotiatedProtocol == "h2" {
			c.http2 = newHTTP2(c)
			return c, nil
		}
	}
	if e.url == e.forwarder.config.speakHTTP2 {
		c.http2 = newHTTP2(c)
		return c, nil
	}
	c.http1 = newHTTP1(c)
	return c, nil
}

// cause is an error without the addresses that net puts before it.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err.Error()
}

func (c *conn) signal() {
	select {
	case c.wakeup <- struct{}{}:
	default:
	}
}

// hangUp ends a connection.
func (c *conn) hangUp(why error) {
	c.forwarder.mu.Lock()
	defer c.forwarder.mu.Unlock()
	c.hangUpNow(why)
}

func (c *conn) hangUpNow(why error) {
	if c.why == nil {
		c.why = why
	}
	c.closing = true
	c.raw.Close()
}

// oldest is when the oldest request on the way was sent; zero for none.
func (c *conn) oldest() time.Time {
	if c.http2 != nil {
		return c.http2.oldest()
	}
	if c.outstanding.n > 0 {
		return c.outstanding.first.sent
	}
	return time.Time{}
}

// capacity is how many more requests may be sent. The caller holds the mutex.
func (c *conn) capacity(now time.Time) int {
	if c.closing || c.forwarder.stopping {
		return 0
	}
	if c.http2 != nil {
		return c.http2.capacity()
	}
	if n := c.outstanding.n; n > 0 && now.Sub(c.outstanding.first.sent) > max(slowAnswer, 4*c.endpoint.rtt) {
		return 0
	}
	return c.pipeline(now) - c.outstanding.n
}

// take takes what is to be sent now out of the endpoint's queue. The caller holds the mutex.
func (c *conn) take(now time.Time, dst []*job, each func(*job)) []*job {
	e, f := c.endpoint, c.forwarder
	size := 0
	for n := min(c.capacity(now), e.bound(now)-e.inFlight, e.queue.n); n > 0 && size < maxBatch; n-- {
		j := e.queue.pop()
		size += len(j.item.Body)
		j.sent = now
		f.trace(j, now)
		each(j)
		e.inFlight++
		f.inFlight++
		dst = append(dst, j)
	}
	return dst
}

// failure is told of each event that shows that an endpoint is not well. The caller holds the mutex.
func (f *Forwarder) failure(e *endpoint, why string, now time.Time) {
	if e.failed(now, why); e.breaker == open {
		f.evict(e, e.bit, now)
	}
}

// settled is what is left to do outside of the mutex.
type settled struct {
	cluster string
	items   []*spool.Item
}

// answered settles one answer. The caller holds the mutex.
func (f *Forwarder) answered(e *endpoint, j *job, r response, now time.Time, done *settled) {
	e.inFlight--
	f.inFlight--
	j.traced(e, r.status, "")
	switch {
	case r.status/100 == 2 || r.status == http.StatusConflict:
		e.succeeded(now)
		e.answered(now, now.Sub(j.sent))
		f.refund(j)
		f.counts.acknowledged.Add(1)
		done.items = append(done.items, j.item)
	case !retryable(r.status):
		e.succeeded(now)
		e.answered(now, now.Sub(j.sent))
		f.mail(letter{j, "cluster " + e.cluster.name + " answered " + statusText(r.status), &f.counts.refused})
	default:
		why := "answered " + statusText(r.status)
		e.lastFailure = why
		e.slower(now, 0.7)
		if r.status == http.StatusTooManyRequests && r.retryAfter == 0 {
			r.retryAfter = shortestPause
		}
		if r.retryAfter > 0 && (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable) {
			e.notUntil = now.Add(r.retryAfter)
		}
		if r.status == http.StatusTooManyRequests {
			e.spared()
			f.evict(e, 0, now)
		} else {
			f.failure(e, why, now)
		}
		j.tried |= e.bit
		f.again(j, e, why, now)
	}
	if l := f.parked[j.item.Service]; l != nil && l.n > 0 {
		l.settled = now
		f.unparkOf(j.item.Service, l, now)
	}
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return fmt.Sprint(status, " ", text)
	}
	return fmt.Sprint(status)
}

// acknowledge tells the spool what clusters have.
func (f *Forwarder) acknowledge(done *settled) {
	for i, item := range done.items {
		if f.config.Acknowledged != nil {
			f.config.Acknowledged(item.Envelope, done.cluster)
		}
		f.config.Spool.Delivered(item, done.cluster)
		done.items[i] = nil
	}
	done.items = done.items[:0]
	f.left()
}

// end settles what is on the way when a connection has ended.
func (c *conn) end(ctx context.Context, err error) {
	e, f := c.endpoint, c.forwarder
	done := settled{cluster: e.cluster.name}
	now := time.Now()
	f.mu.Lock()
	if c.why != nil {
		err = c.why
	}
	c.closing = true
	e.conns = slices.DeleteFunc(e.conns, func(other *conn) bool { return other == c })
	var left []*job
	if c.http2 != nil {
		left = c.http2.left(now, &done)
	} else {
		for c.outstanding.n > 0 {
			left = append(left, c.outstanding.pop())
		}
	}
	for _, j := range left {
		j.traced(e, 0, "the connection ended")
	}
	if ctx.Err() == nil {
		c.lose(left, err, now)
	}
	e.inFlight -= len(left)
	f.inFlight -= len(left)
	if len(e.conns) == 0 {
		e.warmAt = now.Add(warmPause)
	}
	f.unpark(now)
	e.wake(now)
	f.mu.Unlock()
	f.acknowledge(&done)
}

// lose places what was on the way in a connection that has ended. Whether a cluster has it is not known, unless it said that it does
// not look at it; either way it can be sent again, for clusters know envelopes by their ids.
func (c *conn) lose(left []*job, err error, now time.Time) {
	e, f := c.endpoint, c.forwarder
	why := "closed the connection: " + cause(err)
	unseen := err == errLast
	if len(left) > 1 && c.answers > 0 && !unseen && c.http1 != nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		if e.faults++; e.faults >= 2 {
			e.faults, e.depth, e.shallow = 0, 1, now.Add(shallowTime)
		}
	}
	bad := !unseen && err != errIdle && (c.answers == 0 && len(left) > 0 || err == errTimeout || errors.Is(err, errMalformed) || errors.Is(err, errTooLong))
	if bad {
		if err == errTimeout || errors.Is(err, errMalformed) || errors.Is(err, errTooLong) {
			why = err.Error()
		}
		e.slower(now, 0.7)
		f.failure(e, why, now)
	} else {
		e.spared()
	}
	for i, j := range left {
		switch {
		case unseen:
			f.place(j, now)
			continue
		case bad && (i == 0 || e.breaker != closed):
			j.tried |= e.bit
		}
		f.again(j, e, why, now)
	}
}

// watch ends connections whose answers take too long, and those that are not needed. The caller holds the mutex.
func (f *Forwarder) watch(now time.Time) {
	for _, cluster := range f.clusters {
		for _, e := range cluster.endpoints {
			for i, c := range e.conns {
				switch oldest := c.oldest(); {
				case oldest.IsZero() && (c.closing || i > 0 && now.Sub(c.last) > idleTimeout):
					c.hangUpNow(errIdle)
				case !oldest.IsZero() && now.Sub(oldest) > attemptTimeout, c.http2 != nil && c.http2.starved() && now.Sub(c.last) > attemptTimeout:
					c.hangUpNow(errTimeout)
				}
			}
			if e.queue.n > 0 {
				e.wake(now)
			}
		}
	}
}
