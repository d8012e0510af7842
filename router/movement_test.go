package router

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// clientsIn are random clients of random worlds.
func clientsIn(r *rand.Rand, n int) []netip.Prefix {
	clients := make([]netip.Prefix, n)
	for i := range clients {
		addr := randomAddress(r, netip.MustParsePrefix(randomBases[r.IntN(2)]))
		clients[i] = netip.PrefixFrom(addr, addr.BitLen())
	}
	return clients
}

// TestLossMovesOnlyItsOwnClients takes each PoP of random worlds away, by a verdict and by a drain. Nobody moves but those who
// were sent there; and when it returns, just they come back.
func TestLossMovesOnlyItsOwnClients(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	moved := 0
	for range 60 {
		top := randomTopology(r)
		service := top.Services["intake.example"]
		service.Steering.Answers, service.Steering.Panic = 1, 0
		table, in := compileMap(t, top, randomWorld(r), nil), randomInputs(r, top)
		before := &View{table, NewState(table, in)}
		clients := clientsIn(r, 200)
		for lost := range Choice(table.PoPs()) {
			name, _ := table.PoP(lost)
			if before.State.standing[0][lost] > shared {
				continue
			}
			for _, how := range []string{"verdict", "drain"} {
				changed := in
				if how == "verdict" {
					changed.Verdicts = maps2(in.Verdicts, health.Target{Kind: health.PoP, Name: name}, health.Verdict{Status: health.Down})
				} else {
					changed.Overrides = maps2(in.Overrides, "x", &topology.Override{Kind: topology.Drain, PoP: name, Expires: start.Add(1)})
				}
				after := &View{table, NewState(table, changed)}
				for _, client := range clients {
					was, is := Decide(before, 0, IPv4, client, nil), Decide(after, 0, IPv4, client, nil)
					if was.Fallback != NoFallback || is.Fallback != NoFallback || was.N == 0 {
						continue
					}
					if table.IsVIP(was.Choices[0]) { // whose last announcer this may be
						continue
					}
					if was.Choices[0] != lost && is.Choices != was.Choices {
						t.Fatalf("%s of %s moves %v from %v to %v\n%s", how, name, client, was.Choices[0], is.Choices[0], top.Marshal())
					}
					if was.Choices[0] == lost {
						moved++
					}
				}
			}
		}
	}
	if moved < 1000 {
		t.Errorf("only %d clients moved: this world tells nothing", moved)
	}
}

// maps2 returns a copy of a map with one more entry.
func maps2[K comparable, V any](m map[K]V, key K, value V) map[K]V {
	changed := map[K]V{key: value}
	for k, v := range m {
		if k != key {
			changed[k] = v
		}
	}
	return changed
}

// TestShareMovesAsMuchAsItSays changes a PoP's share by a hundredth, step by step: each step moves about a hundredth of its
// clients, in one direction only.
func TestShareMovesAsMuchAsItSays(t *testing.T) {
	table := compileTest(t, sixPoPs(), networks{{netip.MustParsePrefix("0.0.0.0/1"), singapore}})
	sin, _ := slices.BinarySearchFunc(table.pops, "sin1", func(p tablePoP, name string) int { return map[bool]int{true: -1, false: 1}[p.name < name] })
	const cells = 1 << 16 // split cells
	before := make([]bool, cells)
	for percent := range 101 {
		view := &View{table, NewState(table, Inputs{Shares: map[string]float64{"sin1": float64(percent) / 100}, Now: start})}
		come := 0
		for cell := range cells {
			client := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(cell >> 9), byte(cell >> 1), byte(cell&1) << 7, 1}), 32)
			a := Decide(view, 0, IPv4, client, nil)
			here := a.Choices[0] == Choice(sin)
			if before[cell] && !here {
				t.Fatalf("at %d %% a client leaves", percent)
			}
			if percent > 0 && percent < 100 && a.ScopeBits < splitBits4 {
				t.Fatalf("at %d %% the scope is /%d", percent, a.ScopeBits)
			}
			if here && !before[cell] {
				come++
			}
			before[cell] = here
		}
		want := float64(cells) / 100
		if percent > 0 && math.Abs(float64(come)-want) > 6*math.Sqrt(want) {
			t.Errorf("from %d to %d %%, %d of %d clients move, want about %.0f", percent-1, percent, come, cells, want)
		}
	}
}

// TestEqualsShareTheirClients has PoPs side by side: none starves, even when there are more than a class lists.
func TestEqualsShareTheirClients(t *testing.T) {
	top := sixPoPs()
	for i := range 20 {
		top.PoPs["sin"+string(rune('a'+i))] = pop(singapore, netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}).String())
	}
	r := rand.New(rand.NewPCG(1, 9))
	var geo networks
	for i := range 256 { // places a little apart, which see all PoPs of Singapore equally far
		near := at(1.0+r.Float64()/100, 103.0, "SG")
		geo = append(geo, network{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16), near})
	}
	view := viewOf(compileTest(t, top, geo))
	answered := map[string]int{}
	for range 20_000 {
		addr := randomAddress(r, netip.MustParsePrefix("10.0.0.0/8"))
		names, _ := ask(t, view, IPv4, netip.PrefixFrom(addr, 32).String())
		answered[names[0]]++
	}
	for name := range top.PoPs {
		if name[:3] == "sin" && answered[name] < 300 {
			t.Errorf("%s has %d of 20000 clients, 21 PoPs are equally near", name, answered[name])
		}
	}
}

// TestAnswersDoNotDependOnTheMachine holds a digest of many answers of one view against what it was when it was written down:
// other machines, other numbers of processors and other runs must give the same.
func TestAnswersDoNotDependOnTheMachine(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	digest := fnv.New64a()
	for range 20 {
		top := randomTopology(r)
		view := &View{Table: compileMap(t, top, randomWorld(r), nil)}
		view.State = NewState(view.Table, randomInputs(r, top))
		for _, client := range clientsIn(r, 100) {
			names, a := ask(t, view, Either, client.String())
			for _, name := range names {
				digest.Write([]byte(name))
			}
			digest.Write([]byte{a.ScopeBits, byte(a.Outcome), byte(a.N)})
		}
	}
	const want = 0xe4d14883d57f5e80
	if got := digest.Sum64(); got != want {
		t.Errorf("got %#x, want %#x", got, uint64(want))
	}
}
