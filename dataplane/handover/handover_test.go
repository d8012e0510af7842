package handover

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"

	"github.com/isochrone/isochrone/internal/devca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIDs(t *testing.T) {
	ids := NewIDs(ID{PoPNumber("sin1"), 255}, [16]byte{1})
	seen := map[string]bool{}
	for range 1000 {
		id, err := ids.GenerateConnectionID()
		if err != nil || id.Len() != ids.ConnectionIDLen() {
			t.Fatal(id, err)
		}
		if got := ids.Decode([Length]byte(id.Bytes())); got != ids.Own() {
			t.Fatalf("got %v, want %v", got, ids.Own())
		}
		seen[string(id.Bytes()[:headLength])] = true
	}
	if len(seen) < 990 {
		t.Errorf("of 1000 ids only %d begin differently: who watches sees which belong together", len(seen))
	}
	next := ids.Next()
	if next.Own().Generation != 0 || next.Own().PoP != ids.Own().PoP {
		t.Errorf("after %v comes %v", ids.Own(), next.Own())
	}
	id, _ := ids.GenerateConnectionID()
	short := append([]byte{0x40}, id.Bytes()...)
	if ids.foreign(short) || !next.foreign(short) || NewIDs(ID{PoPNumber("lhr1"), 0}, [16]byte{1}).foreign(short) {
		t.Error("a packet is not known as what it is")
	}
}

func TestDestination(t *testing.T) {
	id := [Length]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for name, test := range map[string]struct {
		packet []byte
		ok     bool
	}{
		"short":         {append([]byte{0x40}, id[:]...), true},
		"short, cut":    {append([]byte{0x40}, id[:9]...), false},
		"long":          {append([]byte{0xc0, 0, 0, 0, 1, Length}, id[:]...), true},
		"long, cut":     {append([]byte{0xc0, 0, 0, 0, 1, Length}, id[:9]...), false},
		"of a client":   {append([]byte{0xc0, 0, 0, 0, 1, 8}, id[:]...), false},
		"version alone": {[]byte{0xc0, 0, 0, 0, 1}, false},
		"nothing":       {nil, false},
	} {
		if got, ok := Destination(test.packet); ok != test.ok || ok && got != id {
			t.Errorf("%s: got %v, %v", name, got, ok)
		}
	}
}

var packets = []Packet{
	{Source: netip.MustParseAddrPort("192.0.2.1:4433"), ECN: 1, Data: []byte("data")},
	{Source: netip.MustParseAddrPort("[2001:db8::1]:1"), ECN: 3, Destination: netip.MustParseAddr("2001:db8::2"), Interface: 7, Data: []byte{}},
	{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Destination: netip.MustParseAddr("192.0.2.2"), Interface: 2, Data: make([]byte, maxDatagram)},
}

func compare(x, y netip.AddrPort) bool { return x == y }

func TestPackets(t *testing.T) {
	for _, p := range packets {
		got, err := Decode(p.Append(nil))
		if err != nil {
			t.Errorf("%v: %v", p.Source, err)
		}
		if diff := cmp.Diff(got, p, cmp.Comparer(compare), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Error(diff)
		}
		var again Packet
		oob := make([]byte, 128)
		again.readControl(oob[:p.writeControl(oob)])
		if again.ECN != p.ECN || again.Destination != p.Destination || again.Interface != p.Interface {
			t.Errorf("control messages: got %+v", again)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range packets {
		f.Add(p.Append(nil))
	}
	f.Add([]byte{format, 0, 4, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(p.Append(nil))
		if err != nil || again.Source != p.Source || again.Destination != p.Destination || !bytes.Equal(again.Data, p.Data) {
			t.Errorf("%x: got %+v, then %+v, %v", b, p, again, err)
		}
	})
}

func FuzzDestination(f *testing.F) {
	ids := NewIDs(ID{1, 2}, [16]byte{})
	id, _ := ids.GenerateConnectionID()
	f.Add(append([]byte{0x40}, id.Bytes()...))
	f.Add(append([]byte{0xc0, 0, 0, 0, 1, Length}, id.Bytes()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := Destination(b); ok && !bytes.Contains(b, got[:]) {
			t.Errorf("%x: got %x, which is not in it", b, got)
		}
		ids.Next().foreign(b)
	})
}

// echo answers each stream with what it brings and its own name, until its transport is closed.
func echo(t *testing.T, name string, s *Socket, ids *IDs, config *tls.Config) (stop func()) {
	t.Helper()
	transport := &quic.Transport{Conn: s, ConnectionIDGenerator: ids}
	listener, err := transport.Listen(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			running.Go(func() {
				for {
					stream, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					text, _ := io.ReadAll(stream)
					stream.Write(append([]byte(name+" "), text...))
					stream.Close()
				}
			})
		}
	})
	return func() {
		listener.Close()
		transport.Close()
		s.Close()
		running.Wait()
	}
}

