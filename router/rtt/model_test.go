package rtt

import (
	"math"
	"os"
	"testing"

	"github.com/isochrone/isochrone/topology"
)

// places reads testdata/places.csv by IATA code.
func places(t testing.TB) map[string]topology.Location {
	t.Helper()
	rows, err := readTable(os.DirFS("testdata"), "places.csv", 7)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]topology.Location{}
	for _, r := range rows {
		all[r.text[2]] = topology.Location{LatDeg: r.number(3), LonDeg: r.number(4), Country: r.text[1], City: r.text[0]}
	}
	return all
}

func TestGolden(t *testing.T) {
	rows, err := readTable(os.DirFS("testdata"), "model_golden.csv", 4)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 200 {
		t.Fatalf("got %d golden pairs, want 200", len(rows))
	}
	all := places(t)
	m := Default()
	for _, r := range rows {
		a, b, want := all[r.text[0]], all[r.text[1]], r.number(3)
		if got := m.Milliseconds(a, b); math.Abs(got-want) > 0.01 {
			t.Errorf("%s to %s: got %.3f ms, want %.3f", r.text[0], r.text[1], got, want)
		}
		if there, back := m.Milliseconds(a, b), m.Milliseconds(b, a); math.Abs(there-back) > 1e-9 {
			t.Errorf("%s to %s: %v ms there, %v ms back", r.text[0], r.text[1], there, back)
		}
	}
}

func TestSamePlace(t *testing.T) {
	here := topology.Location{LatDeg: 1.29, LonDeg: 103.85, Country: "SG"}
	if got := Default().Milliseconds(here, here); got != 2.5 {
		t.Errorf("got %v ms, want 2.5", got)
	}
}

func TestUnknownCountryHasTheZoneOfItsNearestHub(t *testing.T) {
	m := Default()
	paris, berlin := topology.Location{LatDeg: 48.86, LonDeg: 2.35, Country: "FR"}, topology.Location{LatDeg: 52.52, LonDeg: 13.4, Country: "DE"}
	nowhere := paris
	nowhere.Country = "XX"
	if got, want := m.Milliseconds(nowhere, berlin), m.Milliseconds(paris, berlin); got != want {
		t.Errorf("got %v ms from a country that is not in the tables, want %v", got, want)
	}
}

func TestMetros(t *testing.T) {
	var sum float64
	for _, m := range Metros() {
		if m.Weight <= 0 || m.Country == "" {
			t.Errorf("metro %+v", m)
		}
		sum += m.Weight
	}
	if sum < 0.85 || sum > 1.01 {
		t.Errorf("the weights of %d metros sum to %v", len(Metros()), sum)
	}
}

func TestTargetDoesNotAllocate(t *testing.T) {
	all := places(t)
	to, from := Default().To(all["IAD"]), Default().From(all["SIN"])
	if n := testing.AllocsPerRun(100, func() { to.From(&from) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func BenchmarkModel(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseTables(embeddedTables); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPair(b *testing.B) {
	all := places(b)
	m, sin, iad := Default(), all["SIN"], all["IAD"]
	b.ReportAllocs()
	for b.Loop() {
		m.Milliseconds(sin, iad)
	}
}

func BenchmarkPreparedPair(b *testing.B) {
	all := places(b)
	to, from := Default().To(all["IAD"]), Default().From(all["SIN"])
	b.ReportAllocs()
	for b.Loop() {
		to.From(&from)
	}
}

// Many targets at a time come out as one by one.
func TestTargets(t *testing.T) {
	m := Default()
	var places []topology.Location
	for _, metro := range Metros() {
		places = append(places, metro.Location)
	}
	places = append(places, topology.Location{LatDeg: -54.3, LonDeg: -36.5, Country: "GS"}, topology.Location{LatDeg: 64.1, LonDeg: -21.9, Country: "IS"})
	targets, got := m.Targets(places), make([]uint32, len(places))
	for _, from := range places {
		targets.Microseconds(from, got)
		for i, to := range places {
			if want := m.Milliseconds(from, to) * 1000; math.Abs(float64(got[i])-want) > 0.51 {
				t.Fatalf("from %v to %v: got %d µs, want %.2f", from, to, got[i], want)
			}
		}
	}
}

func BenchmarkTargets(b *testing.B) {
	var places []topology.Location
	for len(places) < 500 {
		for _, metro := range Metros()[:100] {
			places = append(places, metro.Location)
		}
	}
	targets, into := Default().Targets(places), make([]uint32, len(places))
	i := 0
	for b.Loop() {
		targets.Microseconds(places[i%100], into)
		i++
	}
}
