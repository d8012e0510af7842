package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func example() *Topology {
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), 8443)
	}
	for i, name := range ExampleClusters {
		clusters[name] = fmt.Sprintf("http://127.0.2.%d:8090", i+1)
	}
	return Example(netip.MustParseAddr("127.0.0.1"), pops, clusters)
}

func TestExampleIsValidAndComesBack(t *testing.T) {
	want := example()
	if faults := want.Validate(); len(faults) > 0 {
		t.Errorf("the example world has faults: %v", faults)
	}
	text := want.Marshal()
	got, err := Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreUnexported(Zone{})); diff != "" {
		t.Errorf("after writing and reading (-want +got):\n%s", diff)
	}
	if again := got.Marshal(); !bytes.Equal(again, text) {
		t.Errorf("the second writing differs:\n%s", again)
	}
	asJSON, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = Parse(asJSON); err != nil {
		t.Fatalf("%v\n%s", err, asJSON)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreUnexported(Zone{})); diff != "" {
		t.Errorf("after writing and reading JSON (-want +got):\n%s", diff)
	}
}

func TestParseTellsWhatAndWhere(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "document: is empty"},
		{"no schema", "pops: {}", "schema: is missing: want schema: 1"},
		{"schema too new", "schema: 9", fmt.Sprintf("line 1: schema: 9 is newer than this program knows (%d): upgrade it", SchemaVersion)},
		{"not YAML", "pops: [", "document: not YAML"},
		{"two documents", "schema: 1\n---\nschema: 1\n", "a second document follows"},
		{"unknown key", "schema: 1\npops:\n  sin1:\n    adresses: []\n", "line 4: pops.sin1.adresses: unknown key; did you mean addresses?"},
		{"unknown section", "schema: 1\nfoo: {}\n", "line 2: foo: unknown key; known are clusters, pops, schema, services, zones"},
		{"empty key", "schema: 1\nzones:\n  example.net: {'': {zone: x}}\n", "line 3: zones.example.net: unknown key; known are hostmaster, nameservers, negative_ttl, records, schema, ttl"},
		{"key twice", "schema: 1\nschema: 1\n", "line 2: schema: stands here twice"},
		{"latitude", "schema: 1\npops:\n  sin1:\n    location:\n      lat: 135\n      country: SG\n", "line 5: pops.sin1.location.lat: 135 is not in -90..90"},
		{"not a number", "schema: 1\npops:\n  a:\n    location: {lat: .nan, lon: x, country: SG}\n", `line 4: pops.a.location.lon: "x" is not a number`},
		{"country", "schema: 1\npops:\n  a:\n    location: {country: Singapore}\n", `line 4: pops.a.location.country: "Singapore" is not a country code`},
		{"address", "schema: 1\npops:\n  a:\n    addresses:\n    - 192.0.2.1\n    - 192.0.2.300\n", `line 6: pops.a.addresses[1]: "192.0.2.300" is not an IP address`},
		{"address twice", "schema: 1\npops: {a: {location: {country: SG}, addresses: [192.0.2.1, 192.0.2.1]}}", "line 2: pops.a.addresses[1]: 192.0.2.1 stands here twice"},
		{"port", "schema: 1\npops:\n  a:\n    port: 70000\n", "line 4: pops.a.port: 70000 is out of range: want a whole number in 0..65535"},
		{"state", "schema: 1\npops:\n  a:\n    state: down\n", `line 4: pops.a.state: "down" is not one of ["active" "draining" "disabled"]`},
		{"name", "schema: 1\npops:\n  Sin_1:\n    port: 1\n", `pops.Sin_1: "Sin_1" is not a name`},
		{"duration", "schema: 1\nservices:\n  s.example:\n    steering: {ttl: 20}\n", `line 4: services.s.example.steering.ttl: "20" is not a duration such as 20s`},
		{"endpoint", "schema: 1\nclusters:\n  a:\n    endpoints: [ftp://x]\n", `clusters.a.endpoints[0]: "ftp://x" is not a URL`},
		{"endpoint twice", "schema: 1\nclusters:\n  a:\n    endpoints: ['https://a', 'https://a']\n", `clusters.a.endpoints[1]: "https://a" stands here twice`},
		{"VIP outside", "schema: 1\npops:\n  a:\n    vips: [192.0.2.1]\n    announces: [198.51.100.0/24]\n", `line 4: pops.a.vips[0]: 192.0.2.1 lies in no prefix that the PoP announces ([198.51.100.0/24])`},
		{"VIP twice", "schema: 1\npops:\n  a:\n    vips: [192.0.2.1, 192.0.2.1]\n    announces: [192.0.2.0/24]\n", `pops.a.vips[1]: 192.0.2.1 stands here twice`},
		{"prefix twice", "schema: 1\npops:\n  a:\n    announces: [192.0.2.0/24, 192.0.2.0/24]\n", `pops.a.announces[1]: 192.0.2.0/24 stands here twice`},
		{"prefix with a host", "schema: 1\npops:\n  a:\n    announces: [192.0.2.1/24]\n", `pops.a.announces[0]: 192.0.2.1/24 is not in its canonical form, which is 192.0.2.0/24`},
		{"VIP in IPv6 form", "schema: 1\npops:\n  a:\n    vips: ['::ffff:192.0.2.1']\n", `pops.a.vips[0]: ::ffff:192.0.2.1 is an IPv4 address in IPv6 form: write 192.0.2.1`},
		{"list wanted", "schema: 1\npops:\n  a:\n    addresses: 192.0.2.1\n", "line 4: pops.a.addresses: want a list"},
		{"alias", "schema: 1\npops:\n  a: &x {port: 1}\n  b: *x\n", "line 4: pops.b: anchors and aliases are not taken"},
		{"empty object", "schema: 1\npops:\n  a:\n", "line 3: pops.a: is empty"},
		{"glue", "schema: 1\nzones:\n  example.net:\n    hostmaster: h.example.net\n    nameservers: {ns1.example.net: []}\n", "zones.example.net.nameservers.ns1.example.net: has no address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse([]byte(test.text))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestParseTellsAllFaultsAtOnce(t *testing.T) {
	_, err := Parse([]byte("schema: 1\npops:\n  a:\n    port: x\n    state: down\n    location: {lat: 91, lon: 181, country: sg}\n"))
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Faults) != 5 {
		t.Errorf("got %v, want five faults", err)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Topology)
		want   string
	}{
		{"no zone", func(x *Topology) { delete(x.Zones, ExampleZone) }, `services.intake.isochrone.test: "intake.isochrone.test" lies in none of the zones`},
		{"unknown PoP", func(x *Topology) { x.Services[ExampleService].PoPs = []string{"sin1", "sin2"} }, `services.intake.isochrone.test.pops[1]: there is no PoP "sin2"`},
		{"failover outside the service", func(x *Topology) {
			x.Services[ExampleService].PoPs = []string{"sin1"}
			x.Services[ExampleService].Steering.Failover = []string{"fra1"}
		}, `steering.failover[0]: there is no PoP of the service "fra1"`},
		{"unknown cluster", func(x *Topology) { x.Services[ExampleService].Clusters = []string{"moon"} }, `there is no cluster "moon"`},
		{"no cluster", func(x *Topology) { x.Clusters = nil }, "the service has no cluster"},
		{"no address", func(x *Topology) {
			for _, p := range x.PoPs {
				p.Addresses = nil
			}
		}, "the service has no PoP with an address"},
		{"address used twice", func(x *Topology) { x.PoPs["sin1"].Addresses = x.PoPs["fra1"].Addresses }, "127.0.1.2:8443 is used by pops.fra1 already"},
		{"all clusters disabled", func(x *Topology) {
			for _, c := range x.Clusters {
				c.State = Disabled
			}
		}, "services.intake.isochrone.test.clusters: all clusters of the service are disabled: want one that is active or draining"},
		{"its clusters disabled", func(x *Topology) {
			x.Clusters["ap"].State = Disabled
			x.Services[ExampleService].Clusters = []string{"ap"}
		}, "all clusters of the service are disabled"},
		{"VIP that is unicast", func(x *Topology) {
			x.PoPs["sin1"].VIPs = x.PoPs["fra1"].Addresses
		}, "pops.sin1.vips[0]: 127.0.1.2 is a unicast address of pops.fra1: want an address that no PoP has for itself"},
		{"endpoint of two clusters", func(x *Topology) {
			x.Clusters["ap"].Endpoints, x.Clusters["eu"].Endpoints = []string{"https://A.example/x/"}, []string{"https://a.example:443/x"}
		}, `clusters.eu.endpoints[0]: "https://a.example:443/x" is used by clusters.ap already: want each in one cluster`},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := example()
			test.change(x)
			faults := fmt.Sprint(x.Validate())
			if !strings.Contains(faults, test.want) {
				t.Errorf("got %s\nwant %s", faults, test.want)
			}
		})
	}
}

