package world

import (
	"os"
	"testing"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// spec is a world of so many PoPs and clients.
func spec(pops, clients int) scenario.World {
	w := scenario.Defaults().World
	w.PoPs, w.Clusters = &scenario.PoPs{Count: pops}, &scenario.Clusters{At: []string{"IAD", "FRA", "SIN"}}
	w.Clients.Count = clients
	return w
}

func build(tb testing.TB, w scenario.World, seed uint64) *World {
	tb.Helper()
	built, err := Build(w, seed)
	if err != nil {
		tb.Fatal(err)
	}
	return built
}

func TestFortyPoPsAreThoseOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/forty-pops.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := topology.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	w := build(t, spec(40, 1000), 1)
	for _, p := range w.PoPs {
		if want.PoPs[p.Name] == nil {
			t.Errorf("%s is not there", p.Name)
		}
	}
}

// BenchmarkBuild makes a world of ten million nodes and 300 PoPs.
func BenchmarkBuild(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		build(b, spec(300, 10_000_000), 1)
	}
}

func BenchmarkRTTs(b *testing.B) {
	w := build(b, spec(300, 1_000_000), 1)
	into, n := make([]uint32, 300), 0
	b.ReportAllocs()
	for b.Loop() {
		w.RTTs(n%len(w.Networks), into)
		n++
	}
}
