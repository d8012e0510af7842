package dataplane

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane/overload"
)

// connection is what a Front knows of an open connection. Its methods may be called concurrently.
type connection struct {
	began    time.Time     // of the Front
	progress atomic.Int64  // when a request last began, ended or got on, in nanoseconds since began
	active   atomic.Int32  // requests that have begun and not ended
	streams  atomic.Int64  // over HTTP/3, requests that were accepted and have not ended: they begin a moment later
	second   atomic.Int64  // in which requests were given up
	given    atomic.Int32  // how many
	idle     atomic.Int32  // frames in that second that ask for nothing; of HTTP/2
	metered  atomic.Bool   // those that are given up are counted as they come, by tooMany
	turn     atomic.Int64  // the overload.Turn until which nothing is read; over TCP alone
	deaf     atomic.Int64  // until when nothing is read, in nanoseconds since began
	faults   atomic.Int32  // times that too many wrong requests came
	told     overload.Told // when it was refused for overload
	linger   func() time.Duration
	close    func(why string) // may be called at any time, and again
	charge   func()           // has the client's prefix pay for a connection that was cut off; nil for nothing
	served   func()           // it is being served; may be called again
}

type connectionKey struct{}

// connectionOf returns that of a request, or nil.
func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// toldOf returns what a client was told, of none nothing.
func (c *connection) toldOf() *overload.Told {
	if c == nil {
		return new(overload.Told)
	}
	return &c.told
}

func (c *connection) now() time.Duration { return time.Since(c.began) }

// moved notes that a request gets on.
func (c *connection) moved() {
	if c != nil {
		c.progress.Store(int64(c.now()))
	}
}

// pause has nothing be read until a turn, and for a while, over TCP.
func (c *connection) pause(until overload.Turn, long time.Duration) {
	if c == nil {
		return
	}
	if until > 0 {
		c.turn.Store(int64(until))
	}
	if long > 0 {
		c.deaf.Store(int64(c.now() + long))
	}
}

// fault returns how long the connection is not heard because its client has sent too many wrong requests. One that goes on is cut off.
func (c *connection) fault() time.Duration {
	if c == nil {
		return 0
	}
	now := c.now()
	if deaf := time.Duration(c.deaf.Load()); now < deaf { // what was sent before it was
		return deaf - now
	}
	if now > time.Duration(c.deaf.Load())+10*faultPause {
		c.faults.Store(0)
	}
	c.deaf.Store(int64(now + faultPause))
	if c.faults.Add(1) > maxFaultPauses {
		if c.charge != nil {
			c.charge()
		}
		c.close("too many wrong requests")
	}
	return faultPause
}

// begin notes that a request has arrived.
func (c *connection) begin() {
	if c != nil {
		c.active.Add(1)
		c.moved()
	}
}

// done notes that a request has ended. A client that gives up many of them is cut off: it makes work that nobody wants
// (CVE-2023-44487).
func (c *connection) done(cancelled bool) {
	if c == nil {
		return
	}
	c.moved()
	c.active.Add(-1)
	if !cancelled || c.metered.Load() {
		return
	}
	given := c.gaveUp(1)
	if given == maxCancelled+1 && c.charge != nil {
		c.charge()
	}
	if given > maxCancelled {
		c.close("too many requests were cancelled")
	}
}

// gaveUp counts requests that the client has given up, and returns how many that were in this second.
func (c *connection) gaveUp(n int) int32 {
	if second := int64(c.now() / time.Second); c.second.Swap(second) != second {
		c.given.Store(0)
		c.idle.Store(0)
	}
	return c.given.Add(int32(n))
}

// tooMany counts requests that are given up and frames that ask for nothing, and reports whether a client has sent more in a second than it may.
func (c *connection) tooMany(resets, idle int) bool {
	return c.gaveUp(resets) > maxCancelled || c.idle.Add(int32(idle)) > maxIdleFrames
}

// stale says why a connection has no right to go on, empty if it has.
func (c *connection) stale() string {
	quiet := c.now() - time.Duration(c.progress.Load())
	switch active := c.active.Load(); {
	case active == 0 && quiet > idleTimeout: // headers that do not come whole are no request
		return "no request for a long time"
	case active > 0 && quiet > stuckTimeout:
		return "requests do not get on"
	}
	return ""
}

// connections are those that are open.
type connections struct {
	parts [16]struct {
		mu   sync.Mutex
		open map[*connection]struct{}
	}
	next atomic.Uint32
}

// add returns how to remove the connection again.
func (s *connections) add(c *connection) (remove func()) {
	part := &s.parts[s.next.Add(1)%uint32(len(s.parts))]
	part.mu.Lock()
	defer part.mu.Unlock()
	if part.open == nil {
		part.open = map[*connection]struct{}{}
	}
	part.open[c] = struct{}{}
	return func() {
		part.mu.Lock()
		defer part.mu.Unlock()
		delete(part.open, c)
	}
}

// all returns those that are open now.
func (s *connections) all() []*connection {
	var all []*connection
	for i := range s.parts {
		part := &s.parts[i]
		part.mu.Lock()
		for c := range part.open {
			all = append(all, c)
		}
		part.mu.Unlock()
	}
	return all
}

// active returns how many requests are being worked on.
func (s *connections) active() int {
	n := 0
	for _, c := range s.all() {
		n += int(c.active.Load()) + int(c.streams.Load())
	}
	return n
}
