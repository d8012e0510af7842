package router_test

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// citylike is a synthetic geo database in the manner of a City one: the networks of the built-in country database, without
// those longer than /24 and /48, divided into about as many as are wanted, each at one of the places of its country, which lie
// around its metros. Neighbours are often at one place, as they are in real ones.
type citylike struct {
	prefixes []netip.Prefix
	places   []*router.Place
}

func (c *citylike) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i, p := range c.prefixes {
			if !yield(p, c.places[i]) {
				return
			}
		}
	}
}

func newCitylike(tb testing.TB, count int) *citylike {
	tb.Helper()
	db, err := geo.Default()
	if err != nil {
		tb.Fatal(err)
	}
	type block struct {
		prefix netip.Prefix
		place  *router.Place
	}
	var blocks []block
	var v4 float64 // addresses
	for prefix, place := range db.Networks() {
		switch {
		case prefix.Addr().Is4() && prefix.Bits() <= 24:
			v4 += math.Exp2(float64(32 - prefix.Bits()))
		case prefix.Addr().Is4() || prefix.Bits() > 48:
			continue
		}
		blocks = append(blocks, block{prefix, place})
	}
	metros := map[string][]topology.Location{}
	for _, m := range rtt.Metros() {
		metros[m.Country] = append(metros[m.Country], m.Location)
	}
	r := rand.New(rand.NewPCG(7, 7))
	inCountry := map[string][]*router.Place{}
	placeIn := func(of *router.Place) *router.Place {
		known := inCountry[of.Country]
		if len(known) > 0 && r.IntN(16) > 0 {
			return known[r.IntN(len(known))]
		}
		at := of.Location
		if near := metros[of.Country]; len(near) > 0 {
			at = near[r.IntN(len(near))]
		}
		made := *of
		made.LatDeg = max(-90, min(90, at.LatDeg+r.NormFloat64()))
		made.LonDeg = max(-180, min(180, at.LonDeg+r.NormFloat64()))
		made.Coarse = false
		inCountry[of.Country] = append(known, &made)
		return &made
	}
	c := &citylike{}
	for _, b := range blocks {
		// IPv4 is divided in proportion to its addresses; IPv6 stays as it is.
		parts := 1
		if b.prefix.Addr().Is4() {
			parts = int(math.Exp2(float64(32-b.prefix.Bits())) / v4 * float64(count-len(blocks)))
		}
		bits := b.prefix.Bits()
		for 1<<(bits-b.prefix.Bits()) < parts && bits < 24 {
			bits++
		}
		place := placeIn(b.place)
		for i := range 1 << (bits - b.prefix.Bits()) {
			prefix := b.prefix
			if b.prefix.Addr().Is4() {
				a := b.prefix.Addr().As4()
				var at [4]byte
				binary.BigEndian.PutUint32(at[:], binary.BigEndian.Uint32(a[:])+uint32(i)<<(32-bits))
				prefix = netip.PrefixFrom(netip.AddrFrom4(at), bits)
			}
			if r.IntN(3) > 0 {
				place = placeIn(b.place)
			}
			c.prefixes, c.places = append(c.prefixes, prefix), append(c.places, place)
		}
	}
	return c
}

// largeTopology has PoPs around the world's metros, and services of so many distinct policies.
func largeTopology(pops, services, policies int) *topology.Topology {
	r := rand.New(rand.NewPCG(3, 3))
	top := &topology.Topology{PoPs: map[string]*topology.PoP{}, Services: map[string]*topology.Service{}}
	metros := rtt.Metros()
	name := func(i int) string { return fmt.Sprintf("pop%03d", i) }
	for i := range pops {
		at := metros[i%len(metros)].Location
		at.LatDeg += r.NormFloat64() * 0.3
		at.LonDeg += r.NormFloat64() * 0.3
		top.PoPs[name(i)] = &topology.PoP{
			Location: at, State: topology.Active, Port: 443, CapacityRPS: 1000,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)})},
		}
	}
	for i := range services {
		p := topology.Policy{Rank: topology.RankByRTT}
		switch i % policies {
		case 1:
			p.Within = topology.Duration(5 * time.Millisecond)
		case 2:
			p.Costs = map[string]topology.Duration{name(0): topology.Duration(20 * time.Millisecond), name(1): topology.Duration(5 * time.Millisecond)}
		case 3:
			p.Rules = []topology.Rule{{Continents: []string{"EU"}, Must: []string{name(1), name(2), name(3)}}, {Countries: []string{"CN"}, MustNot: []string{name(4)}}}
		case 4:
			p.Rank, p.Failover = topology.RankByPredicted, []string{name(7)}
			p.Costs = map[string]topology.Duration{name(9): topology.Duration(time.Millisecond)}
		}
		top.Services[fmt.Sprintf("s%02d.example", i)] = &topology.Service{Steering: topology.Steering{Answers: 1, WhenAllDown: topology.FailOpen, Policy: p}}
	}
	return top
}