// TestAnycast has a VIP on several PoPs, which is what anycast is.
func TestAnycast(t *testing.T) {
	x := example()
	for _, name := range []string{"sin1", "fra1"} {
		x.PoPs[name].VIPs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
		x.PoPs[name].Announces = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/48")}
	}
	again, err := Parse(x.Marshal())
	if err != nil || len(again.Validate()) > 0 || len(again.PoPs["fra1"].VIPs) != 2 || len(again.PoPs["fra1"].Announces) != 2 {
		t.Errorf("%v, faults %v\n%s", err, again.Validate(), x.Marshal())
	}
}

// stored fills an assembler with a topology.
func stored(x *Topology) *Assembler {
	a := NewAssembler(nil, 0)
	for _, r := range x.Refs() {
		a.Put("topology/"+r.String(), MarshalValue(x.Object(r)))
	}
	return a
}

// TestAssemblerKnowsTheSameTopology reads a topology again, later, that is in force already: nothing has changed.
func TestAssemblerKnowsTheSameTopology(t *testing.T) {
	good := stored(example()).Snapshot(7)
	again := NewAssembler(good.Topology, good.Good)
	for _, r := range good.Topology.Refs() {
		again.Put("topology/"+r.String(), MarshalValue(good.Topology.Object(r)))
	}
	if snap := again.Snapshot(9); snap.Topology != good.Topology || snap.Good != 7 || snap.Revision != 9 {
		t.Errorf("another topology, good since %d, revision %d", snap.Good, snap.Revision)
	}
	again.Delete("topology/pops/sin1")
	if snap := again.Snapshot(10); snap.Topology == good.Topology {
		t.Error("a lost PoP is no change")
	}
}

