package topology

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Topology)
		want   []string
	}{
		{"the example", func(*Topology) {}, nil},
		{"some have IPv6", func(x *Topology) { x.PoPs["sin1"].Addresses = addrs("127.0.1.1", "::1") }, []string{
			"services.intake.isochrone.test.pops: only 1 of 6 PoPs have an IPv6 address: clients that use IPv6 are not sent to the others (fra1, gru1, iad1, jnb1, nrt1)",
		}},
		{"of those in use all have it", func(x *Topology) {
			x.Services[ExampleService].PoPs = []string{"sin1", "fra1", "gru1"}
			x.PoPs["sin1"].Addresses, x.PoPs["fra1"].Addresses = addrs("::1"), addrs("::2")
			x.PoPs["gru1"].State = Disabled
		}, nil},
		{"some have IPv4", func(x *Topology) {
			for _, p := range x.PoPs {
				p.Addresses = append(p.Addresses, netip.IPv6LinkLocalAllNodes())
			}
			x.PoPs["sin1"].Addresses = x.PoPs["sin1"].Addresses[1:]
		}, []string{"only 5 of 6 PoPs have an IPv4 address: clients that use IPv4 are not sent to the others (sin1)"}},
		{"some state a capacity", func(x *Topology) { x.PoPs["sin1"].CapacityRPS = 0 }, []string{"only 5 of 6 PoPs state capacity_rps: the others are never held to be full (sin1)"}},
		{"none states a capacity", func(x *Topology) {
			for _, p := range x.PoPs {
				p.CapacityRPS = 0
			}
		}, nil},
		{"a single PoP", func(x *Topology) { x.Services[ExampleService].PoPs = []string{"sin1"} }, []string{"services.intake.isochrone.test.pops: sin1 is the only PoP of the service in use"}},
		{"a single PoP is left", func(x *Topology) {
			x.Services[ExampleService].PoPs = []string{"sin1", "fra1"}
			x.PoPs["fra1"].State = Disabled
		}, []string{"sin1 is the only PoP of the service in use"}},
		{"another sign", func(x *Topology) { x.PoPs["gru1"].Location.LatDeg = 23.5475 }, []string{"pops.gru1.location: lat: 23.5475, lon: -46.6361 is 20", " km away from BR; did you mean lat: -23.5475, lon: -46.6361?"}},
		{"swapped", func(x *Topology) {
			x.Clusters["ap"].Location.LatDeg, x.Clusters["ap"].Location.LonDeg = 82.2783, 22.1747
		}, []string{"clusters.ap.location: lat: 82.2783"}},
		{"another country", func(x *Topology) { x.PoPs["sin1"].Location.Country = "DE" }, []string{"pops.sin1.location: lat: 1.2897, lon: 103.8501 is 9", " km away from DE"}},
		{"no country", func(x *Topology) { x.PoPs["sin1"].Location.Country = "UK" }, []string{`pops.sin1.location.country: "UK" is the code of no country`}},
		{"several", func(x *Topology) {
			x.Services[ExampleService].PoPs = []string{"sin1"}
			x.PoPs["fra1"].Location.Country = "ZZ"
			x.PoPs["gru1"].Location.Country = "NZ"
		}, []string{"pops.fra1.location", "pops.gru1.location", "services.intake"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := example()
			test.change(x)
			warnings := x.Warnings()
			var text strings.Builder
			for _, w := range warnings {
				text.WriteString(w.String() + "\n")
			}
			if len(test.want) == 0 && len(warnings) > 0 || len(test.want) == 3 && len(warnings) != 3 {
				t.Errorf("got %s\nwant %d", text.String(), len(test.want))
			}
			for _, want := range test.want {
				if !strings.Contains(text.String(), want) {
					t.Errorf("got %s\nwant %s", text.String(), want)
				}
			}
		})
	}
}

// TestPlacesOfTheDocsAreInTheirCountries has forty cities all over the world.
func TestPlacesOfTheDocsAreInTheirCountries(t *testing.T) {
	text, err := os.ReadFile("../docs/forty-pops.yaml")
	if err != nil {
		t.Fatal(err)
	}
	x, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range x.Warnings() {
		if strings.HasPrefix(w.Path, "pops.") {
			t.Error(w)
		}
	}
	if len(x.PoPs) != 40 {
		t.Errorf("%d PoPs were tried", len(x.PoPs))
	}
}

