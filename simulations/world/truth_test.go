package world

import (
	"hash/fnv"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// sum hashes all that a world says of its networks.
func sum(w *World) uint64 {
	h := fnv.New64a()
	put := func(values ...uint64) {
		for _, v := range values {
			for i := range 8 {
				h.Write([]byte{byte(v >> (8 * i))})
			}
		}
	}
	h.Write(w.Topology.Marshal())
	into := make([]uint32, len(w.PoPs))
	for n, net := range w.Networks {
		put(uint64(net.Nodes), uint64(net.Provider), uint64(net.Resolver), uint64(net.AccessUS), uint64(net.Line), uint64(w.ToResolver(n)))
		w.RTTs(n, into)
		for p, us := range into {
			put(uint64(us), uint64(w.Jitter(n, p, 7)))
		}
		put(uint64(w.Catchment(n, nil, false)), uint64(w.Catchment(n, nil, true)))
	}
	for p := range w.PoPs {
		for c := range w.Clusters {
			put(uint64(w.ToCluster(p, c)))
		}
	}
	for network, place := range (geo{w}).Networks() {
		h.Write([]byte(network.String() + place.City + place.Country))
	}
	return h.Sum64()
}

// TestWorldsAreEqual holds a world to a hash, which any machine and number of cores must give.
func TestWorldsAreEqual(t *testing.T) {
	const want uint64 = 0x425684e1fd599f29
	s := spec(20, 3000)
	s.PoPs.Capacity, s.Clients.Resolvers.Public, s.Clients.Resolvers.ECS, s.Clients.Resolvers.Own = 1.5, 0.3, 0.2, 0.1
	if got := sum(build(t, s, 1)); got != want {
		t.Errorf("got %#x, want %#x: when that is meant, all figures of scenarios change", got, want)
	}
	if sum(build(t, s, 2)) == sum(build(t, s, 1)) {
		t.Error("the seed makes no difference")
	}
}

// TestRoundingIsCoarse holds the tables of fixed-point numbers to values that no machine rounds otherwise: those that floating point gives are
// far from where rounding changes, in units of its precision.
func TestRoundingIsCoarse(t *testing.T) {
	for _, deviation := range []float64{0.11, 0.11 * math.Sqrt(ofNetwork), 0.11 * math.Sqrt(ofProvider), nearBlur, farBlur, 0.2245, 0.6611, 0.6974, 0.7370} {
		for _, z := range normal() {
			v := math.Exp(deviation*z) * (1 << factorBits)
			if _, part := math.Modf(v); math.Abs(part-0.5) < 1e-10*v {
				t.Errorf("deviation %v: %v is rounded by its last bits", deviation, v)
			}
		}
	}
}

// quantilesOf returns quantiles of values with equal weights.
func quantilesOf(values []float64, at ...float64) []float64 {
	slices.Sort(values)
	var q []float64
	for _, p := range at {
		q = append(q, values[int(p*float64(len(values)-1))])
	}
	return q
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s: got %v, want %v ± %v", what, got, want, within)
	}
}

// TestSpread holds the factors of networks and PoPs to their distribution, and to what networks of one provider have in common.
func TestSpread(t *testing.T) {
	s := spec(40, 3000)
	none, all := 0.0, 1.0
	s.Network.Detours = &none
	w := build(t, s, 1)
	s.Network.Spread = &none
	plain := build(t, s, 1)
	var logs []float64
	squares, both := 0.0, 0.0
	for n := 0; n+1 < len(w.Networks); n += 2 {
		for p := range w.PoPs {
			of := func(n int) float64 {
				access := w.Networks[n].AccessUS
				return math.Log(float64(w.RTT(n, p)-access) / float64(plain.RTT(n, p)-access))
			}
			logs = append(logs, of(n))
			if w.Networks[n].Provider == w.Networks[n+1].Provider {
				squares += of(n) * of(n)
				both += of(n) * of(n+1)
			}
		}
	}
	q := quantilesOf(logs, 0.1, 0.5, 0.9)
	near(t, "median", q[1], 0, 0.01)
	near(t, "10 %", q[0], -0.141, 0.01)
	near(t, "90 %", q[2], 0.141, 0.01)
	near(t, "correlation within a provider", both/squares, ofProvider, 0.05)
	s.Network.Detours = &all
	detoured := build(t, s, 1)
	var added []float64
	for n := range w.Networks {
		for p := range w.PoPs {
			added = append(added, float64(detoured.RTT(n, p)-plain.RTT(n, p)))
		}
	}
	q = quantilesOf(added, 0, 0.5, 1)
	near(t, "least detour", q[0], leastDetour, 20)
	near(t, "median detour", q[1], leastDetour+meanDetour*math.Ln2, 1500)
	near(t, "longest detour", q[2], mostDetour, 1)
}