func TestAssemblerKeepsTheLastGoodTopology(t *testing.T) {
	a := stored(example())
	good := a.Snapshot(7)
	if len(good.Faults) > 0 || good.Good != 7 {
		t.Fatalf("got %+v", good)
	}
	a.Put("topology/pops/sin1", []byte("schema: 1\nlocation: {lat: 135}\n"))
	bad := a.Snapshot(8)
	if bad.Topology != good.Topology || bad.Good != 7 || bad.Revision != 8 || len(bad.Faults) == 0 {
		t.Errorf("after an invalid edit: good revision %d, faults %v", bad.Good, bad.Faults)
	}

	drain := &Override{Schema: 1, Kind: Drain, PoP: "fra1", Reason: "r", Author: "a", Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	a.Put("overrides/drain-fra1", MarshalValue(drain))
	a.Put("overrides/broken", []byte("kind: drian"))
	drained := a.Snapshot(9)
	if drained.Overrides["drain-fra1"] == nil || len(drained.Overrides) != 1 || len(drained.Ignored) == 0 || len(drained.Faults) == 0 {
		t.Errorf("a drain on an invalid topology: overrides %v, ignored %v", drained.Overrides, drained.Ignored)
	}

	x := example()
	x.PoPs["sin1"].State = Draining
	a.Put("topology/pops/sin1", MarshalValue(x.PoPs["sin1"]))
	mended := a.Snapshot(10)
	if mended.Good != 10 || len(mended.Faults) != 0 || mended.Topology.PoPs["sin1"].State != Draining {
		t.Errorf("after a valid edit: %+v", mended)
	}
	a.Delete("overrides/drain-fra1")
	if after := a.Snapshot(11); len(after.Overrides) != 0 || after.Topology != mended.Topology {
		t.Errorf("after the drain: %+v", after)
	}
}

func TestAssemblerRefusesStrayKeys(t *testing.T) {
	a := stored(example())
	a.Put("topology/pop/sin1", []byte("schema: 1"))
	if snap := a.Snapshot(1); len(snap.Faults) != 1 {
		t.Errorf("got faults %v, want one about the kind", snap.Faults)
	}
	a.Delete("topology/pop/sin1")
	if snap := a.Snapshot(2); len(snap.Faults) != 0 {
		t.Errorf("got faults %v, want none", snap.Faults)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example().Marshal())
	f.Add([]byte("schema: 1\npops: {a: &x {port: 1}, b: *x}"))
	f.Add([]byte(`{"schema": 1, "pops": {"a": {"location": {"lat": 1e400}}}}`))
	asJSON, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(asJSON)
	f.Add([]byte("{\"schema\"\n:1,\"pops\":{\"\\ud83d\\ude00\":[null,{}]},\"schema\":2}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		x, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
			return
		}
		again, err := Parse(x.Marshal())
		if err != nil {
			t.Fatalf("what was valid is not after writing: %v\n%s", err, x.Marshal())
		}
		if !bytes.Equal(again.Marshal(), x.Marshal()) {
			t.Errorf("not canonical:\n%s\nand\n%s", x.Marshal(), again.Marshal())
		}
		_ = x.Validate()
	})
}

// TestFaultsOfReadingAndChecking tells both at once, and does not miss what a misspelt key has.
func TestFaultsOfReadingAndChecking(t *testing.T) {
	_, faults := ParseObject(Ref{PoPs, "fra1"}, []byte("schema: 1\nstate: actve\nlocaton: {lat: 50}\nport: many\naddresses: [203.0.113.1, 0.0.0.0]\n"))
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprint(f.Line, " ", f.Path))
	}
	slices.Sort(got)
	if want := []string{"2 pops.fra1.state", "3 pops.fra1.locaton", "4 pops.fra1.port", "5 pops.fra1.addresses[1]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q: %v", got, want, faults)
	}
}
