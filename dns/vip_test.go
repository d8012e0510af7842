package dns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// TestVIP asks for a service whose address two PoPs announce, and for one that is hybrid. The VIP goes when both are down.
func TestVIP(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::99")}
	world := func(mode topology.AnycastMode, unicast ...netip.Prefix) *topology.Topology {
		w := example()
		for _, name := range []string{"sin1", "fra1"} {
			w.PoPs[name].VIPs, w.PoPs[name].Announces = vips, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/48")}
		}
		w.Services[serviceName].Steering.Anycast = &topology.Anycast{Mode: mode, VIPs: vips, Unicast: unicast}
		if faults := w.Validate(); len(faults) > 0 {
			t.Fatal(faults)
		}
		return w
	}
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	for _, test := range []struct {
		name   string
		world  *topology.Topology
		down   []string
		qtype  uint16
		subnet string
		want   string
	}{
		{"anycast, A", world("anycast"), nil, dns.TypeA, "192.0.2.0/24", "NOERROR aa 20 IN A 198.51.100.1 scope=0"},
		{"anycast, AAAA", world("anycast"), nil, dns.TypeAAAA, "192.0.2.0/24", "NOERROR aa 20 IN AAAA 2001:db8::99 scope=0"},
		{"anycast, one is well", world("anycast"), []string{"sin1"}, dns.TypeA, "192.0.2.0/24", "NOERROR aa 20 IN A 198.51.100.1 scope=0"},
		{"anycast, none is well", world("anycast"), []string{"sin1", "fra1"}, dns.TypeAAAA, "192.0.2.0/24", "NOERROR aa 20 IN AAAA 2001:db8::99 scope=0"},
		{"anycast, only others are well", world("anycast"), []string{"sin1", "fra1"}, dns.TypeA, "192.0.2.0/24", "NOERROR aa 20 IN A 203.0.113.4 scope=24"},
		{"hybrid, A", world("hybrid", prefix), nil, dns.TypeA, "203.0.113.0/24", "NOERROR aa 20 IN A 198.51.100.1 scope=5"},
		{"hybrid, A of the list", world("hybrid", prefix), nil, dns.TypeA, "192.0.2.0/24", "NOERROR aa 20 IN A 203.0.113.1 scope=24"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.world, downed(test.down...))
			if got := summary(ask(t, s, query(serviceName, test.qtype, test.subnet), "192.0.2.9")); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	https := func(w *topology.Topology) *dns.HTTPS {
		m := ask(t, serve(t, w, nil), query(serviceName, dns.TypeHTTPS, "192.0.2.0/24"), "192.0.2.9")
		if len(m.Answer) == 0 {
			t.Fatal(m)
		}
		return m.Answer[0].(*dns.HTTPS)
	}
	if h := https(world("anycast")); h.Target != "." || h.Priority != 1 {
		t.Errorf("got %v, want the name itself", h)
	}
	if h := https(world("hybrid")); h.Target != "sin1."+serviceName+"." {
		t.Errorf("got %v, want a PoP", h)
	}
}
