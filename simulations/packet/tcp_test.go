package packet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// transfer opens a connection, has so many octets sent to the dialler's end, or from it, and returns when the connection was open and when the end
// of the stream had come, both from the begin.
func transfer(n *Network, a, b netip.Addr, octets int, up bool) (open, done time.Duration, err error) {
	l := n.Listen(netip.AddrPortFrom(b, 80))
	defer l.Close()
	data := make([]byte, octets)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	start := time.Now()
	failed, received := make(chan error, 1), make(chan time.Duration, 1)
	send := func(c net.Conn) error {
		_, err := c.Write(data)
		return errors.Join(err, c.Close())
	}
	receive := func(c net.Conn) error {
		got, err := io.ReadAll(c)
		if err == nil && !bytes.Equal(got, data) {
			err = fmt.Errorf("%d octets came of %d, or others", len(got), len(data))
		}
		received <- time.Since(start)
		return errors.Join(err, c.Close())
	}
	far, near := send, receive
	if up {
		far, near = receive, send
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = far(c)
		}
		failed <- err
	}()
	c, err := n.Dialer(a)(context.Background(), "tcp", netip.AddrPortFrom(b, 80).String())
	if err != nil {
		return 0, 0, err
	}
	open = time.Since(start)
	err = near(c)
	return open, <-received, errors.Join(err, <-failed)
}

// The initial window is ten segments, and doubles each round trip: so many octets take so many of them.
func TestTCPSlowStart(t *testing.T) {
	const rtt, mss = 100 * time.Millisecond, 1448
	for segments, trips := range map[int]time.Duration{1: 0, 10: 0, 11: 1, 30: 1, 31: 2, 70: 2, 71: 3} {
		inWorld(t, Config{Way: way(Way{Delay: rtt / 2})}, func(n *Network, a, b netip.Addr) error {
			open, done, err := transfer(n, a, b, segments*mss, true)
			if want := rtt + rtt/2 + trips*rtt; open != rtt || done != want {
				t.Errorf("%d segments: open after %v, done after %v, want %v", segments, open, done, want)
			}
			return err
		})
	}
}

func TestTCPAllArrives(t *testing.T) {
	for name, c := range map[string]Config{
		"loss":      {Way: way(Way{Delay: 20 * time.Millisecond, Loss: 0.1})},
		"much loss": {Way: way(Way{Delay: 20 * time.Millisecond, Loss: 0.3})},
		"reordered": {Way: way(Way{Delay: 20 * time.Millisecond, Reorder: 0.3, Jitter: time.Millisecond})},
	} {
		for seed := range uint64(3) {
			for _, up := range []bool{true, false} {
				var first time.Duration
				for range 2 {
					c.Seed = seed
					inWorld(t, c, func(n *Network, a, b netip.Addr) error {
						_, done, err := transfer(n, a, b, 150_000, up)
						if first == 0 {
							first = done
						}
						if done != first {
							t.Errorf("%s, seed %d: %v and %v", name, seed, first, done)
						}
						return err
					})
				}
			}
		}
	}
}

// One segment of many is lost: fast retransmission takes one round trip more than without loss, at the most, rather than a timer.
func TestTCPFastRetransmission(t *testing.T) {
	const rtt = 100 * time.Millisecond
	inWorld(t, Config{Way: way(Way{Delay: rtt / 2})}, func(n *Network, a, b netip.Addr) error {
		packets := 0
		n.Break(func(from, to netip.Addr) Fault {
			if from == a && !time.Now().Equal(time.Time{}) {
				packets++
			}
			return Fault{Cut: from == a && packets == 5}
		})
		_, done, err := transfer(n, a, b, 10*1448, true)
		if want := rtt + rtt/2 + rtt; done != want {
			t.Errorf("done after %v, want %v", done, want)
		}
		return err
	})
}

func TestTCPThroughput(t *testing.T) {
	inWorld(t, Config{Way: way(Way{Delay: 10 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
		n.Add(&Host{Addr: a, Line: Line{Up: 8e6}})
		_, done, err := transfer(n, a, b, 1_000_000, true)
		if done < time.Second || done > 2*time.Second { // 1 MB at 1 MB/s, with headers, and losses when the queue is full
			t.Errorf("done after %v", done)
		}
		return err
	})
}

// A reader that waits has the sender wait: no more than the two buffers is on the way.
func TestTCPReceiverWindow(t *testing.T) {
	inWorld(t, Config{Way: way(Way{Delay: 10 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
		l := n.Listen(netip.AddrPortFrom(b, 80))
		defer l.Close()
		c, err := n.Dialer(a)(context.Background(), "tcp", netip.AddrPortFrom(b, 80).String())
		if err != nil {
			return err
		}
		far, err := l.Accept()
		if err != nil {
			return err
		}
		c.SetWriteDeadline(time.Now().Add(20 * time.Second))
		written, err := c.Write(make([]byte, 3<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || written < receiveBuffer || written > sendBuffer+receiveBuffer+4*1448 {
			t.Errorf("%d were written: %v", written, err)
		}
		c.SetWriteDeadline(time.Time{})
		go func() {
			_, _ = c.Write(make([]byte, 3<<20-written))
			c.Close()
		}()
		got, err := io.Copy(io.Discard, far)
		if got != 3<<20 {
			t.Errorf("%d came", got)
		}
		return errors.Join(err, far.Close())
	})
}

func TestTCPEnds(t *testing.T) {
	inWorld(t, Config{Way: way(Way{Delay: 10 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
		dial := n.Dialer(a)
		start := time.Now()
		if _, err := dial(context.Background(), "tcp", netip.AddrPortFrom(b, 81).String()); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) != 20*time.Millisecond {
			t.Errorf("nobody listens: got %v after %v", err, time.Since(start))
		}
		l := n.Listen(netip.AddrPortFrom(b, 80))
		defer l.Close()
		pair := func() (net.Conn, net.Conn) {
			c, err := dial(context.Background(), "tcp", netip.AddrPortFrom(b, 80).String())
			if err != nil {
				t.Error(err)
			}
			far, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			return c, far
		}
		buffer := make([]byte, 10)
		c, far := pair()
		far.Close() // and then something comes
		_, _ = c.Write([]byte("x"))
		<-time.After(time.Second)
		if _, err := c.Read(buffer); !errors.Is(err, syscall.ECONNRESET) && err != io.EOF {
			t.Errorf("the other end is closed: got %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to an end that is closed: got %v", err)
		}
		c.Close()

		c, far = pair()
		c.SetReadDeadline(time.Now().Add(time.Second))
		start = time.Now()
		if _, err := c.Read(buffer); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("nothing comes: got %v after %v", err, time.Since(start))
		}
		n.Break(func(from, to netip.Addr) Fault { return Fault{Cut: true} })
		c.SetReadDeadline(time.Time{})
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(buffer); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("the network is cut: got %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := dial(ctx, "tcp", netip.AddrPortFrom(b, 80).String()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial a host that is cut off: got %v", err)
		}
		n.Break(nil)
		c.Close()
		far.Close()
		return nil
	})
}

// A lost SYN is sent again after a second.
func TestTCPLostSYN(t *testing.T) {
	inWorld(t, Config{Way: way(Way{Delay: 10 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
		start := time.Now()
		n.Break(func(from, to netip.Addr) Fault { return Fault{Cut: time.Since(start) < 2*time.Second} })
		open, _, err := transfer(n, a, b, 1000, true)
		if open != 3*time.Second+20*time.Millisecond {
			t.Errorf("open after %v", open)
		}
		return err
	})
}
