package packet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Figures of the TCP model.
const (
	tcpHeaders    = 52                     // octets of IPv4 and TCP with time stamps
	initialWindow = 10                     // segments (RFC 6928)
	reorderings   = 3                      // segments behind one have arrived: it is lost (RFC 6675)
	leastRTO      = 200 * time.Millisecond // as Linux has it; RFC 6298 says a second
	longestRTO    = 60 * time.Second
	giveUp        = 15 * time.Minute // without any news, while something is not acknowledged; about what Linux takes
	sendBuffer    = 1 << 20          // octets that are written and not acknowledged; a writer waits for more room
	receiveBuffer = 1 << 20          // octets that have come and are not read; the sender waits
)

// tcpConn is one end of a modelled TCP connection: what is written at one end is read at the other, in order, and what is lost is sent again.
//
// Modelled are: one round trip to open; segments of the MTU; an initial window of ten of them, slow start, congestion avoidance; selective
// acknowledgement of each segment at once, fast retransmission by it (RFC 6675), the retransmission timer (RFC 6298) with Linux's least of 200 ms; the
// receiver's window; FIN and RST. What is written at one moment goes out together. Not modelled are: delayed acknowledgements, tail loss probes, ECN,
// TIME_WAIT, and other congestion controls than Reno's.
type tcpConn struct {
	network       *Network
	local, remote netip.AddrPort
	accept        func(net.Conn) // of a listener, when the first segment has come; nil then

	mu        sync.Mutex
	changed   chan struct{} // closed, and replaced, when something has
	peer      *tcpConn
	connected bool
	synAt     time.Time
	synAgain  bool
	err       error // it is over
	closed    bool  // by this end
	deadlines [2]time.Time

	sender
	receiver
}

// The deadlines.
const (
	forRead = iota
	forWrite
)

func newTCPConn(n *Network, local, remote netip.AddrPort) *tcpConn {
	c := &tcpConn{network: n, local: local, remote: remote, changed: make(chan struct{})}
	c.mss = n.config.MTU - tcpHeaders
	c.window, c.threshold, c.room, c.told = initialWindow*c.mss, 1<<40, receiveBuffer, receiveBuffer
	return c
}

// tell wakes those who wait. The caller holds the mutex.
func (c *tcpConn) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until something has changed or the deadline is over. The caller holds the mutex, which is not held meanwhile.
func (c *tcpConn) await(which int) error {
	changed, deadline := c.changed, c.deadlines[which]
	var over <-chan time.Time
	if !deadline.IsZero() {
		wait := time.Until(deadline)
		if wait <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-changed:
	case <-over:
	}
	return nil
}

// Read implements net.Conn.
func (c *tcpConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case len(c.unread) > 0:
			n := copy(p, c.unread)
			if c.unread = c.unread[n:]; len(c.unread) == 0 {
				c.unread = nil
			}
			if c.told < 2*c.mss && receiveBuffer-len(c.unread) >= 2*c.mss { // the other end waits for room
				c.later()
			}
			return n, nil
		case c.err != nil:
			return 0, c.err
		case c.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		if err := c.await(forRead); err != nil {
			return 0, err
		}
	}
}

// Write implements net.Conn.
func (c *tcpConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	written := 0
	for {
		switch {
		case c.closed:
			return written, net.ErrClosed
		case c.err != nil:
			return written, c.err
		case len(p) == 0:
			return written, nil
		}
		if d := c.deadlines[forWrite]; !d.IsZero() && time.Until(d) <= 0 {
			return written, os.ErrDeadlineExceeded
		}
		if n := min(len(p), sendBuffer-len(c.out)); n > 0 {
			c.out = append(c.out, p[:n]...)
			p, written = p[n:], written+n
			c.later()
			continue
		}
		if err := c.await(forWrite); err != nil {
			return written, err
		}
	}
}

// later has the wire send what there is to send once this moment is over.
func (c *tcpConn) later() {
	if c.flushing {
		return
	}
	c.flushing = true
	c.network.wire.at(time.Now(), c.local.Addr(), c.remote.Addr(), func() {
		c.mu.Lock()
		c.flushing = false
		update := c.told < 2*c.mss
		c.mu.Unlock()
		c.push(update)
	})
}

// Close implements net.Conn. What was written is sent, and then the end of the stream; if something has come that was not read, or comes later, the
// connection is reset.
func (c *tcpConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.tell()
	if c.err != nil {
		return nil
	}
	if len(c.unread) > 0 {
		c.reset()
		return nil
	}
	c.finished = true
	c.later()
	return nil
}

// reset tells the other end that the connection is over. The caller holds the mutex.
func (c *tcpConn) reset() {
	c.end(syscall.ECONNRESET)
	c.refuse()
}

// refuse sends RST. The caller holds the mutex.
func (c *tcpConn) refuse() {
	peer := c.peer
	_ = c.network.carry(c.local.Addr(), c.remote.Addr(), tcpHeaders, false, func() { peer.abandon(syscall.ECONNRESET) })
}

// abandon ends a connection without a word.
func (c *tcpConn) abandon(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(why)
}

// end notes that the connection is over. The caller holds the mutex.
func (c *tcpConn) end(why error) {
	if c.err == nil {
		c.err = why
		c.out, c.flight, c.pieces = nil, nil, nil
		c.waiting = false
		c.tell()
	}
}

// LocalAddr implements net.Conn.
func (c *tcpConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr implements net.Conn.
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements net.Conn.
func (c *tcpConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *tcpConn) SetReadDeadline(t time.Time) error { return c.setDeadline(forRead, t) }

// SetWriteDeadline implements net.Conn.
func (c *tcpConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(forWrite, t) }

func (c *tcpConn) setDeadline(which int, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadlines[which] = t
	c.tell()
	return nil
}
