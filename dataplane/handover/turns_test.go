package handover

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// vipSocket returns a Socket of a mesh, where it is, and a packet of another PoP for it.
func vipSocket(t testing.TB, ids *IDs) (*Socket, netip.AddrPort, Packet) {
	t.Helper()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := NewMesh(MeshConfig{
		IDs: ids, Secrets: func() [][]byte { return nil }, Address: func(uint32) (netip.AddrPort, bool) { return netip.AddrPort{}, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSocket(udp, ids)
	mesh.Join(s)
	t.Cleanup(func() {
		s.Close()
		mesh.Close()
	})
	at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return s, at, Packet{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Destination: at.Addr(), Port: at.Port(), Data: append(shortHeader(t, ids), "passed"...)}
}

// shortHeader returns the beginning of a packet of a connection.
func shortHeader(t testing.TB, ids *IDs) []byte {
	t.Helper()
	id, err := ids.GenerateConnectionID()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{0x40}, id.Bytes()...)
}

func batch(n int) []ipv4.Message {
	messages := make([]ipv4.Message, n)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{make([]byte, maxDatagram)}, OOB: make([]byte, 128)}
	}
	return messages
}

// TestTurns has so many packets of other PoPs come that there are always some to read: those that have come here are read all the same, and
// the end of the socket's reader is not put off.
func TestTurns(t *testing.T) {
	ids := NewIDs(ID{PoP: 7}, [16]byte{1})
	s, at, passed := vipSocket(t, ids)
	client, err := net.Dial("udp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write(append(shortHeader(t, ids), "here"...)); err != nil {
		t.Fatal(err)
	}
	messages, here := batch(8), false
	for range 100 {
		for s.inject(passed) {
		}
		n, err := s.ReadBatch(messages, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages[:n] {
			here = here || bytes.HasSuffix(m.Buffers[0][:m.N], []byte("here"))
		}
	}
	if !here {
		t.Error("what has come here is not read while other PoPs pass packets on")
	}
	if err := s.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		for s.inject(passed) {
		}
		if _, err := s.ReadBatch(messages, 0); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the deadline does not end a read while other PoPs pass packets on")
		}
	}
}

// TestInjectedAfterHandOver has a packet of another PoP come when the socket has just been left to the next process.
func TestInjectedAfterHandOver(t *testing.T) {
	ids := NewIDs(ID{PoP: 7}, [16]byte{1})
	for _, first := range []bool{true, false} { // before the read has begun, or after it
		s, _, passed := vipSocket(t, ids)
		own, other, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if first {
			s.inject(passed)
		}
		s.ReceiveFrom(own)
		read := make(chan error, 1)
		go func() {
			messages := batch(8)
			n, err := s.ReadBatch(messages, 0)
			if err == nil && (n != 1 || !bytes.HasSuffix(messages[0].Buffers[0][:messages[0].N], []byte("passed"))) {
				err = errors.New("it has read something else")
			}
			read <- err
		}()
		if !first {
			s.inject(passed)
		}
		select {
		case err := <-read:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it is not read")
		}
	}
}

// TestRotatedIDs has PoPs that have begun with different keys know each other's connections while they have both.
func TestRotatedIDs(t *testing.T) {
	older, newer := NewIDs(ID{PoP: 7}, [16]byte{1}), NewIDs(ID{PoP: 8}, [16]byte{2})
	id := [Length]byte(shortHeader(t, older)[1:])
	knows := func(g *IDs) bool { return g.readings(id, func(is ID) bool { return is.PoP == 7 }) }
	if knows(newer) {
		t.Error("it reads what it has no key of")
	}
	newer.Understand(func() []*IDs { return []*IDs{NewIDs(ID{PoP: 8}, [16]byte{2}), NewIDs(ID{PoP: 8}, [16]byte{1})} })
	if !knows(newer) {
		t.Error("it does not read what it has the key of")
	}
	next := NewIDs(ID{PoP: 7, Generation: 1}, [16]byte{2}) // an upgrade in the midst of a rotation
	next.Understand(func() []*IDs { return []*IDs{NewIDs(ID{PoP: 7, Generation: 1}, [16]byte{1})} })
	if !next.foreign(append([]byte{0x40}, id[:]...)) {
		t.Error("the next process does not know connections of the one before it")
	}
}

// TestHalves puts packets together whose halves come in any order, between those of others.
func TestHalves(t *testing.T) {
	s, o, secret := newSealer(), newOpener(), []byte("of all PoPs")
	var sealed [][][]byte
	for i := range 4 {
		p := Packet{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Data: bytes.Repeat([]byte{byte(i)}, maxDatagram)}
		sealed = append(sealed, s.seal(secret, &p))
	}
	whole := 0
	for _, which := range [][2]int{{0, 1}, {1, 0}, {2, 1}, {0, 0}, {3, 0}, {2, 0}, {1, 1}, {3, 1}} {
		p, ok, err := o.open([][]byte{secret}, sealed[which[0]][which[1]])
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if whole++; !bytes.Equal(p.Data, bytes.Repeat([]byte{byte(which[0])}, maxDatagram)) {
				t.Errorf("packet %d has come to be another", which[0])
			}
		}
	}
	if whole != 4 {
		t.Errorf("%d of 4 packets are whole", whole)
	}
}

// TestOwnPacketsCostNothing wants no allocation for a packet of this process.
func TestOwnPacketsCostNothing(t *testing.T) {
	ids := NewIDs(ID{PoP: 7}, [16]byte{1})
	s, _, _ := vipSocket(t, ids)
	m := batch(1)
	m[0].N = copy(m[0].Buffers[0], shortHeader(t, ids))
	m[0].Addr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4433}
	if n := testing.AllocsPerRun(100, func() { s.elsewhere(nil, &m[0]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkSort is what is added to the reading of a packet: of this process, of a connection that has no PoP, and of a stranger who pretends to be a
// PoP, with ids of his own or with one that he has seen.
func BenchmarkSort(b *testing.B) {
	ids, secrets := NewIDs(ID{PoP: 7}, [16]byte{1}), [][]byte{[]byte("one"), []byte("two")}
	s, _, _ := vipSocket(b, ids)
	s.mesh.config.Secrets = func() [][]byte { return secrets }
	stranger := newSealer()
	stranger.id = stamped(stamp([]byte("another")), stranger.id)
	p := Packet{Source: netip.MustParseAddrPort("192.0.2.1:4433"), Data: make([]byte, 1000)}
	forged := newSealer().seal(secrets[0], &p)[0]
	forged[len(forged)-1]++
	for name, data := range map[string][]byte{
		"own":      shortHeader(b, ids),
		"unknown":  shortHeader(b, NewIDs(ID{PoP: 8}, [16]byte{1})),
		"stranger": stranger.seal([]byte("another"), &p)[0],
		"forged":   forged,
	} {
		b.Run(name, func(b *testing.B) {
			m := batch(1)
			m[0].N = copy(m[0].Buffers[0], data)
			m[0].Addr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4433}
			b.ReportAllocs()
			for b.Loop() {
				s.elsewhere(nil, &m[0])
			}
		})
	}
}