// TestClients holds what clients are to what the scenario says.
func TestClients(t *testing.T) {
	s := spec(20, 60_000)
	s.Clients.Access = []scenario.Access{{Line: "datacentre", Part: 0.4}, {Line: "fibre", Part: 0.2}, {Line: "cable", Part: 0.3}, {Line: "dsl", Part: 0.1}}
	s.Clients.Resolvers = scenario.Resolvers{Own: 0.1, Public: 0.3, ECS: 0.2, At: []string{"SIN", "FRA"}, Farm: 8}
	w := build(t, s, 1)
	parts, access := map[string]float64{}, map[Line][]float64{}
	nodes := 0
	for _, n := range w.Networks {
		nodes += int(n.Nodes)
		part := float64(n.Nodes) / 6e4
		parts[n.Line.String()] += part
		access[n.Line] = append(access[n.Line], float64(n.AccessUS)/1000)
		switch {
		case n.Resolver == Own:
			parts["own"] += part
		case w.Resolvers[n.Resolver].ECS:
			parts["ecs"] += part
		case w.Resolvers[n.Resolver].Public:
			parts["public"] += part
		}
		if n.Nodes > 254 || n.Nodes == 0 {
			t.Fatalf("%d clients in a /24", n.Nodes)
		}
	}
	if nodes != 60_000 || w.Nodes != nodes {
		t.Errorf("got %d clients", nodes)
	}
	for name, want := range map[string]float64{"datacentre": 0.4, "fibre": 0.2, "cable": 0.3, "dsl": 0.1, "own": 0.1, "public": 0.3, "ecs": 0.2} {
		near(t, name, parts[name], want, 0.01)
	}
	near(t, "fibre", quantilesOf(access[Fibre], 0.5)[0], 7.2, 0.2)
	near(t, "cable", quantilesOf(access[Cable], 0.5)[0], 12.3, 0.2)
	near(t, "DSL, 90 %", quantilesOf(access[DSL], 0.9)[0], 44.9, 1)
	all := 0.0
	for _, m := range rtt.Metros() {
		all += m.Weight
	}
	near(t, w.Metros[0].City, float64(w.Metros[0].Nodes), 6e4*rtt.Metros()[0].Weight/all, 2)
}

// TestJitter holds P95 less P50 of paths to what was measured: in the median of paths, and at the 90 % point.
func TestJitter(t *testing.T) {
	s := spec(40, 2000)
	s.Clients.Access = []scenario.Access{{Line: "datacentre", Part: 1}}
	w := build(t, s, 1)
	ranges := [4][]float64{}
	for n := 0; n < len(w.Networks); n += 50 {
		for p := range w.PoPs {
			var samples []float64
			for i := range uint64(400) {
				samples = append(samples, float64(w.Jitter(n, p, i))/1000)
			}
			q := quantilesOf(samples, 0.5, 0.95)
			near(t, "median of samples", q[0], 0, 3)
			band := 0
			for w.RTT(n, p) >= jitterBands[band].below {
				band++
			}
			ranges[band] = append(ranges[band], q[1]-q[0])
		}
	}
	for band, want := range [4][2]float64{{3, 4}, {3, 7}, {4.5, 11}, {7, 18}} {
		q := quantilesOf(ranges[band], 0.5, 0.9)
		near(t, "median of paths", q[0], want[0], 0.15*want[0])
		near(t, "90 % of paths", q[1], want[1], 0.15*want[1])
	}
	off := false
	s.Network.Jitter = &off
	if w := build(t, s, 1); w.Jitter(0, 0, 1) != 0 || w.PathJitter(1000, 1, 1) != 0 {
		t.Error("there is jitter in a world without")
	}
}

