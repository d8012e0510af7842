package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFasterAnswersOvertake(t *testing.T) {
	inStreams(t, answerAfter, TCP, func(t *testing.T, p *pipes, _ *connections, stop func()) {
		conn := p.dial(clientAddr)
		defer conn.Close()
		send(t, conn, packetOf(1, 3), packetOf(2, 1), packetOf(3, 2))
		for _, want := range []uint16{2, 3, 1} {
			if got := binary.BigEndian.Uint16(receive(t, conn)); got != want {
				t.Errorf("got answer %d, want %d", got, want)
			}
		}
	})
}

func TestQuestionsInFlightAreBounded(t *testing.T) {
	var inFlight, most atomic.Int64
	slow := func(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
		most.Store(max(most.Load(), inFlight.Add(1)))
		defer inFlight.Add(-1)
		return answerAfter(packet, from, over, send)
	}
	inStreams(t, slow, TCP, func(t *testing.T, p *pipes, _ *connections, stop func()) {
		const all = 300
		conn := p.dial(clientAddr)
		defer conn.Close()
		written := make(chan error, 1)
		go func() {
			for id := range all {
				if _, err := conn.Write(framed(packetOf(uint16(id), 1))); err != nil {
					written <- err
					return
				}
			}
			written <- nil
		}()
		synctest.Wait()
		if got := inFlight.Load(); got != maxInFlight {
			t.Errorf("got %d questions in flight, want %d", got, maxInFlight)
		}
		seen := map[uint16]bool{}
		for range all {
			seen[binary.BigEndian.Uint16(receive(t, conn))] = true
		}
		if err := <-written; err != nil || len(seen) != all || most.Load() != maxInFlight {
			t.Errorf("got %d answers, %d at most in flight, %v", len(seen), most.Load(), err)
		}
	})
}

func TestConnectionsEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		over Transport
		use  func(t *testing.T, conn net.Conn)
		want time.Duration // after use
	}{
		{"idle from the start", TCP, func(t *testing.T, conn net.Conn) {}, streamIdleTimeout},
		{"idle after a question", TCP, func(t *testing.T, conn net.Conn) {
			time.Sleep(streamIdleTimeout - time.Second)
			send(t, conn, packetOf(1, 0))
			receive(t, conn)
		}, streamIdleTimeout},
		{"a slow answer is not idleness", TCP, func(t *testing.T, conn net.Conn) {
			send(t, conn, packetOf(1, 25))
			receive(t, conn)
		}, streamIdleTimeout},
		{"an octet and no more", TCP, func(t *testing.T, conn net.Conn) { conn.Write([]byte{0}) }, messageTimeout},
		{"a trickle", TCP, func(t *testing.T, conn net.Conn) {
			for _, octet := range framed(packetOf(1, 0))[:4] {
				conn.Write([]byte{octet})
				time.Sleep(time.Second)
			}
		}, messageTimeout - 4*time.Second},
		{"answers not read", TCP, func(t *testing.T, conn net.Conn) {
			send(t, conn, packetOf(1, 0))
			time.Sleep(streamWriteTimeout)
			synctest.Wait()
		}, 0},
		{"not a question", TCP, func(t *testing.T, conn net.Conn) { send(t, conn, []byte{1, 2, 0xFF}) }, 0},
		{"no handshake", TLS, func(t *testing.T, conn net.Conn) {}, handshakeTimeout},
		{"half a handshake", TLS, func(t *testing.T, conn net.Conn) {
			conn.Write([]byte{22, 3, 1, 2, 0, 1})
			time.Sleep(time.Second)
		}, handshakeTimeout - time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			exchange := func(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
				if packet[2] == 0xFF {
					return nil
				}
				return answerAfter(packet, from, over, send)
			}
			inStreams(t, exchange, test.over, func(t *testing.T, p *pipes, _ *connections, stop func()) {
				conn := p.dial(clientAddr)
				defer conn.Close()
				test.use(t, conn)
				mustClose(t, conn, test.want)
			})
		})
	}
}

// TestMessagesOfOneExchangeStayInOrder has a zone transfer between other answers, to a client that reads in small pieces.
func TestMessagesOfOneExchangeStayInOrder(t *testing.T) {
	const messages, length = 300, 2000 // more than may be queued
	transfer := func(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
		if packet[2] == 0 {
			return send(packet)
		}
		message := make([]byte, length) // used again and again, as it is the sender's
		for i := range messages {
			binary.BigEndian.PutUint16(message, uint16(i))
			if err := send(message); err != nil {
				return err
			}
		}
		return nil
	}
	inStreams(t, transfer, TCP, func(t *testing.T, p *pipes, _ *connections, stop func()) {
		conn := p.dial(clientAddr)
		defer conn.Close()
		send(t, conn, packetOf(1, 1), packetOf(2, 0), packetOf(3, 0))
		next := 0
		for range messages + 2 {
			answer := receive(t, conn)
			if len(answer) != length {
				continue
			}
			if got := int(binary.BigEndian.Uint16(answer)); got != next {
				t.Fatalf("got message %d, want %d", got, next)
			}
			next++
		}
		if next != messages {
			t.Errorf("got %d messages of the transfer, want %d", next, messages)
		}
	})
}

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	inStreams(t, answerAfter, TCP, func(t *testing.T, p *pipes, _ *connections, stop func()) {
		idle, soon, late := p.dial(clientAddr), p.dial(clientAddr), p.dial(clientAddr)
		defer idle.Close()
		defer soon.Close()
		defer late.Close()
		send(t, soon, packetOf(1, 1))
		send(t, late, packetOf(2, 3))
		synctest.Wait()
		start := time.Now()
		ended := make(chan time.Duration, 1)
		go func() { stop(); ended <- time.Since(start) }()
		mustClose(t, idle, 0)
		receive(t, soon)
		mustClose(t, soon, 0)
		if got := time.Since(start); got != time.Second {
			t.Errorf("answered after %v, want 1s", got)
		}
		mustClose(t, late, shutdownGrace-time.Second)
		if got := <-ended; got != 3*time.Second {
			t.Errorf("serve returned after %v, want the 3s of the last exchange", got)
		}
	})
}

// TestListenerFails has serve return although a client is connected.
func TestListenerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		done := make(chan error, 1)
		go func() { done <- streams{answerAfter, &connections{}}.serve(context.Background(), p, TCP, nil) }()
		conn := p.dial(clientAddr)
		defer conn.Close()
		p.Close()
		mustClose(t, conn, 0)
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want %v", err, net.ErrClosed)
		}
	})
}

func TestHalfClosedClientIsAnswered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	exchange := func(packet []byte, _ netip.AddrPort, _ Transport, send func([]byte) error) error {
		<-release
		return send(packet)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- streams{exchange, &connections{}}.serve(ctx, l, TCP, nil) }()
	defer func() { cancel(); <-done }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	send(t, conn, packetOf(1, 0), packetOf(2, 0))
	conn.(*net.TCPConn).CloseWrite()
	close(release)
	receive(t, conn)
	receive(t, conn)
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}