var atlases = map[int]*router.Atlas{}

// largeAtlas returns an atlas of about so many prefixes.
func largeAtlas(tb testing.TB, count int) *router.Atlas {
	tb.Helper()
	if atlases[count] == nil {
		atlas, err := router.NewAtlas(newCitylike(tb, count))
		if err != nil {
			tb.Fatal(err)
		}
		atlases[count] = atlas
	}
	return atlases[count]
}

func largeTable(tb testing.TB, pops, prefixes, services, policies int, measured *rtt.Map) *router.Table {
	tb.Helper()
	table, err := router.Compile(&topology.Snapshot{Topology: largeTopology(pops, services, policies)}, largeAtlas(tb, prefixes), measured)
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

// scales are how PoPs, prefixes and distinct policies grow, one at a time, around the largest.
var scales = []struct{ pops, prefixes, policies int }{
	{500, 1_000_000, 5}, {250, 1_000_000, 5}, {50, 1_000_000, 5}, {500, 100_000, 5}, {500, 1_000_000, 1},
}

func BenchmarkCompileLarge(b *testing.B) {
	for _, s := range scales {
		b.Run(fmt.Sprintf("pops=%d/prefixes=%d/policies=%d", s.pops, s.prefixes, s.policies), func(b *testing.B) {
			snap, atlas := &topology.Snapshot{Topology: largeTopology(s.pops, 20, s.policies)}, largeAtlas(b, s.prefixes)
			b.ReportAllocs()
			var table *router.Table
			for b.Loop() {
				var err error
				if table, err = router.Compile(snap, atlas, nil); err != nil {
					b.Fatal(err)
				}
			}
			size := table.Size()
			b.ReportMetric(float64(size.Classes), "classes")
			b.ReportMetric(float64(size.Bytes)/1e6, "table-MB")
			b.ReportMetric(float64(atlas.Places()), "places")
			b.ReportMetric(float64(size.Blocks4+size.Blocks6), "blocks")
		})
	}
}

// clientsOf are random addresses of random IPv4 networks of a database.
func clientsOf(c *citylike, n int) []uint32 {
	r := rand.New(rand.NewPCG(5, 5))
	clients := make([]uint32, n)
	for i := range clients {
		for {
			p := c.prefixes[r.IntN(len(c.prefixes))]
			if !p.Addr().Is4() {
				continue
			}
			a := p.Addr().As4()
			clients[i] = binary.BigEndian.Uint32(a[:]) | r.Uint32()>>p.Bits()
			break
		}
	}
	return clients
}

func slash24(client uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(client >> 24), byte(client >> 16), byte(client >> 8)}), 24)
}

// BenchmarkDecideLarge asks for 4 million different clients, one after the other, so that each finds its own part of the
// table cold, as far as the table is larger than the processor's caches.
func BenchmarkDecideLarge(b *testing.B) {
	for _, s := range scales {
		b.Run(fmt.Sprintf("pops=%d/prefixes=%d/policies=%d", s.pops, s.prefixes, s.policies), func(b *testing.B) {
			table := largeTable(b, s.pops, s.prefixes, 20, s.policies, nil)
			view := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Now()})}
			clients := clientsOf(newCitylike(b, s.prefixes), 1<<22)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				router.Decide(view, router.ServiceID(i%20), router.IPv4, slash24(clients[i&(1<<22-1)]), nil)
				i++
			}
		})
	}
}