// ask sends a long text, so that several packets are on their way, and returns who has answered.
func ask(t *testing.T, conn *quic.Conn) string {
	t.Helper()
	stream, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789"), 1000)
	go func() {
		stream.Write(text)
		stream.Close()
	}()
	stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	name, rest, _ := bytes.Cut(got, []byte(" "))
	if !bytes.Equal(rest, text) {
		t.Errorf("%s gave back %d octets of %d", name, len(rest), len(text))
	}
	return string(name)
}

// twin returns another descriptor of a socket, as another process has it.
func twin(t *testing.T, udp *net.UDPConn) *net.UDPConn {
	t.Helper()
	file, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// TestThreeGenerations has a connection in each of three servers that replace each other on one socket: all go on, each with its
// server, and new ones come to the newest.
func TestThreeGenerations(t *testing.T) {
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{NextProtos: []string{"echo"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return ca.Certificate("localhost", time.Now())
	}}
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := udp.LocalAddr()
	names, conns := []string{"first", "second", "third"}, map[string]*quic.Conn{}
	ids := NewIDs(ID{PoP: PoPNumber("sin1")}, [16]byte{9})
	var last *Socket
	for _, name := range names {
		s := NewSocket(udp, ids)
		if last != nil {
			own, file, err := Pair()
			if err != nil {
				t.Fatal(err)
			}
			other, err := Conn(file)
			if err != nil {
				t.Fatal(err)
			}
			last.ReceiveFrom(own)
			s.PassTo(other)
		}
		next := twin(t, udp)
		defer echo(t, name, s, ids, config)()
		conns[name] = dial(t, at, ca.Pool())
		for _, of := range names {
			if conns[of] == nil {
				break
			}
			for range 3 {
				if got := ask(t, conns[of]); got != of {
					t.Errorf("after %s had begun: %s answered for %s", name, got, of)
				}
			}
		}
		last, udp, ids = s, next, ids.Next()
	}
	udp.Close()
	if lost := last.Lost(); lost > 0 {
		t.Errorf("%d packets were lost", lost)
	}
}

func dial(t *testing.T, at net.Addr, roots *x509.CertPool) *quic.Conn {
	t.Helper()
	conn, err := quic.DialAddr(t.Context(), at.String(), &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"echo"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	return conn
}

// TestSocketGoesOnAlone wants a process whose successor has died to read the UDP socket again.
func TestSocketGoesOnAlone(t *testing.T) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSocket(udp, NewIDs(ID{}, [16]byte{}))
	defer s.Close()
	own, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		messages := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}, OOB: make([]byte, 128)}}
		for {
			n, err := s.ReadBatch(messages, 0)
			if err != nil {
				close(got)
				return
			}
			if n == 1 {
				got <- string(messages[0].Buffers[0][:messages[0].N])
			}
		}
	}()
	s.ReceiveFrom(own)
	file.Close()
	if _, err := udp.WriteTo([]byte("hello"), udp.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "hello" {
		t.Errorf("got %q", text)
	}
	s.SetReadDeadline(time.Unix(1, 0))
	if _, open := <-got; open {
		t.Error("a deadline does not end a read")
	}
}

func BenchmarkForeign(b *testing.B) {
	ids := NewIDs(ID{1, 2}, [16]byte{})
	id, _ := ids.GenerateConnectionID()
	packet := append([]byte{0x40}, id.Bytes()...)
	b.ReportAllocs()
	for b.Loop() {
		ids.foreign(packet)
	}
}
