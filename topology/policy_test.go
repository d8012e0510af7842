package topology

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// documented is the steering block of docs/topology.md.
func documented(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/topology.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(steering:\n.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/topology.md has no steering block")
	}
	return string(block[1])
}

// with puts a steering block into a small world.
func with(steering string) string {
	return `schema: 1
zones: {isochrone.test: {nameservers: {ns1.isochrone.test: [192.0.2.53]}, hostmaster: hostmaster.isochrone.test}}
pops:
  sin1: {location: {lat: 1, lon: 103, country: SG}, addresses: [192.0.2.1]}
  fra1: {location: {lat: 50, lon: 8, country: DE}, addresses: [192.0.2.2]}
  iad1: {location: {lat: 39, lon: -77, country: US}, addresses: [192.0.2.3]}
  gru1: {location: {lat: -23, lon: -46, country: BR}, addresses: [192.0.2.4]}
clusters: {us: {location: {lat: 39, lon: -77, country: US}, endpoints: ["https://us.example.net"]}}
services:
  intake.isochrone.test:
    ` + strings.ReplaceAll(strings.TrimSpace(steering), "\n", "\n    ") + "\n"
}

func TestPolicyAsDocumented(t *testing.T) {
	want, err := Parse([]byte(with(documented(t))))
	if err != nil {
		t.Fatal(err)
	}
	if faults := want.Validate(); len(faults) > 0 {
		t.Errorf("got faults %v", faults)
	}
	s := want.Services["intake.isochrone.test"].Steering
	if s.Within != Duration(5*time.Millisecond) || s.Weights["sin1"] != 3 || len(s.Rules) != 3 || s.Rules[1].ASNs[0] != 64500 || s.Canary.Share != 0.05 ||
		s.Canary.Rank != RankByPredicted || s.Panic != 30 || len(s.Pools["last"]) != 2 || s.Rules[1].Prefixes[0] != netip.MustParsePrefix("203.0.113.0/24") {
		t.Errorf("got %+v", s)
	}
	options := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreUnexported(Zone{})}
	text := want.Marshal()
	got, err := Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got, options); diff != "" || !bytes.Equal(got.Marshal(), text) {
		t.Errorf("after writing and reading (-want +got):\n%s", diff)
	}
	asJSON, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = Parse(asJSON); err != nil {
		t.Fatalf("%v\n%s", err, asJSON)
	}
	if diff := cmp.Diff(want, got, options); diff != "" {
		t.Errorf("after writing and reading JSON (-want +got):\n%s", diff)
	}
}

func TestPolicyFaults(t *testing.T) {
	for _, test := range []struct{ steering, want string }{
		{"rank: nearest", `steering.rank: "nearest" is not one of`},
		{"rank: failover", "steering.failover: is empty, and rank is failover"},
		{"within: 2s", "steering.within: 2s is not in 0s..1s"},
		{"within: 5", `"5" is not a duration`},
		{"weights: {sin1: 0}", "steering.weights.sin1: 0 is not in 1..1000"},
		{"weights: {mars1: 1}", `steering.weights[0]: there is no PoP of the service "mars1"`},
		{"costs: {sin1: -1ms}", "steering.costs.sin1: -1ms is not in 0s..10s"},
		{"when_all_down: pool:last", `there is no pool "last"`},
		{"when_all_down: closed", `"closed" is not open, empty or pool:NAME`},
		{"panic: 101", "steering.panic: 101 is not in 0..100"},
		{"spill: {fill: 1.1}", "steering.spill.fill: 1.1 is not in 0..1"},
		{"spill: {max_move: -0.1}", "steering.spill.max_move: -0.1 is not in 0..1"},
		{"spill: {fill: 0.7, return: 0.8}", "steering.spill.return: 0.8 is more than fill, 0.7"},
		{"spill: {filled: 1}", "steering.spill.filled: unknown key"},
		{"rules: [{countries: [sg], must: [sin1]}]", `steering.rules[0].countries[0]: "sg" is not a country code`},
		{"rules: [{continents: [XX], must: [sin1]}]", `steering.rules[0].continents[0]: "XX" is not one of`},
		{"rules: [{prefixes: [203.0.113.1/24], must: [sin1]}]", "steering.rules[0].prefixes[0]: 203.0.113.1/24 is not in its canonical form, which is 203.0.113.0/24"},
		{"rules: [{prefixes: [203.0.113.1], must: [sin1]}]", `"203.0.113.1" is not a prefix such as`},
		{"rules: [{asns: [-1], must: [sin1]}]", `"-1" is not a whole number in 0..4294967295`},
		{"rules: [{countries: [SG]}]", "steering.rules[0]: does nothing"},
		{"rules: [{countries: [SG], must: [mars1]}]", `steering.rules[0].must[0]: there is no PoP of the service "mars1"`},
		{"rules: [{country: [SG], must: [sin1]}]", "steering.rules[0].country: unknown key; did you mean countries?"},
		{"canary: {share: 1.5}", "steering.canary.share: 1.5 is not in 0..1"},
		{"canary: {share: 0.1, failover: [mars1]}", `steering.canary.failover[0]: there is no PoP of the service "mars1"`},
		{"pools: {last: [mars1]}", `steering.pools.last[0]: there is no PoP of the service "mars1"`},
	} {
		top, err := Parse([]byte(with("steering: {" + test.steering + "}")))
		if err == nil {
			if faults := top.Validate(); len(faults) > 0 {
				err = &InvalidError{faults}
			}
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.steering, err, test.want)
		}
	}
}