func BenchmarkState(b *testing.B) {
	table := largeTable(b, 500, 1_000_000, 20, 5, nil)
	b.ReportAllocs()
	for b.Loop() {
		router.NewState(table, router.Inputs{Now: time.Unix(0, 0)})
	}
}

// BenchmarkDecideMedian times questions one by one, each for a client that is far from the one before, and reports the median
// and the 99th percentile, less what reading the clock takes.
func BenchmarkDecideMedian(b *testing.B) {
	for _, s := range scales {
		b.Run(fmt.Sprintf("pops=%d/prefixes=%d/policies=%d", s.pops, s.prefixes, s.policies), func(b *testing.B) {
			table := largeTable(b, s.pops, s.prefixes, 20, s.policies, nil)
			view := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Now()})}
			clients := clientsOf(newCitylike(b, s.prefixes), 1<<20)
			took, clock := make([]time.Duration, len(clients)), make([]time.Duration, len(clients))
			start := time.Now()
			for b.Loop() {
				for i := range clients {
					before := time.Since(start)
					clock[i] = time.Since(start) - before
				}
				for i, client := range clients {
					prefix := slash24(client)
					before := time.Since(start)
					router.Decide(view, router.ServiceID(i%20), router.IPv4, prefix, nil)
					took[i] = time.Since(start) - before
				}
			}
			slices.Sort(took)
			slices.Sort(clock)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2]-clock[len(clock)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100]-clock[len(clock)/2]), "p99-ns")
		})
	}
}

// BenchmarkSwaps renews the largest table a hundred times, by one edit after the other, while a reader asks at full speed. It
// reports the peak of the process's memory beyond what the inputs take, and how long batches of a thousand questions took at
// the 99th percentile while tables were made, against those of the time before.
func BenchmarkSwaps(b *testing.B) {
	atlas, clients := largeAtlas(b, 1_000_000), clientsOf(newCitylike(b, 1_000_000), 1<<20)
	clear(atlases)
	edits := []*topology.Topology{largeTopology(500, 20, 5), largeTopology(500, 20, 5)}
	live := router.NewLive(atlas)
	runtime.GC()
	debug.FreeOSMemory()
	inputs := residentBytes(b)
	if err := live.Topology(&topology.Snapshot{Topology: edits[0]}, time.Now()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var (
			swapping, stop atomic.Bool
			done           = make(chan struct{})
			batches        [2][]time.Duration
			peak           int
		)
		go func() {
			defer close(done)
			for n := 0; !stop.Load(); n += 1000 {
				in, before := 0, time.Now()
				if swapping.Load() {
					in = 1
				}
				for i := range 1000 {
					router.Decide(live.View(), router.ServiceID(i%20), router.IPv4, slash24(clients[(n+i)&(1<<20-1)]), nil)
				}
				batches[in] = append(batches[in], time.Since(before))
				if n%100_000 == 0 {
					peak = max(peak, residentBytes(b))
				}
			}
		}()
		<-time.After(3 * time.Second)
		swapping.Store(true)
		for i := range 100 {
			if err := live.Topology(&topology.Snapshot{Topology: edits[(i+1)%2]}, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
		stop.Store(true)
		<-done
		p99 := func(batches []time.Duration) float64 {
			slices.Sort(batches)
			return float64(batches[len(batches)*99/100])
		}
		b.ReportMetric(float64(peak-inputs)/(1<<20), "peak-MiB")
		b.ReportMetric(p99(batches[1])/p99(batches[0]), "p99-ratio")
		b.ReportMetric(float64(batches[1][len(batches[1])/2])/float64(batches[0][len(batches[0])/2]), "p50-ratio")
	}
}

// residentBytes is how much memory the process has.
func residentBytes(tb testing.TB) int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Skip(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		tb.Fatal(err)
	}
	return resident * os.Getpagesize()
}

// BenchmarkScopes counts how many different answers a resolver has to keep for a mix of clients, the world's nodes: by the
// scopes of this table, by echoing /24, and by merging networks whose first three choices are the same, as gdnsd does.
func BenchmarkScopes(b *testing.B) {
	country, err := geo.Default()
	if err != nil {
		b.Fatal(err)
	}
	for _, database := range []struct {
		name string
		geo  router.Geo
	}{{"country", country}, {"city", newCitylike(b, 1_000_000)}} {
		atlas, err := router.NewAtlas(database.geo)
		if err != nil {
			b.Fatal(err)
		}
		clients := nodes(b, 200_000)
		for _, pops := range []int{6, 40, 250} {
			b.Run(fmt.Sprintf("%s/pops=%d", database.name, pops), func(b *testing.B) {
				table, err := router.Compile(&topology.Snapshot{Topology: largeTopology(pops, 1, 1)}, atlas, nil)
				if err != nil {
					b.Fatal(err)
				}
				view := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Now()})}
				for b.Loop() {
					var kept [3]map[netip.Prefix]bool
					for i := range kept {
						kept[i] = map[netip.Prefix]bool{}
					}
					for _, client := range clients {
						a := router.Decide(view, 0, router.IPv4, client, nil)
						ours, _ := client.Addr().Prefix(int(a.ScopeBits))
						kept[0][ours], kept[1][client.Masked()] = true, true
						kept[2][router.ScopeOf(table, 0, client.Addr(), min(3, pops))] = true
					}
					b.ReportMetric(float64(len(kept[0])), "answers")
					b.ReportMetric(float64(len(kept[1]))/float64(len(kept[0])), "x-echo/24")
					b.ReportMetric(float64(len(kept[2]))/float64(len(kept[0])), "x-three-choices")
				}
			})
		}
	}
}

