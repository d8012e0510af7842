package dns

import (
	"context"
	"encoding/binary"
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
