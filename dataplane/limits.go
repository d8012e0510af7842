package dataplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the transports that no operator needs to change.
const (
	maxHeader        = 16 << 10         // octets of a request's header
	maxHeaderFields  = 128              // of a request; more are answered 431
	handshakeTimeout = 5 * time.Second  // of TLS, and to receive a header over TCP
	writeTimeout     = 10 * time.Second // for a client to take some of its answer
	idleTimeout      = 30 * time.Second // of a connection without a request, whatever else it sends
	stuckTimeout     = time.Minute      // of a connection whose requests get on neither with their bodies nor with their answers
	maxCancelled     = 100              // requests of a connection that the client gives up in a second; more close it
	faultPause       = time.Second      // for which a connection is not heard when its client has sent too many wrong requests
	maxFaultPauses   = 3                // in a row; the next time the connection is closed
	maxUniStreams    = 8                // HTTP/3 needs three
	maxTCPShare      = 2                // of the connections, one of so many may be over TCP

	streamWindow     = 64 << 10  // octets that a client may send on a stream before they are read, at the start,
	connectionWindow = 128 << 10 // and on a connection
	maxStreamWindow  = 1 << 20   // to which they grow for clients far away
	maxConnWindow    = 2 << 20
	maxGrownWindows  = 128 << 20 // by which the windows of all connections together may grow
)

// Limits are how much the clients of a PoP may take. Zero values stand for the defaults.
type Limits struct {
	Connections          int // in all; half of them may be over TCP; default 20,000
	ConnectionsPerPrefix int // of an IPv4 /24 or an IPv6 /56; default 1,000
	RetryConnections     int // over which a QUIC client must prove its address (RFC 9000 section 8.1.2); default 2,000
	HandshakesPerPrefix  int // in a second; twice as many at once; default 100; a quarter under load
	Handshakes           int // in a second in all, over which QUIC clients must prove their addresses; twice as many are refused; default 300 for each processor; a quarter under load
	FaultsPerPrefix      int // requests in a second that are refused because they are wrong; twice as many at once; default 500; a quarter under load
	Streams              int // requests at a time on one connection; default 128
}

func (l Limits) orDefaults() Limits {
	l.Connections = cmp.Or(l.Connections, 20_000)
	l.ConnectionsPerPrefix = cmp.Or(l.ConnectionsPerPrefix, 1_000)
	l.RetryConnections = cmp.Or(l.RetryConnections, 2_000)
	l.HandshakesPerPrefix = cmp.Or(l.HandshakesPerPrefix, 100)
	l.Handshakes = cmp.Or(l.Handshakes, 300*runtime.GOMAXPROCS(0))
	l.FaultsPerPrefix = cmp.Or(l.FaultsPerPrefix, 500)
	l.Streams = cmp.Or(l.Streams, 128)
	return l
}

// The reasons why a connection is refused.
var (
	errTooMany    = errors.New("too many connections")
	errTooManyOf  = errors.New("too many connections of the client's prefix")
	errTooFast    = errors.New("too many handshakes of the client's prefix")
	errTooFastAll = errors.New("too many handshakes")
	errEnding     = errors.New("the PoP is ending")
)

// clientLimits counts the connections and the handshakes of all clients. It is safe for concurrent use.
type clientLimits struct {
	Limits
	pressed    func() bool // there is too much to do
	working    func() bool // there are requests to do
	began      time.Time
	rates      *rateTable // of prefixes
	all        bucket     // of verified clients
	unverified bucket
	computed   atomic.Int64 // when the last handshake is, in nanoseconds since began

	mu     sync.Mutex
	open   int
	tcp    int
	prefix map[netip.Prefix]int // connections; none is 0
}

func newClientLimits(l Limits) *clientLimits {
	return &clientLimits{
		Limits: l.orDefaults(), pressed: no, working: no, began: time.Now(), rates: newRateTable(), prefix: map[netip.Prefix]int{},
	}
}

func no() bool { return false }

// clientPrefix is what counts as one client: an IPv4 /24 or an IPv6 /56.
func clientPrefix(a netip.Addr) netip.Prefix {
	bits := 56
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // the zero prefix of the zero address
	return p
}

// addrOf returns the address of a client, the zero one for what is no address.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

// underLoad is what is left of a rate when there is too much to do.
const underLoad = 4

func (c *clientLimits) now(perSecond int) int {
	if c.pressed() {
		return max(perSecond/underLoad, 1)
	}
	return perSecond
}

// suspicious says whether a client that has not proved its address must do so. A forged address costs its owner nothing but that:
// unverified and verified handshakes are counted apart.
func (c *clientLimits) suspicious(from netip.Addr) bool {
	now := time.Since(c.began)
	fits := c.rates.take(clientPrefix(from), unproved, now, c.now(c.HandshakesPerPrefix))
	fits = c.unverified.take(now, c.now(c.Handshakes)) && fits
	return !fits || c.connections() > c.RetryConnections
}

// At most so many handshakes are computed at once, and then one after the other at twice the rate of Handshakes: one costs as much as
// many requests, and those of other clients wait meanwhile. While requests are worked on, it is one at a time and at the rate itself.
const (
	handshakesAtOnce = 8
	handshakeWait    = 4 * time.Second // at most; less than handshakeTimeout
)