// nodes are clients spread over countries as the world's nodes are, and in a country over its addresses.
func nodes(tb testing.TB, n int) []netip.Prefix {
	tb.Helper()
	db, err := geo.Default()
	if err != nil {
		tb.Fatal(err)
	}
	networks, ends := map[string][]netip.Prefix{}, map[string][]int{} // and how many /24 there are up to each
	for prefix, place := range db.Networks() {
		if prefix.Addr().Is4() && prefix.Bits() <= 24 {
			before := 0
			if n := len(ends[place.Country]); n > 0 {
				before = ends[place.Country][n-1]
			}
			networks[place.Country] = append(networks[place.Country], prefix)
			ends[place.Country] = append(ends[place.Country], before+1<<(24-prefix.Bits()))
		}
	}
	var total float64
	for _, m := range rtt.Metros() {
		total += m.Weight
	}
	r := rand.New(rand.NewPCG(8, 8))
	clients := make([]netip.Prefix, 0, n)
	for len(clients) < n {
		at := r.Float64() * total
		for _, m := range rtt.Metros() {
			if at -= m.Weight; at < 0 {
				of, end := networks[m.Country], ends[m.Country]
				i, _ := slices.BinarySearch(end, r.IntN(end[len(end)-1])+1)
				p := of[i]
				a := p.Addr().As4()
				clients = append(clients, slash24(binary.BigEndian.Uint32(a[:])|r.Uint32()>>p.Bits()))
				break
			}
		}
	}
	return clients
}

// BenchmarkDecideAll is BenchmarkDecideLarge in batches of 32, as the DNS server asks.
func BenchmarkDecideAll(b *testing.B) {
	const batch = 32
	for _, s := range scales {
		b.Run(fmt.Sprintf("pops=%d/prefixes=%d/policies=%d", s.pops, s.prefixes, s.policies), func(b *testing.B) {
			table := largeTable(b, s.pops, s.prefixes, 20, s.policies, nil)
			view := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Now()})}
			clients := clientsOf(newCitylike(b, s.prefixes), 1<<22)
			asks, answers := make([]router.Ask, batch), make([]router.Answer, batch)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				asks[i%batch] = router.Ask{Service: router.ServiceID(i % 20), Family: router.IPv4, Client: slash24(clients[i&(1<<22-1)])}
				if i++; i%batch == 0 {
					router.DecideAll(view, asks, answers)
				}
			}
		})
	}
}