// TestCatchment holds anycast to the figures of Calder et al.: about a fifth of the clients 25 ms or more off, a tenth at most 100 ms.
func TestCatchment(t *testing.T) {
	for seed := range uint64(3) {
		w := build(t, spec(40, 20_000), seed)
		far, veryFar := 0.0, 0.0
		for n, net := range w.Networks {
			_, best := w.Best(n, nil)
			off := w.RTT(n, w.Catchment(n, nil, false)) - best
			if off >= 25_000 {
				far += float64(net.Nodes) / 2e4
			}
			if off >= 100_000 {
				veryFar += float64(net.Nodes) / 2e4
			}
		}
		near(t, "25 ms or more off", far, 0.2, 0.02)
		near(t, "100 ms or more off", veryFar, 0.09, 0.02)
	}
	w := build(t, spec(3, 1000), 1)
	up := []bool{true, true, true}
	first := w.Catchment(5, up, false)
	up[first] = false
	second := w.Catchment(5, up, false)
	if second == first || second != w.Catchment(5, nil, true) {
		t.Errorf("from %d to %d without it, and to %d by a flip", first, second, w.Catchment(5, nil, true))
	}
	clear(up)
	if got := w.Catchment(5, up, false); got != -1 {
		t.Errorf("got %d where nobody announces", got)
	}
	flipped := 0.0
	for n, net := range w.Networks {
		if w.Flipped(n, 0, 0.3) {
			flipped += float64(net.Nodes)
		}
	}
	near(t, "flipped", flipped/1000, 0.3, 0.12)
}

// TestTruthOutlivesOtherPoPs adds PoPs: what is true of the others stays.
func TestTruthOutlivesOtherPoPs(t *testing.T) {
	few, many := build(t, spec(10, 1000), 1), build(t, spec(130, 1000), 1)
	for a, pop := range few.PoPs {
		b, ok := many.PoP(pop.Name)
		if !ok {
			t.Fatalf("%s is not among more PoPs", pop.Name)
		}
		for n := range few.Networks {
			if few.RTT(n, a) != many.RTT(n, b) || few.Jitter(n, a, 3) != many.Jitter(n, b, 3) {
				t.Fatalf("network %d to %s: %d and %d µs", n, pop.Name, few.RTT(n, a), many.RTT(n, b))
			}
		}
	}
	if _, ok := many.PoP("iad2"); !ok {
		t.Error("where most clients are there is one PoP of 130")
	}
}

// TestLinks gives the ways of single links and of a matrix.
func TestLinks(t *testing.T) {
	s := spec(10, 5000)
	s.Clients.Near = []scenario.Weight{{Place: "SIN", Weight: 1}, {Place: "FRA", Weight: 1}}
	s.Clients.Access = []scenario.Access{{Line: "datacentre", Part: 1}}
	s.PoPs = &scenario.PoPs{At: []string{"SIN", "IAD", "FRA"}}
	s.Network.RTT = map[string]scenario.Duration{"iad,SIN": scenario.Duration(230_000_000)}
	m, err := scenario.ParseMatrix([]byte("from,to,rtt_ms\nfra1,Singapore,170\nsin1,iad,200\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.Network.Measured = m
	w := build(t, s, 1)
	iad, _ := w.PoP("iad1")
	fra, _ := w.PoP("fra1")
	sin, _ := w.PoP("sin1")
	var toFra []float64
	for n := range w.Networks {
		if w.Metro(n).IATA != "SIN" {
			continue
		}
		if got := w.RTT(n, iad); got != 230_000 {
			t.Fatalf("network %d: got %d µs, want 230000", n, got)
		}
		toFra = append(toFra, float64(w.RTT(n, fra))/1000)
	}
	near(t, "Singapore to Frankfurt", quantilesOf(toFra, 0.5)[0], 170, 20)
	if slices.Min(toFra) == slices.Max(toFra) {
		t.Error("networks do not differ")
	}
	cluster := slices.IndexFunc(w.Clusters, func(c Site) bool { return c.Name == "iad" })
	if got := w.ToCluster(sin, cluster); got != 230_000 || w.Between(sin, iad) != w.Between(iad, sin) {
		t.Errorf("PoP to cluster: got %d µs", got)
	}
}

// TestAtlas holds what the geo database says to how it errs.
func TestAtlas(t *testing.T) {
	for kind, want := range map[scenario.GeoKind][2]float64{scenario.GeoExact: {1, 1}, scenario.GeoCity: {0.8, 0.98}, scenario.GeoCountry: {0, 0.98}} {
		s := spec(5, 40_000)
		s.Geo = kind
		w := build(t, s, 1)
		city, country, all := 0.0, 0.0, 0.0
		i := -1
		for network, place := range (geo{w}).Networks() {
			if network.Addr().As4()[0] < 20 {
				continue
			}
			if i++; network != scenario.Prefix(i) {
				t.Fatalf("network %d is %v", i, network)
			}
			nodes, m := float64(w.Networks[i].Nodes), w.Metro(i)
			all += nodes
			if place.Location == m.Location {
				city += nodes
			}
			if place.Country == m.Country {
				country += nodes
			}
			if place.Continent == "" {
				t.Fatalf("%v has no continent", place)
			}
		}
		near(t, string(kind)+": city", city/all, want[0], 0.02)
		near(t, string(kind)+": country", country/all, want[1], 0.01)
	}
}

// TestDecide steers a world's clients by the real router: by what it knows, most come to a PoP near their best, and some do not.
func TestDecide(t *testing.T) {
	w := build(t, spec(12, 2000), 1)
	table, err := router.Compile(&topology.Snapshot{Topology: w.Topology}, w.Atlas, nil)
	if err != nil {
		t.Fatal(err)
	}
	service, ok := table.Service(w.Service)
	if !ok {
		t.Fatal("the service is not in the table")
	}
	view := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: scenario.Now})}
	good, off := 0, 0
	for n := range w.Networks {
		answer := router.Decide(view, service, router.IPv4, scenario.Prefix(n), nil)
		if name, _ := table.PoP(answer.Choices[0]); name != w.PoPs[answer.Choices[0]].Name {
			t.Fatal("choices are numbered in another order")
		}
		_, best := w.Best(n, nil)
		switch us := w.RTT(n, int(answer.Choices[0])); {
		case us == best:
			good++
		case us > best+50_000:
			off++
		}
	}
	if part := float64(good) / float64(len(w.Networks)); part < 0.7 || part > 0.95 {
		t.Errorf("%v of the clients come to their best PoP", part)
	}
	if off == 0 || off > len(w.Networks)/10 {
		t.Errorf("%d of %d clients are 50 ms off", off, len(w.Networks))
	}
	s := spec(3, 10)
	s.Policy = &topology.Policy{Rank: topology.RankByRTT, Anycast: &topology.Anycast{Mode: topology.AnycastAll, VIPs: []netip.Addr{VIP}}}
	if w := build(t, s, 1); len(w.Topology.Services[w.Service].Steering.Anycast.Announcers(w.Topology)) != 3 {
		t.Error("not all PoPs announce the VIP")
	}
}

