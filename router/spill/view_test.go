package spill

import (
	"encoding/binary"
	"iter"
	"math"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// metros is a geo database with a /10 for each of the world's metros, so that a metro's clients are in 1,024 buckets.
type metros struct{}

func metro(i int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(i+4)<<22)
	return netip.PrefixFrom(netip.AddrFrom4(b), 10)
}

func (metros) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i, m := range rtt.Metros() {
			if !yield(metro(i), &router.Place{Location: m.Location}) {
				return
			}
		}
	}
}

// fortyView compiles the forty PoPs.
func fortyView(tb testing.TB, answers int) *router.View {
	tb.Helper()
	text, err := os.ReadFile("../../docs/forty-pops.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	top, err := topology.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	for _, service := range top.Services {
		service.Steering.Answers = answers
	}
	atlas, err := router.NewAtlas(metros{})
	if err != nil {
		tb.Fatal(err)
	}
	table, err := router.Compile(&topology.Snapshot{Topology: top}, atlas, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Unix(0, 0)})}
}

// metroDemand is what the metros' clients ask for, 1 in all.
func metroDemand() []Demand {
	var demand []Demand
	sum := 0.0
	for _, m := range rtt.Metros() {
		sum += m.Weight
	}
	for i, m := range rtt.Metros() {
		demand = append(demand, Demand{Client: metro(i), RPS: m.Weight / sum})
	}
	return demand
}

// realised is what PoPs get when all buckets are decided.
func realised(v *router.View, w *World, demand []Demand) []float64 {
	index := map[string]int{}
	for p, pop := range w.PoPs {
		index[pop.Name] = p
	}
	loads := make([]float64, len(w.PoPs))
	for _, d := range demand {
		first := binary.BigEndian.Uint32(d.Client.Addr().AsSlice())
		for bucket := range uint32(1024) {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], first+bucket<<12)
			a := router.Decide(v, d.Service, router.IPv4, netip.PrefixFrom(netip.AddrFrom4(b), 32), nil)
			for _, c := range a.Choices[:a.N] {
				name, _ := v.Table.PoP(c)
				if v.Table.IsVIP(c) { // the nearest announcer gets it
					for _, next := range v.Table.Orders(d.Service, router.IPv4, d.Client.Addr())[0].Choices[1:] {
						if slices.Contains(v.Table.Announcers(c), next) {
							name, _ = v.Table.PoP(next)
							break
						}
					}
				}
				loads[index[name]] += d.RPS / 1024 / float64(a.N)
			}
		}
	}
	return loads
}

// TestDecideDoesWhatIsPlanned gives PoPs about as much capacity as the world needs, plans shares, and asks for every bucket of the world: each PoP
// gets what the plan says, in the full world and after losses, when answers name one PoP and when they name two.
func TestDecideDoesWhatIsPlanned(t *testing.T) {
	for _, answers := range []int{1, 2} {
		v := fortyView(t, answers)
		demand := metroDemand()
		w := NewWorld(v, nil, demand)
		w.capacities(0.75, 1)
		shares, report := Plan(w, router.Spill{}, Options{Fill: 1})
		if report.Why != "overload" || report.Over > 1e-6 || len(shares.Takes) == 0 {
			t.Fatalf("%d answers: got %q, %v over capacity, %d shares", answers, report.Why, report.Over, len(shares.Takes))
		}
		plain := realised(v, w, demand)
		for lost := -1; lost < len(w.PoPs); lost += 10 {
			in := router.Inputs{Spill: shares, Now: time.Unix(0, 0)}
			if lost >= 0 {
				in.Verdicts = health.Verdicts{{Kind: health.PoP, Name: w.PoPs[lost].Name}: {Status: health.Down}}
			}
			want, _ := Flows(w, shares, lost)
			got := realised(&router.View{Table: v.Table, State: router.NewState(v.Table, in)}, w, demand)
			far, without := 0.0, 0.0
			for p := range want {
				far += math.Abs(got[p]-want[p]) / 2
				without += math.Abs(plain[p]-want[p]) / 2
				if d := math.Abs(got[p] - want[p]); d > 0.005 {
					t.Errorf("%d answers, %d lost: %s gets %.4f of the world, planned %.4f", answers, lost, w.PoPs[p].Name, got[p], want[p])
				}
			}
			if far > 0.015 || far > without/5 {
				t.Errorf("%d answers, %d lost: %.4f of the world goes otherwise than planned; without shares %.4f would", answers, lost, far, without)
			}
			t.Logf("%d answers, %d lost: %.4f goes otherwise, %.4f without shares", answers, lost, far, without)
		}
	}
}

