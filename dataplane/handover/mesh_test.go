package handover

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/isochrone/isochrone/internal/devca"
)

// anycast is a client's socket on a network where a VIP leads now to one PoP, now to another.
type anycast struct {
	net.PacketConn
	vip  net.Addr
	pops []netip.AddrPort
	to   atomic.Int64
}

func (a *anycast) WriteTo(b []byte, to net.Addr) (int, error) {
	return a.PacketConn.WriteTo(b, net.UDPAddrFromAddrPort(a.pops[int(a.to.Load())%len(a.pops)]))
}

func (a *anycast) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, err := a.PacketConn.ReadFrom(b)
	return n, a.vip, err
}

// testPoP is a PoP with a VIP and an address of its own.
type testPoP struct {
	vip, own *net.UDPConn
	mesh     *Mesh
	dead     atomic.Bool
}

// startPoPs starts PoPs that answer by their names on VIPs, which stand for one. With secrets[i] nil a PoP passes nothing on.
func startPoPs(t *testing.T, names []string, secrets [][]byte) ([]*testPoP, *anycast, *tls.Config) {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{NextProtos: []string{"echo"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return ca.Certificate("localhost", time.Now())
	}}
	socket := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var pops []*testPoP
	for range names {
		pops = append(pops, &testPoP{vip: socket(), own: socket()})
	}
	client := &anycast{PacketConn: socket(), vip: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}}
	t.Cleanup(func() { client.Close() })
	for i, name := range names {
		ids := NewIDs(ID{PoP: PoPNumber(name)}, [16]byte{1})
		mesh, err := NewMesh(MeshConfig{
			IDs: ids,
			Secrets: func() [][]byte {
				if secrets[i] == nil {
					return nil
				}
				return [][]byte{secrets[i]}
			},
			Address: func(number uint32) (netip.AddrPort, bool) {
				for j, other := range names {
					if PoPNumber(other) == number {
						return pops[j].own.LocalAddr().(*net.UDPAddr).AddrPort(), !pops[j].dead.Load()
					}
				}
				return netip.AddrPort{}, false
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { mesh.Close() })
		pops[i].mesh = mesh
		vip, own := NewSocket(pops[i].vip, ids), NewSocket(pops[i].own, ids)
		mesh.Join(vip)
		mesh.Join(own)
		for _, other := range pops { // the VIP is one address in the world, and here an address for each PoP
			mesh.sockets[other.vip.LocalAddr().(*net.UDPAddr).AddrPort()] = vip
		}
		t.Cleanup(echo(t, name, vip, ids, config))
		t.Cleanup(echo(t, name, own, ids, config))
		client.pops = append(client.pops, pops[i].vip.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return pops, client, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"echo"}}
}

// TestRouteFlips has the route to a VIP change in the middle of requests: the connection stays with its PoP, and new ones come to the next.
func TestRouteFlips(t *testing.T) {
	secret := []byte("of all PoPs")
	pops, client, config := startPoPs(t, []string{"sin1", "fra1", "iad1"}, [][]byte{secret, secret, secret})
	transport := &quic.Transport{Conn: client}
	defer transport.Close()
	conn, err := transport.Dial(t.Context(), client.vip, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	for i := range 50 {
		client.to.Store(int64(i))
		if got := ask(t, conn); got != "sin1" {
			t.Fatalf("flip %d: %s answered", i, got)
		}
	}
	client.to.Store(1)
	other, err := transport.Dial(t.Context(), client.vip, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.CloseWithError(0, "")
	if got := ask(t, other); got != "fra1" {
		t.Errorf("%s answered a new connection", got)
	}
	if pops[0].mesh.Counts.Taken.Load() == 0 || pops[1].mesh.Counts.Passed.Load() == 0 || pops[2].mesh.Counts.Passed.Load() == 0 {
		t.Error("nothing was passed on: the test shows nothing")
	}
	for _, p := range pops {
		if c := &p.mesh.Counts; c.Refused.Load()+c.Homeless.Load()+c.Lost.Load() > 0 {
			t.Errorf("refused %d, homeless %d, lost %d", c.Refused.Load(), c.Homeless.Load(), c.Lost.Load())
		}
	}
}

// TestRouteFlipsWithoutSecret is the baseline: nobody passes anything on, or with another secret, and the connection is lost.
func TestRouteFlipsWithoutSecret(t *testing.T) {
	for name, secrets := range map[string][][]byte{"none": {nil, nil}, "another": {[]byte("one"), []byte("two")}} {
		t.Run(name, func(t *testing.T) {
			pops, client, config := startPoPs(t, []string{"sin1", "fra1"}, secrets)
			transport := &quic.Transport{Conn: client}
			defer transport.Close()
			conn, err := transport.Dial(t.Context(), client.vip, config, &quic.Config{MaxIdleTimeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			ask(t, conn)
			client.to.Store(1)
			stream, err := conn.OpenStreamSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = stream.Write([]byte("hello"))
			stream.Close()
			var idle *quic.IdleTimeoutError
			if _, err := stream.Read(make([]byte, 1)); !errors.As(err, &idle) {
				t.Errorf("got %v, want an idle timeout", err)
			}
			if name == "another" && pops[0].mesh.Counts.Refused.Load() == 0 {
				t.Error("what another secret sealed was not refused")
			}
		})
	}
}

// TestDeadPoPGetsNothing does not send packets into the void.
func TestDeadPoPGetsNothing(t *testing.T) {
	secret := []byte("of all PoPs")
	pops, client, config := startPoPs(t, []string{"sin1", "fra1"}, [][]byte{secret, secret})
	transport := &quic.Transport{Conn: client}
	defer transport.Close()
	conn, err := transport.Dial(t.Context(), client.vip, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	ask(t, conn)
	pops[0].dead.Store(true)
	client.to.Store(1)
	stream, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Write([]byte("hello"))
	for deadline := time.Now().Add(10 * time.Second); pops[1].mesh.Counts.Unknown.Load() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no packet has come to the other PoP")
		}
		time.Sleep(time.Millisecond)
	}
	if n := pops[1].mesh.Counts.Passed.Load(); n > 0 {
		t.Errorf("%d packets were passed to a dead PoP", n)
	}
}

// TestSeal opens what was sealed, whole and in halves, and nothing else.
func TestSeal(t *testing.T) {
	old, secret := []byte("old"), []byte("new")
	s, o := newSealer(), newOpener()
	for _, size := range []int{0, 1, 1000, 1200, maxDatagram} {
		p := Packet{
			Source: netip.MustParseAddrPort("192.0.2.1:4433"), ECN: 2, Destination: netip.MustParseAddr("2001:db8::2"), Port: 443,
			Data: bytes.Repeat([]byte{7}, size),
		}
		for _, with := range [][]byte{old, secret, old} {
			sealed := s.seal(with, &p)
			for i, datagram := range sealed {
				if len(datagram) > 1280-48 {
					t.Errorf("a datagram of %d octets", len(datagram))
				}
				for at := range datagram {
					broken := bytes.Clone(datagram)
					broken[at] ^= 1
					if _, _, err := newOpener().open([][]byte{secret, old}, broken); err == nil {
						t.Fatalf("octet %d can be changed", at)
					}
				}
				got, whole, err := o.open([][]byte{secret, old}, datagram)
				if err != nil || whole != (i == len(sealed)-1) {
					t.Fatalf("size %d, part %d: %v, %v", size, i, whole, err)
				}
				if whole && (got.Source != p.Source || got.Port != 443 || got.Destination != p.Destination || got.ECN != 2 || !bytes.Equal(got.Data, p.Data)) {
					t.Errorf("size %d: got %+v", size, got)
				}
			}
			if _, _, err := o.open([][]byte{[]byte("another")}, sealed[0]); err == nil {
				t.Error("another secret opens it")
			}
		}
	}
	large := Packet{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Data: make([]byte, maxDatagram)}
	one, two := s.seal(secret, &large), s.seal(secret, &large)
	for _, datagram := range [][]byte{one[0], two[1]} { // halves of two packets
		if _, whole, err := o.open([][]byte{secret}, datagram); whole || err != nil {
			t.Errorf("got %v, %v", whole, err)
		}
	}
}

// FuzzOpen wants no datagram to do harm, though it be sealed well.
func FuzzOpen(f *testing.F) {
	p := Packet{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Data: []byte("data")}
	f.Add(byte(allOfIt), p.Append(nil))
	f.Add(byte(secondHalf), []byte{format})
	f.Fuzz(func(t *testing.T, part byte, plain []byte) {
		s, o := newSealer(), newOpener()
		secret := []byte("secret")
		s.id = stamped(stamp(secret), s.id)
		c := aead(secret, s.id[:])
		head := append(append([]byte{passed, part}, s.id[:]...), make([]byte, 8)...)
		_, _, _ = o.open([][]byte{secret}, c.Seal(head, nonce(0), plain, head))
		_, _, _ = o.open([][]byte{secret}, plain)
	})
}

func BenchmarkPass(b *testing.B) {
	s, o := newSealer(), newOpener()
	p := Packet{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Data: make([]byte, 1000)}
	secret := []byte("secret")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := o.open([][]byte{secret}, s.seal(secret, &p)[0]); err != nil {
			b.Fatal(err)
		}
	}
}