// pace waits until it is a handshake's turn to be computed.
func (c *clientLimits) pace(ctx context.Context) error {
	gap, atOnce := int64(time.Second)/int64(2*c.Handshakes), int64(handshakesAtOnce)
	if c.working() {
		gap, atOnce = 2*gap, 1
	}
	for {
		now, next := int64(time.Since(c.began)), c.computed.Load()
		at := max(next, now-atOnce*gap) + gap
		wait := time.Duration(at - now)
		if wait > handshakeWait {
			return errTooFastAll
		}
		if !c.computed.CompareAndSwap(next, at) {
			continue
		}
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// paced has handshakes be computed at a pace.
func (c *clientLimits) paced(config *tls.Config) *tls.Config {
	choose := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := c.pace(hello.Context()); err != nil {
			return nil, err
		}
		return choose(hello)
	}
	return config
}

// begin counts a connection of a client whose address is verified, or that was not suspicious. The caller calls end once.
func (c *clientLimits) begin(from netip.Addr, verified, tcp bool) (end func(), err error) {
	prefix, now := clientPrefix(from), time.Since(c.began)
	if verified {
		if !c.rates.take(prefix, proved, now, c.now(c.HandshakesPerPrefix)) {
			return nil, errTooFast
		}
		if !c.all.take(now, 2*c.now(c.Handshakes)) {
			return nil, errTooFastAll
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.open >= c.Connections, tcp && c.tcp >= c.Connections/maxTCPShare:
		return nil, errTooMany
	case c.prefix[prefix] >= c.ConnectionsPerPrefix:
		return nil, errTooManyOf
	}
	add := func(n int) {
		c.open += n
		if tcp {
			c.tcp += n
		}
		if c.prefix[prefix] += n; c.prefix[prefix] == 0 {
			delete(c.prefix, prefix)
		}
	}
	add(1)
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		add(-1)
	}), nil
}

// charge counts as many handshakes as are allowed in a second for a client whose connection was cut off: else it would come back at once,
// and each handshake costs more than all that it was cut off for.
func (c *clientLimits) charge(from netip.Addr) {
	prefix, now := clientPrefix(from), time.Since(c.began)
	for range c.HandshakesPerPrefix {
		if !c.rates.take(prefix, proved, now, c.HandshakesPerPrefix) {
			return
		}
	}
}

// fault counts a request that was refused because it is wrong, and reports whether there are too many of them.
func (c *clientLimits) fault(from netip.Addr) bool {
	return !c.rates.take(clientPrefix(from), faults, time.Since(c.began), c.now(c.FaultsPerPrefix))
}

func (c *clientLimits) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// bucket holds two seconds' worth, known by when it will be empty (the generic cell rate algorithm, ITU-T I.371).
type bucket struct{ empty atomic.Int64 }

func (b *bucket) take(now time.Duration, perSecond int) bool {
	for {
		empty := b.empty.Load()
		next := max(empty, int64(now)) + int64(time.Second)/int64(perSecond)
		if next-int64(now) > int64(2*time.Second) {
			return false
		}
		if b.empty.CompareAndSwap(empty, next) {
			return true
		}
	}
}

// rate is what is counted of a prefix.
type rate uint64

const (
	unproved rate = iota // handshakes of addresses that may be forged
	proved
	faults
)

// rateTable has a bucket for each of the prefixes that came last, in sets of four: a new one takes the bucket that is empty for the
// longest time. Its size is fixed. Prefixes whose tags are equal share a bucket: one of 65,536 in a set.
type rateTable struct {
	mu   [64]sync.Mutex // of a part of the sets each
	sets [4096][4]struct {
		tag   uint16
		empty time.Duration
	}
	seed uint64
}

func newRateTable() *rateTable { return &rateTable{seed: rand.Uint64()} }

func (t *rateTable) take(prefix netip.Prefix, of rate, now time.Duration, perSecond int) bool {
	hash := t.hash(prefix, of)
	set, tag := hash%uint64(len(t.sets)), uint16(hash>>48)
	mu := &t.mu[set%uint64(len(t.mu))]
	mu.Lock()
	defer mu.Unlock()
	buckets := &t.sets[set]
	chosen := &buckets[0]
	for i := range buckets {
		if b := &buckets[i]; b.tag == tag && b.empty > now {
			chosen = b
			break
		} else if b.empty < chosen.empty {
			chosen = b
		}
	}
	if chosen.tag != tag {
		chosen.tag, chosen.empty = tag, now
	}
	next := max(chosen.empty, now) + time.Second/time.Duration(perSecond)
	if next-now > 2*time.Second {
		return false
	}
	chosen.empty = next
	return true
}

// hash is keyed, so that nobody can choose prefixes that share a bucket.
func (t *rateTable) hash(prefix netip.Prefix, of rate) uint64 {
	a := prefix.Addr().As16()
	x := t.seed ^ uint64(of)*0x9e3779b97f4a7c15
	for _, b := range a {
		x = (x ^ uint64(b)) * 0x9e3779b97f4a7c15
		x ^= x >> 29
	}
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}
