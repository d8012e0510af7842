package dns

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestPortableUDP has the answers of systems other than Linux, here too: those of both paths, none for what is no question, and the end.
func TestPortableUDP(t *testing.T) {
	s := signed(t, manifold(), nil, zoneName)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.servePortably(ctx, conn) }()
	buffer := make([]byte, bufferSize)
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, m := range []*dns.Msg{
		query(serviceName, dns.TypeA, "192.0.2.0/24"), query("nobody."+zoneName, dns.TypeA, ""), query(zoneName, dns.TypeANY, ""), query("example.org", dns.TypeA, ""),
	} {
		packet := packOf(t, m)
		want := s.Answer(packet, netip.MustParseAddr("127.0.0.1"), UDP)
		for _, octets := range [][]byte{packet[:5], want, packet} { // answers are not answered
			if _, err := client.Write(octets); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := client.Read(buffer); err != nil || !bytes.Equal(buffer[:n], want) {
			t.Errorf("%v: got %x, %v, want %x", m.Question[0], buffer[:n], err, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
