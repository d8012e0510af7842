package whatif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// metros is a geo database with a /16 for each of the world's metros.
type metros struct{}

func (metros) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i, m := range rtt.Metros() {
			if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i)}), 16), &router.Place{Location: m.Location, Continent: "EU"}) {
				return
			}
		}
	}
}

func world(pops int, answers int) *topology.Topology {
	top := &topology.Topology{PoPs: map[string]*topology.PoP{}, Services: map[string]*topology.Service{
		"s.example": {Steering: topology.Steering{Answers: answers, WhenAllDown: topology.FailOpen, Policy: topology.Policy{Rank: topology.RankByRTT}}},
	}}
	for i := range pops {
		top.PoPs[fmt.Sprintf("pop%03d", i)] = &topology.PoP{
			Location: rtt.Metros()[i%len(rtt.Metros())].Location, State: topology.Active, CapacityRPS: 2000,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})},
		}
	}
	return top
}

func view(tb testing.TB, atlas *router.Atlas, top *topology.Topology) *router.View {
	tb.Helper()
	table, err := router.Compile(&topology.Snapshot{Topology: top}, atlas, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Unix(0, 0)})}
}

func population(n int) []Demand {
	r := rand.New(rand.NewPCG(1, 1))
	all := make([]Demand, n)
	for i := range all {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 20<<24|r.Uint32N(uint32(len(rtt.Metros()))<<16))
		all[i] = Demand{netip.PrefixFrom(netip.AddrFrom4(b), 24).Masked(), float64(1+r.IntN(9)) * 1000 / float64(n)}
	}
	return all
}

// TestCompare counts by hand: client by client, PoP by PoP.
func TestCompare(t *testing.T) {
	atlas, err := router.NewAtlas(metros{})
	if err != nil {
		t.Fatal(err)
	}
	for _, answers := range []int{1, 2} {
		old, planned := world(12, answers), world(14, answers) // two PoPs more,
		planned.PoPs["pop003"].State = topology.Draining       // and one less
		before, after := view(t, atlas, old), view(t, atlas, planned)
		clients := population(3000)
		got, err := Compare(before, after, "s.example", router.IPv4, clients)
		if err != nil {
			t.Fatal(err)
		}
		loads, moved, weight := [2]map[string]float64{{}, {}}, 0.0, 0.0
		lost := map[string]map[string]float64{}
		without := map[string]*router.View{}
		for name := range planned.PoPs {
			without[name] = &router.View{Table: after.Table, State: after.State.Without(after.Table, name)}
		}
		var direct []float64
		for _, d := range clients {
			weight += d.Weight
			var names [2][]string
			for i, v := range []*router.View{before, after} {
				names[i] = ask(v, d.Client)
				for _, name := range names[i] {
					loads[i][name] += d.Weight / float64(len(names[i]))
				}
			}
			for _, name := range names[0] {
				if !slices.Contains(names[1], name) {
					moved += d.Weight / float64(answers)
				}
			}
			_, place := after.Table.Location(d.Client.Addr())
			ms := rtt.Default().Milliseconds(place.Location, planned.PoPs[names[1][0]].Location)
			direct = append(direct, slices.Repeat([]float64{ms}, int(math.Round(d.Weight*3)))...) // weights are thirds
			for _, name := range names[1] {
				if lost[name] == nil {
					lost[name] = map[string]float64{}
				}
				for _, other := range ask(without[name], d.Client) {
					lost[name][other] += d.Weight / float64(answers)
				}
				for _, own := range names[1] {
					lost[name][own] -= d.Weight / float64(answers)
				}
			}
		}
		near := func(what string, got, want float64) {
			t.Helper()
			if math.Abs(got-want) > 1e-6*max(1, want) {
				t.Errorf("%d answers: %s: got %v, want %v", answers, what, got, want)
			}
		}
		near("weight", got.Weight, weight)
		near("moved", got.Moved, moved)
		var byMoves float64
		for _, m := range got.Moves {
			byMoves += m.Weight
		}
		near("sum of moves", byMoves, moved)
		for name, load := range got.PoPs {
			near("load of "+name+" before", load.Before, loads[0][name])
			near("load of "+name+" after", load.After, loads[1][name])
		}
		if len(got.Losses) != 13 {
			t.Errorf("%d answers: got %d losses, want 13: all but the drained one", answers, len(got.Losses))
		}
		for name, loss := range got.Losses {
			var worst float64
			for other := range planned.PoPs {
				worst = max(worst, (loads[1][other]+lost[name][other])/2000)
			}
			near("worst load without "+name, loss.Worst, worst)
			near("moved without "+name, loss.Moved, loads[1][name])
			if (worst > 1) != (len(loss.Overloaded) > 0) {
				t.Errorf("without %s: worst load %v, overloaded %v", name, worst, loss.Overloaded)
			}
		}
		if answers == 1 {
			slices.Sort(direct)
			if want := direct[len(direct)*95/100]; math.Abs(got.World.P95[1]-want) > binMS {
				t.Errorf("p95 after: got %v, want %v", got.World.P95[1], want)
			}
		}
	}
	if _, err := Compare(view(t, atlas, world(2, 1)), view(t, atlas, world(2, 1)), "other.example", router.IPv4, nil); !errors.Is(err, ErrNoService) {
		t.Errorf("got %v, want ErrNoService", err)
	}
}

func ask(v *router.View, client netip.Prefix) []string {
	id, _ := v.Table.Service("s.example")
	a := router.Decide(v, id, router.IPv4, client, nil)
	var names []string
	for _, c := range a.Choices[:a.N] {
		name, _ := v.Table.PoP(c)
		names = append(names, name)
	}
	return names
}

func TestNothingChanges(t *testing.T) {
	atlas, err := router.NewAtlas(metros{})
	if err != nil {
		t.Fatal(err)
	}
	v := view(t, atlas, world(30, 1))
	got, err := Compare(v, v, "s.example", router.IPv4, population(500))
	if err != nil || got.Moved != 0 || len(got.Moves) != 0 || got.World.P50[0] != got.World.P50[1] {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Compare(v, v, "s.example", router.IPv4, nil); err != nil {
		t.Errorf("nobody: %v", err)
	}
}

// BenchmarkCompare plans an edit of 250 PoPs for a million prefixes, with each single loss.
func BenchmarkCompare(b *testing.B) {
	for _, s := range []struct{ pops, prefixes int }{{250, 1_000_000}, {250, 100_000}, {50, 1_000_000}} {
		b.Run(fmt.Sprintf("pops=%d/prefixes=%d", s.pops, s.prefixes), func(b *testing.B) {
			atlas, err := router.NewAtlas(metros{})
			if err != nil {
				b.Fatal(err)
			}
			planned := world(s.pops, 1)
			planned.PoPs["pop003"].State = topology.Draining
			before, after, clients := view(b, atlas, world(s.pops, 1)), view(b, atlas, planned), population(s.prefixes)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compare(before, after, "s.example", router.IPv4, clients); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
