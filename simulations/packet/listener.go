package packet

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// backlog is how many connections wait to be accepted; more are not answered.
const backlog = 1024

// listener takes the connections that Network's dialers open.
type listener struct {
	network *Network
	at      netip.AddrPort
	accept  chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// Listen binds a TCP socket of a host.
func (n *Network) Listen(at netip.AddrPort) net.Listener {
	l := &listener{network: n, at: at, accept: make(chan net.Conn, backlog), closed: make(chan struct{})}
	n.mu.Lock()
	n.listeners[at] = l
	n.mu.Unlock()
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It closes the connections that nobody has accepted, too.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.network.mu.Lock()
		if l.network.listeners[l.at] == l {
			delete(l.network.listeners, l.at)
		}
		l.network.mu.Unlock()
	})
	for {
		select {
		case c := <-l.accept:
			c.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// give hands a connection to whoever accepts next, if there is room for it.
func (l *listener) give(c net.Conn) {
	select {
	case <-l.closed:
		c.Close()
		return
	default:
	}
	select {
	case l.accept <- c:
	default:
		c.Close()
	}
}

// Dialer returns a function that opens connections from a host, to addresses with a port: over TCP, or UDP.
func (n *Network) Dialer(from netip.Addr) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(network, "udp") {
			return n.DialPacket(from, to)
		}
		n.mu.Lock()
		at, err := n.freePort(from)
		n.mu.Unlock()
		if err != nil {
			return nil, err
		}
		c := newTCPConn(n, at, to)
		if err := c.open(ctx); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
		}
		return c, nil
	}
}

// synTimeout is how long the first SYN waits for an answer; the next ones wait twice as long each (RFC 6298 section 2).
const synTimeout = time.Second

// open sends SYN until it is answered: one round trip, if nothing is lost.
func (c *tcpConn) open(ctx context.Context) error {
	for wait := synTimeout; ; wait *= 2 {
		c.mu.Lock()
		c.synAt, c.synAgain = time.Now(), wait > synTimeout
		c.mu.Unlock()
		if err := c.network.carry(c.local.Addr(), c.remote.Addr(), tcpHeaders, false, func() { c.network.accept(c) }); err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		for again := false; !again; {
			c.mu.Lock()
			connected, err := c.connected, c.err
			changed := c.changed
			c.mu.Unlock()
			if connected || err != nil {
				timer.Stop()
				return err
			}
			select {
			case <-changed:
			case <-timer.C:
				again = true
			case <-ctx.Done():
				timer.Stop()
				c.abandon(ctx.Err())
				return ctx.Err()
			}
		}
	}
}

// accept takes the SYN of a connection, and answers it.
func (n *Network) accept(c *tcpConn) {
	n.mu.Lock()
	l := n.listeners[c.remote]
	n.mu.Unlock()
	c.mu.Lock()
	peer := c.peer
	c.mu.Unlock()
	switch {
	case l == nil && peer == nil:
		_ = n.carry(c.remote.Addr(), c.local.Addr(), tcpHeaders, false, func() { c.established(syscall.ECONNREFUSED) })
	case peer == nil:
		peer = newTCPConn(n, c.remote, c.local)
		peer.peer, peer.connected, peer.accept = c, true, l.give
		c.mu.Lock()
		c.peer = peer
		c.mu.Unlock()
		peer.answer(synTimeout)
	}
}

// mostAnswers is how often a SYN is answered at the most, as Linux has it.
const mostAnswers = 6

// answer sends the answer to a SYN, until the dialler is heard, or that has been tried often enough.
func (c *tcpConn) answer(wait time.Duration) {
	c.mu.Lock()
	waiting, peer := c.accept != nil, c.peer
	c.mu.Unlock()
	if !waiting || wait > synTimeout<<(mostAnswers-1) {
		return
	}
	_ = c.network.carry(c.local.Addr(), c.remote.Addr(), tcpHeaders, false, func() { peer.established(nil) }) // there is a way, as there was to here
	c.network.wire.at(time.Now().Add(wait), c.local.Addr(), c.remote.Addr(), func() { c.answer(2 * wait) })
}

// established takes the answer to a SYN.
func (c *tcpConn) established(err error) {
	c.mu.Lock()
	if c.connected || c.err != nil { // it was answered twice, or was given up
		again := c.connected && err == nil
		c.mu.Unlock()
		if again {
			c.send(&segment{})
		}
		return
	}
	c.connected, c.err = err == nil, err
	if err == nil && !c.synAgain {
		c.measured(time.Since(c.synAt))
	}
	c.tell()
	c.mu.Unlock()
	if err == nil {
		c.send(&segment{})
	}
}
