package dns

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

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
		synctest.Wait()
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

// TestAPlaceIsLostAtOnce evicts a connection whose owner is slow to notice.
func TestAPlaceIsLostAtOnce(t *testing.T) {
	var all connections
	evicted := 0
	var last *connection
	for i := range mostConnections {
		last = all.admit(netip.AddrFrom4([4]byte{198, 18, byte(i / mostOfPrefix), 1}), TCP, func() { evicted++ })
		last.begin()
	}
	last.end()
	newcomer := all.admit(netip.MustParseAddr(clientAddr), TLS, func() {})
	if newcomer == nil || evicted != 1 {
		t.Fatalf("let in: %v, evicted %d, want one for the other", newcomer != nil, evicted)
	}
	newcomer.begin()
	if c := all.admit(netip.MustParseAddr(clientAddr), TLS, nil); c != nil {
		t.Error("a place was given twice")
	}
	last.release()
	stats := all.stats()
	if got := stats[TCP].Open + stats[TLS].Open; got != mostConnections {
		t.Errorf("got %d open, want %d", got, mostConnections)
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