// TestWorldsAreWhatIsDecided has policies and decisions that say who gets what besides shares: with shares and without, PoPs get what a world of them says.
func TestWorldsAreWhatIsDecided(t *testing.T) {
	t.Parallel()
	plain := fortyView(t, 1)
	demand := metroDemand()
	w := NewWorld(plain, nil, demand)
	w.capacities(0.75, 1)
	shares, _ := Plan(w, noShares, Options{Fill: 1})
	half := 0.5
	expires := time.Unix(1<<40, 0)
	pin := map[string]*topology.Override{"pin": {Kind: topology.Pin, PoP: "fra1", Share: &half, Expires: expires}}
	drain := map[string]*topology.Override{"drain": {Kind: topology.Drain, PoP: "fra1", Expires: expires}}
	for name, test := range map[string]struct {
		steering  func(*topology.Steering)
		overrides map[string]*topology.Override
	}{
		"groups": {func(s *topology.Steering) {
			s.Within, s.Weights = topology.Duration(10*time.Millisecond), map[string]int{"fra1": 3}
		}, nil},
		"a canary": {func(s *topology.Steering) {
			s.Canary = &topology.Canary{Share: 0.3, Policy: topology.Policy{Rank: topology.RankByFailover, Failover: []string{"sin1"}}}
		}, nil},
		"a pinned share":      {nil, pin},
		"a drain":             {nil, drain},
		"services without it": {func(s *topology.Steering) { s.Spill = &topology.Spill{Off: true} }, nil},
		"VIPs":                {func(s *topology.Steering) { s.Anycast = &topology.Anycast{Mode: topology.AnycastAll, VIPs: vips} }, nil},
	} {
		top := announcing(plain.Table.Snapshot().Topology, "fra1", "iad1", "sin1")
		for service, s := range top.Services {
			changed := *s
			if test.steering != nil {
				test.steering(&changed.Steering)
			}
			top = top.With(map[topology.Ref]topology.Object{{Kind: topology.Services, Name: service}: &changed}, nil)
		}
		table, err := router.Compile(&topology.Snapshot{Topology: top}, plain.Table.Atlas(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for with, s := range map[string]router.Spill{"without shares": {}, "with shares": shares} {
			v := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Unix(0, 0), Spill: s, Overrides: test.overrides})}
			world := NewWorld(v, nil, demand)
			in := s
			in.Takes = s.InForce(world.Away)
			want, _ := Flows(world, in, -1)
			got := realised(v, world, demand)
			far := 0.0
			for p := range want {
				far += math.Abs(got[p]-want[p]) / 2
			}
			if far > 0.025 {
				t.Errorf("%s, %s: %.4f of the world goes otherwise than the world says", name, with, far)
			}
		}
	}
}

var vips = []netip.Addr{netip.MustParseAddr("198.51.100.1")}

// announcing returns a topology in which some PoPs announce VIPs.
func announcing(top *topology.Topology, names ...string) *topology.Topology {
	for _, name := range names {
		pop := *top.PoPs[name]
		pop.VIPs = vips
		top = top.With(map[topology.Ref]topology.Object{{Kind: topology.PoPs, Name: name}: &pop}, nil)
	}
	return top
}
