package dns

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// manifold is the example world with services of every kind: several answers, rules, a band, a canary, without ECS. It has
// static names too.
func manifold() *topology.Topology {
	world := furnished()
	add := func(name string, change func(*topology.Service)) {
		s := *world.Services[serviceName]
		change(&s)
		world.Services[name+"."+zoneName] = &s
	}
	add("two", func(s *topology.Service) { s.Steering.Answers = 2 })
	add("band", func(s *topology.Service) { s.Steering.Within = topology.Duration(1e9) })
	add("near", func(s *topology.Service) { s.Steering.ECS = topology.IgnoreECS })
	add("rules", func(s *topology.Service) {
		s.Steering.Rules = []topology.Rule{{Countries: []string{"SG"}, Must: []string{"gru1"}}, {Countries: []string{"DE"}, MustNot: topology.ExamplePoPs}}
	})
	add("canary", func(s *topology.Service) {
		s.Steering.Canary = &topology.Canary{Share: 0.5, Policy: topology.Policy{Rank: topology.RankByFailover, Failover: []string{"jnb1"}}}
	})
	add("empty", func(s *topology.Service) { s.PoPs = []string{"nrt1"}; s.Steering.WhenAllDown = topology.FailEmpty })
	return world
}

// quickly asks the fast path alone, by a worker whose time stands still.
func quickly(w *worker, packet []byte, from netip.Addr) (answer []byte, n int) {
	buffer := make([]byte, bufferSize)
	n = w.quick(buffer, copy(buffer, packet), from, UDP)
	return buffer[:max(n, 0)], n
}

// agree holds the fast path's answer to that of the full path, and reports whether the fast path had one.
func agree(t *testing.T, w *worker, packet []byte, from netip.Addr) bool {
	t.Helper()
	w.tick()
	w.q.packet = bytes.Clone(packet)
	var full []byte
	_ = w.full(from, UDP, func(answer []byte) error { // and the fast path knows it from now on
		full = answer
		return nil
	})
	fast, n := quickly(w, packet, from)
	switch {
	case n == fuller:
		return false
	case !bytes.Equal(fast, full):
		t.Errorf("question %x from %v\nfast path %s\nfull path %s", packet, from, hex.EncodeToString(fast), hex.EncodeToString(full))
	}
	return n > 0
}

func TestQuickAgreesWithFull(t *testing.T) {
	for _, verdicts := range []string{"", "sin1", "nrt1"} {
		s := signed(t, manifold(), downed(verdicts), zoneName)
		w := s.newWorker(s.common)
		quick, all := 0, 0
		for name := range s.serving.Load().index.quick {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeMX, dns.TypeSOA, 65280} {
				for _, subnet := range []string{"", "192.0.2.0/24", "198.51.100.7/32", "198.51.0.0/16", "2001:db8:1::/48", "0.0.0.0/0", "::/0"} {
					for _, do := range []bool{false, true} {
						m := query(presentation(name), qtype, subnet)
						if opt := m.IsEdns0(); opt != nil {
							opt.SetDo(do)
						}
						packet, err := m.Pack()
						if err != nil {
							t.Fatal(err)
						}
						packet[headerSize+1] &^= 0x20 // the first letter a capital
						all++
						if agree(t, w, packet, netip.MustParseAddr("198.51.100.9")) {
							quick++
						}
					}
				}
			}
		}
		if quick < all*8/10 {
			t.Errorf("the fast path answered %d of %d questions, want most", quick, all)
		}
	}
}

// FuzzQuickAgainstFull holds the fast path to the bytes of the full path, in a calm world and in those of besettings.
func FuzzQuickAgainstFull(f *testing.F) {
	for _, m := range []*dns.Msg{
		query(serviceName, dns.TypeA, "192.0.2.0/24"), query("two."+zoneName, dns.TypeA, "198.51.100.0/24"), query("Canary."+zoneName, dns.TypeHTTPS, ""),
		query("band."+zoneName, dns.TypeAAAA, "2001:db8:1::/48"), query("sin1."+serviceName, dns.TypeA, ""), query("empty."+zoneName, dns.TypeTXT, "0.0.0.0/0"),
	} {
		for _, do := range []bool{false, true} {
			if opt := m.IsEdns0(); opt != nil {
				opt.SetDo(do)
				opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
			}
			packet, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packet, []byte{192, 0, 2, 1}, uint8(0))
		}
	}
	servers := []*Server{signed(f, manifold(), nil, zoneName)}
	for i, b := range besettings(time.Unix(1_800_000_000, 0)) {
		servers = append(servers, beset(f, b))
		for _, name := range []string{"vip." + zoneName, "hybrid." + zoneName, "two." + zoneName, "panic." + zoneName} {
			f.Add(packOf(f, query(name, familyTypes[i%3], besetClients[len(besetClients)-1-i])), []byte{100, 80, 0, 1}, uint8(i+1))
		}
	}
	f.Fuzz(func(t *testing.T, packet, from []byte, which uint8) {
		addr, ok := netip.AddrFromSlice(from)
		if !ok || len(packet) > bufferSize {
			return
		}
		s := servers[int(which)%len(servers)]
		agree(t, s.newWorker(s.common), packet, addr.Unmap())
		if n := s.Stats()["panics"]; n > 0 {
			t.Fatal("panicked")
		}
	})
}

func BenchmarkQuick(b *testing.B) {
	s := serve(b, manifold(), nil)
	w := s.newWorker(s.common)
	from := netip.MustParseAddr("127.0.0.1")
	for _, bench := range []struct {
		name     string
		question *dns.Msg
	}{
		{"plain", query(serviceName, dns.TypeA, "")},
		{"ECS", query(serviceName, dns.TypeA, "192.0.2.0/24")},
		{"HTTPS", query(serviceName, dns.TypeHTTPS, "192.0.2.0/24")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			packet, _ := bench.question.Pack()
			s.Answer(packet, from, UDP)
			buffer := make([]byte, bufferSize)
			w.tick()
			b.ReportAllocs()
			for b.Loop() {
				if w.quick(buffer, copy(buffer, packet), from, UDP) <= 0 {
					b.Fatal("not answered by the fast path")
				}
			}
		})
	}
}

// BenchmarkFull asks what only the full path can answer: names that do not exist, each another one.
func BenchmarkFull(b *testing.B) {
	s := signed(b, manifold(), nil, zoneName)
	from := netip.MustParseAddr("127.0.0.1")
	for _, do := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "signed"}[do], func(b *testing.B) {
			m := query("xxxxxxxx."+zoneName, dns.TypeA, "")
			m.SetEdns0(1232, do)
			packet, _ := m.Pack()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				copy(packet[headerSize+1:], fmt.Sprintf("%08x", i))
				if s.Answer(packet, from, UDP) == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}

// BenchmarkSwap replaces the view by one with another verdict, as a change of health does.
func BenchmarkSwap(b *testing.B) {
	live := following(b, manifold())
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	live.Prepare(s.Prepare)
	live.Follow(s.Publish)
	verdicts := []health.Verdicts{downed("sin1"), downed("nrt1")}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		live.Verdicts(verdicts[i%2], time.Now())
	}
}