func TestBuildRefuses(t *testing.T) {
	s := spec(3, 10)
	s.PoPs.Capacity, s.PoPs.Shares = 1, map[string]float64{"xyz1": 0.5}
	if _, err := Build(s, 1); err == nil {
		t.Error("shares of a PoP that is not there are taken")
	}
	s = spec(3, 10)
	s.Policy = &topology.Policy{Failover: []string{"xyz1"}, Rank: topology.RankByFailover}
	if _, err := Build(s, 1); err == nil {
		t.Error("a policy that names a PoP that is not there is taken")
	}
	w := build(t, spec(3, 10), 1)
	if got := w.Check([]scenario.Event{{Lose: []string{"xyz1", scenario.Largest}}, {Partition: []string{"EU", "iad", w.PoPs[0].Name}}}); len(got) != 1 {
		t.Errorf("got faults %v, want one", got)
	}
}

// TestCapacities divides what there is.
func TestCapacities(t *testing.T) {
	s := spec(30, 20_000)
	s.PoPs.Capacity, s.PoPs.Shares = 1.5, map[string]float64{"iad1": 0.2}
	w := build(t, s, 1)
	sum := 0
	for _, p := range w.Topology.PoPs {
		sum += p.CapacityRPS
	}
	near(t, "all together", float64(sum), 1.5*20_000*0.02, 30)
	near(t, "iad1", float64(w.Topology.PoPs["iad1"].CapacityRPS), 0.2*600, 1)
}

// TestManyCores asks one world from several goroutines.
func TestManyCores(t *testing.T) {
	w := build(t, spec(10, 500), 1)
	want := sum(w)
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 {
		group.Go(func() {
			if sum(w) != want {
				t.Error("another sum")
			}
		})
	}
	group.Wait()
}

func TestNothingIsAllocated(t *testing.T) {
	w := build(t, spec(40, 5000), 1)
	into := make([]uint32, len(w.PoPs))
	if n := testing.AllocsPerRun(100, func() {
		w.RTTs(3, into)
		w.RTT(3, 4)
		w.Best(3, nil)
		w.Catchment(3, nil, true)
		w.Jitter(3, 4, 5)
		w.Flipped(3, 1, 0.5)
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