func TestExtents(t *testing.T) {
	for _, test := range []struct {
		country  string
		lat, lon float64
		low, far float64 // in km
	}{
		{"SG", 1.35, 103.8, 0, 0},
		{"DE", 50, 8, 0, 0},
		{"US", 21.3, -157.9, 0, 0},          // Honolulu
		{"US", 13.4, 144.8, 3000, 5000},     // Guam has its own code
		{"NZ", -43.9, -176.5, 0, 0},         // the Chatham Islands, over the date line
		{"FJ", -17, 180, 0, 150},            // on it
		{"GB", 1.35, 103.8, 10_000, 11_500}, //
		{"BR", 90, 0, 9000, 10_000},         // from the pole
		{"KI", 1.9, -157.4, 0, 0},           // Kiritimati
		{"FJ", -17.8, -178.5 - 360, 0, 150}, // however often around
		{"GI", 36.14, -5.35, 0, 50},         // a country without a shape
		{"RU", 43.1, 131.9, 0, 0},           // Vladivostok
		{"RU", 40.0, -74.0, 3000, 7000},     // another side of the world
		{"AQ", -90, 0, 0, 0},                //
		{"ES", 28.1, -15.4, 0, 0},           // Las Palmas
		{"PT", 37.7, -25.7, 0, 0},           // Ponta Delgada
		{"NO", 78.2, 15.6, 0, 0},            // Longyearbyen
		{"JP", 26.2, 127.7, 0, 150},         // Naha
		{"CL", -27.1, -109.4, 0, 150},       // Easter Island
		{"XK", 42.7, 21.2, 0, 0},            // Pristina
		{"NZ", 41.3, 174.8, 5000, 9000},     // the sign is wrong
		{"IN", 77.2, 28.6, 4000, 6000},      // swapped
		{"ZA", -26.2, 28.0, 0, 0},           //
		{"AU", -33.9, 151.2, 0, 0},          //
		{"AU", 33.9, 151.2, 4000, 6000},     //
		{"CA", 43.7, -79.4, 0, 0},           //
		{"CA", 43.7, 79.4, 4000, 10_000},    //
		{"HK", 22.3, 114.2, 0, 0},           //
		{"MO", 22.2, 113.5, 0, 50},          //
		{"MT", 35.9, 14.5, 0, 0},            //
		{"TV", -8.5, 179.2, 0, 50},          //
		{"EG", 30.0, 31.2, 0, 0},            //
	} {
		if got := extents()[test.country].distanceKM(test.lat, test.lon); !(got >= test.low && got <= test.far) {
			t.Errorf("%v, %v is %.0f km from %s, want %.0f to %.0f", test.lat, test.lon, got, test.country, test.low, test.far)
		}
	}
}

// TestSnapshotHasWarnings has those of the topology in force, wherever it came from, and those of overrides.
func TestSnapshotHasWarnings(t *testing.T) {
	x := example()
	a := stored(x)
	check := func(snap *Snapshot, want ...string) {
		t.Helper()
		ok := len(snap.Warnings) == len(want) && len(snap.Ignored) == 0
		for i := range snap.Warnings {
			ok = ok && strings.Contains(snap.Warnings[i].String(), want[i])
		}
		if !ok {
			t.Errorf("got %v, ignored %v\nwant %q", snap.Warnings, snap.Ignored, want)
		}
	}
	check(a.Snapshot(1))
	x.PoPs["sin1"].Location.Country = "DE"
	a.Put("topology/pops/sin1", MarshalValue(x.PoPs["sin1"]))
	check(a.Snapshot(2), "pops.sin1.location")
	const rest = ", reason: r, expires: 2030-01-01T00:00:00Z}"
	a.Put("overrides/a", []byte("{schema: 1, kind: drain, pop: mars1"+rest))
	a.Put("overrides/b", []byte("{schema: 1, kind: drain, cluster: moon"+rest))
	a.Put("overrides/c", []byte("{schema: 1, kind: drain, cluster: ap"+rest))
	last := a.Snapshot(3)
	check(last, "overrides.a.pop: has no effect: there is no PoP mars1", "overrides.b.cluster: has no effect: there is no cluster moon", "pops.sin1.location")
	again := NewAssembler(last.Topology, last.Good)
	again.Put("topology/pops/sin1", []byte("{schema: 1, state: asleep}")) // so that the last good one stays in force
	if snap := again.Snapshot(4); len(snap.Faults) == 0 || snap.Hash == last.Hash {
		t.Errorf("faults %v", snap.Faults)
	} else {
		check(snap, "pops.sin1.location")
	}
	x.PoPs["sin1"].Location.Country = "SG"
	a.Put("topology/pops/sin1", MarshalValue(x.PoPs["sin1"]))
	a.Delete("overrides/a")
	check(a.Snapshot(5), "overrides.b.cluster")
}
