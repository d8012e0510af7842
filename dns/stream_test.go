package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isochrone/isochrone/internal/devca"
)

// pipes is a listener whose connections are pipes, for tests in virtual time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	done   atomic.Bool
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	if p.done.CompareAndSwap(false, true) {
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// pipeEnd is a pipe with the address of a client.
type pipeEnd struct {
	net.Conn
	from netip.AddrPort
}

func (p pipeEnd) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }

// dial connects from an address. The server has accepted when it returns, and closes what it refuses.
func (p *pipes) dial(from string) net.Conn {
	client, server := net.Pipe()
	p.conns <- pipeEnd{server, netip.AddrPortFrom(netip.MustParseAddr(from), 4242)}
	return client
}

const clientAddr = "192.0.2.1"

// answerAfter answers with the question itself, after the seconds that its third octet tells.
func answerAfter(packet []byte, _ netip.AddrPort, _ Transport, send func([]byte) error) error {
	time.Sleep(time.Duration(packet[2]) * time.Second) // virtual time
	return send(packet)
}

// packetOf makes a packet of an id that answerAfter answers after some seconds.
func packetOf(id uint16, seconds byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), seconds, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

func framed(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

func send(t *testing.T, conn net.Conn, packets ...[]byte) {
	t.Helper()
	for _, p := range packets {
		if _, err := conn.Write(framed(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func receive(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, packet); err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	return packet
}

// mustClose expects the other side to close a connection after so long, to the nanosecond.
func mustClose(t *testing.T, conn net.Conn, after time.Duration) {
	t.Helper()
	start := time.Now()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatalf("got an octet, want the end")
	}
	if got := time.Since(start); got != after {
		t.Errorf("closed after %v, want %v", got, after)
	}
}

// inStreams runs a test in virtual time with streams that serve pipes. Stop ends them, and returns when they have ended.
func inStreams(t *testing.T, exchange exchangeFunc, over Transport, test func(t *testing.T, p *pipes, open *connections, stop func())) {
	ca, err := devca.New(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p, open := newPipes(), &connections{}
		s := streams{exchange, open}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		config := tlsConfig(certOf(ca), "dot")
		if over == TCP {
			config = nil
		}
		go func() { done <- s.serve(ctx, p, over, config) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		defer stop()
		test(t, p, open, stop)
		stop()
		if got := open.stats()[over].Open; got != 0 {
			t.Errorf("%d connections are still counted", got)
		}
	})
}

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

func TestConnectionsOfOneNetworkAreBounded(t *testing.T) {
	inStreams(t, answerAfter, TCP, func(t *testing.T, p *pipes, open *connections, stop func()) {
		var conns []net.Conn
		for i := range mostOfPrefix {
			conns = append(conns, p.dial(fmt.Sprintf("2001:db8:0:1%02x::%d", i, i)))
		}
		mustClose(t, p.dial("2001:db8:0:1ff::1"), 0)
		conns = append(conns, p.dial("2001:db8:0:200::1"))
		send(t, conns[0], packetOf(1, 0))
		receive(t, conns[0])
		want := ConnectionCount{Open: mostOfPrefix + 1, Total: mostOfPrefix + 1, Refused: 1}
		if got := open.stats()[TCP]; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		conns[0].Close()
		synctest.Wait()
		conns = append(conns, p.dial("2001:db8:0:1ff::1"))
		synctest.Wait()
		if got := open.stats()[TCP]; got.Refused != 1 {
			t.Errorf("refused although one place was given back: %+v", got)
		}
		for _, conn := range conns {
			conn.Close()
		}
	})
}

func TestTheLongestIdleMakesRoom(t *testing.T) {
	inStreams(t, answerAfter, TCP, func(t *testing.T, p *pipes, open *connections, stop func()) {
		var conns []net.Conn
		for i := range mostConnections {
			conns = append(conns, p.dial(fmt.Sprintf("198.18.%d.1", i/mostOfPrefix)))
			time.Sleep(time.Millisecond)
		}
		send(t, conns[0], packetOf(1, 8)) // in flight
		send(t, conns[1], packetOf(1, 0)) // active just now
		receive(t, conns[1])
		newcomer := p.dial(clientAddr)
		mustClose(t, conns[2], 0)
		send(t, newcomer, packetOf(7, 0))
		receive(t, newcomer)
		receive(t, conns[0])
		want := ConnectionCount{Open: mostConnections, Total: mostConnections + 1, Evicted: 1}
		got := open.stats()[TCP]
		got.Open = mostConnections // some idled meanwhile
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for _, conn := range append(conns, newcomer) {
			conn.Close()
		}
	})
}

func TestNewcomersAreRefusedWhenAllAreBusy(t *testing.T) {
	var all connections
	for i := range mostConnections {
		c := all.admit(netip.AddrFrom4([4]byte{198, 18, byte(i / mostOfPrefix), 1}), TCP, func() { t.Error("evicted while busy") })
		c.begin()
	}
	if c := all.admit(netip.MustParseAddr(clientAddr), TLS, nil); c != nil {
		t.Error("let in, want refused")
	}
	if got, want := all.stats()[TLS], (ConnectionCount{Refused: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestClients(t *testing.T) {
	for _, test := range []struct {
		addr, prefix string
		most         int
	}{
		{"192.0.2.77", "192.0.2.0/24", mostOfPrefix},
		{"::ffff:192.0.2.77", "192.0.2.0/24", mostOfPrefix},
		{"2001:db8:1:2ff::1", "2001:db8:1:200::/56", mostOfPrefix},
		{"fe80::1%eth0", "fe80::/56", mostOfPrefix},
		{"127.0.0.1", "127.0.0.0/24", mostOfLoopback},
		{"::1", "::/56", mostOfLoopback},
	} {
		prefix, most := clientOf(netip.MustParseAddr(test.addr))
		if prefix.String() != test.prefix || most != test.most {
			t.Errorf("%s: got %v and %d, want %s and %d", test.addr, prefix, most, test.prefix, test.most)
		}
	}
}
