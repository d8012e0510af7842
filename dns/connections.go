package dns

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the connections of all transports but UDP, together. One costs 10 to 80 KB: with all of them open, that is less
// than 100 MB.
const (
	mostConnections = 1024
	mostOfPrefix    = 64                  // so that sixteen networks, and not one, can take all there are
	mostOfLoopback  = mostConnections / 2 // a proxy or a monitor on this machine may speak for many clients, but not for all
)

// Lengths of the prefixes that count as one client: what a site gets (RFC 6177), and what is routed.
const (
	clientBits4 = 24
	clientBits6 = 56
)

// connections are the open connections. The zero value has none and is ready. It is safe for concurrent use; a question
// touches atomics only.
type connections struct {
	counts     [transports]connectionCounts
	handshakes atomic.Int64 // of QUIC, under way

	mu       sync.Mutex
	open     map[*connection]struct{}
	prefixes map[netip.Prefix]int
	started  time.Time // when the first came; idle times are counted from it, on the monotonic clock
}

type connectionCounts struct {
	open                    atomic.Int64
	total, refused, evicted atomic.Uint64
}

// ConnectionCount counts the connections of one transport.
type ConnectionCount struct {
	Open    int64  // now
	Total   uint64 // let in since the start
	Refused uint64 // closed at once, because their network had its share or all others were busy
	Evicted uint64 // closed while idle, to let in another
}

// ConnectionStats counts connections by Transport. UDP has none, and HTTPS has those of HTTP/3 too.
type ConnectionStats [transports]ConnectionCount

func (t *connections) stats() (all ConnectionStats) {
	for over := range all {
		c := &t.counts[over]
		all[over] = ConnectionCount{c.open.Load(), c.total.Load(), c.refused.Load(), c.evicted.Load()}
	}
	return all
}

// connection is a place among the connections. The one who got it calls release in the end.
type connection struct {
	all    *connections
	over   Transport
	prefix netip.Prefix
	active atomic.Int64 // questions in flight
	last   atomic.Int64 // when the last of them was answered, since all.started

	proved   func() // called when the handshake of QUIC has shown that the address is the client's
	evict    func() // closes the connection without waiting; nil as long as that cannot be done. Guarded by all.mu
	released bool   // guarded by all.mu
}

// admit gives a connection from an address its place, or nil when it must be closed. When all places are taken, the
// connection that has been idle for longest loses its own (RFC 7766 section 6.2.3 lets a server close idle connections at any
// time): so a newcomer is refused only when all others have questions in flight.
func (t *connections) admit(from netip.Addr, over Transport, evict func()) *connection {
	prefix, most := clientOf(from)
	t.mu.Lock()
	if t.open == nil {
		t.open, t.prefixes, t.started = map[*connection]struct{}{}, map[netip.Prefix]int{}, time.Now()
	}
	var victim *connection
	full := len(t.open) >= mostConnections
	if full {
		victim = t.longestIdle()
	}
	if t.prefixes[prefix] >= most || full && victim == nil {
		t.mu.Unlock()
		t.counts[over].refused.Add(1)
		return nil
	}
	if victim != nil {
		t.remove(victim)
		t.counts[victim.over].evicted.Add(1)
	}
	c := &connection{all: t, over: over, prefix: prefix, evict: evict}
	c.touch()
	t.open[c] = struct{}{}
	t.prefixes[prefix]++
	t.counts[over].open.Add(1)
	t.counts[over].total.Add(1)
	t.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return c
}

// longestIdle looks at all connections, which takes some microseconds, and only when all places are taken. The alternative is
// a list in order of activity, with a lock for each question.
func (t *connections) longestIdle() (found *connection) {
	for c := range t.open {
		if c.evict != nil && c.active.Load() == 0 && (found == nil || c.last.Load() < found.last.Load()) {
			found = c
		}
	}
	return found
}

func (t *connections) remove(c *connection) {
	c.released = true
	delete(t.open, c)
	t.counts[c.over].open.Add(-1)
	if t.prefixes[c.prefix]--; t.prefixes[c.prefix] == 0 {
		delete(t.prefixes, c.prefix)
	}
}

// release gives the place back. It may be called more than once, and after the connection lost it.
func (c *connection) release() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if !c.released {
		c.all.remove(c)
	}
}

// evictBy tells how to close a connection that was admitted without a way to.
func (c *connection) evictBy(evict func()) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.evict = evict
}

func (c *connection) touch() { c.last.Store(int64(time.Since(c.all.started))) }

// begin and end enclose each question.
func (c *connection) begin() { c.active.Add(1) }
func (c *connection) end()   { c.touch(); c.active.Add(-1) }

// idleFor returns how long nothing has happened; zero while a question is in flight.
func (c *connection) idleFor() time.Duration {
	if c.active.Load() > 0 {
		return 0
	}
	return time.Since(c.all.started) - time.Duration(c.last.Load())
}

// clientOf returns the prefix that an address counts for, and how many connections it may have.
func clientOf(a netip.Addr) (netip.Prefix, int) {
	a, bits, most := a.Unmap().WithZone(""), clientBits6, mostOfPrefix
	if a.Is4() {
		bits = clientBits4
	}
	if a.IsLoopback() {
		most = mostOfLoopback
	}
	prefix, _ := a.Prefix(bits) // the zero prefix for the zero address
	return prefix, most
}

// peer returns the address of the other side.
func peer(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