func TestServiceAnycast(t *testing.T) {
	const world = `schema: 1
zones: {isochrone.test: {nameservers: {ns1.isochrone.test: [192.0.2.53]}, hostmaster: hostmaster.isochrone.test}}
pops:
  sin1: {location: {lat: 1, lon: 103, country: SG}, addresses: [192.0.2.1], vips: [198.51.100.1, "2001:db8::1"], announces: [198.51.100.0/24, "2001:db8::/48"]}
  fra1: {location: {lat: 50, lon: 8, country: DE}, addresses: [192.0.2.2], vips: [198.51.100.1], announces: [198.51.100.0/24]}
  iad1: {location: {lat: 39, lon: -77, country: US}, addresses: [192.0.2.3], vips: [198.51.100.2], announces: [198.51.100.0/24], port: 8443}
  gru1: {location: {lat: 39, lon: -77, country: US}, addresses: [192.0.2.4], vips: [198.51.100.2], announces: [198.51.100.0/24]}
clusters: {us: {location: {lat: 39, lon: -77, country: US}, endpoints: ["https://us.example.net"]}}
services: {intake.isochrone.test: {POPS, steering: {anycast: {ANYCAST}}}}
`
	for _, test := range []struct{ anycast, pops, want string }{
		{"vips: [198.51.100.1]", "pops: [sin1, fra1]", ""},
		{"vips: [198.51.100.1], mode: hybrid, unicast: [203.0.113.0/24]", "pops: [sin1, fra1]", ""},
		{"vips: [198.51.100.1, \"2001:db8::1\"]", "pops: [sin1, fra1]", "pops.fra1 has some of them among its vips, but not 2001:db8::1"},
		{"vips: [198.51.100.1]", "pops: [sin1]", "pops.fra1 has them among its vips, and does not offer the service"},
		{"vips: [198.51.100.2]", "pops: [iad1, gru1]", "pops.gru1 listens on port 443, pops.iad1 on 8443"},
		{"vips: [198.51.100.9]", "pops: [sin1, fra1]", "no PoP has them"},
		{"vips: []", "pops: [sin1, fra1]", "0 is not in 1..4"},
		{"vips: [198.51.100.1], unicast: [203.0.113.0/24]", "pops: [sin1, fra1]", "is for mode hybrid"},
		{"vips: [198.51.100.1], mode: both", "pops: [sin1, fra1]", `"both" is not one of`},
		{"vips: [198.51.100.1], mode: hybrid, unicast: [203.0.113.1/24]", "pops: [sin1, fra1]", "not in its canonical form"},
		{"vips: [198.51.100.1], mode: hybrid, unicast: [203.0.113.0/24, 203.0.113.0/24]", "pops: [sin1, fra1]", "stands here twice"},
	} {
		top, err := Parse([]byte(strings.NewReplacer("POPS", test.pops, "ANYCAST", test.anycast).Replace(world)))
		var faults []Fault
		if err == nil {
			faults = top.Validate()
		}
		got := fmt.Sprint(err, faults)
		if test.want == "" && got != "<nil> []" || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %s, want %q", test.anycast, got, test.want)
		}
	}
}
