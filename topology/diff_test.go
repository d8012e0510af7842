package topology

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func diffExample() *Topology {
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), 8443)
	}
	for _, name := range ExampleClusters {
		clusters[name] = "http://127.0.2.1:8090"
	}
	return Example(netip.MustParseAddr("127.0.0.1"), pops, clusters)
}

func TestDiff(t *testing.T) {
	before := diffExample()
	sin1, zone, service := *before.PoPs["sin1"], *before.Zones["isochrone.test"], *before.Services["intake.isochrone.test"]
	sin1.Location.LatDeg, sin1.CapacityRPS = 1.5, 700
	sin1.Addresses = append([]netip.Addr{netip.MustParseAddr("2001:db8::1")}, sin1.Addresses...)
	zone.Records = append([]string{"new 300 A 192.0.2.1"}, zone.Records...)
	service.Steering.Rules = []Rule{{Name: "eu", Continents: []string{"EU"}}}
	service.Steering.Within = Duration(5 * time.Millisecond)
	after := before.With(map[Ref]Object{
		{PoPs, "sin1"}: &sin1, {PoPs, "ams1"}: before.PoPs["fra1"],
		{Zones, "isochrone.test"}: &zone, {Services, "intake.isochrone.test"}: &service,
	}, []Ref{{PoPs, "jnb1"}})

	var got []string
	for _, d := range Diff(before, after) {
		got = append(got, d.Kind+" "+d.Object)
		for _, f := range d.Fields {
			got = append(got, fmt.Sprintf("  %s: %s → %s", f.Path, f.From, f.To))
		}
	}
	want := []string{
		"changed zones/isochrone.test",
		`  records: null → "new 300 A 192.0.2.1"`,
		"changed services/intake.isochrone.test",
		`  steering.rules: null → [{"continents":["EU"],"name":"eu"}]`,
		`  steering.within: null → "5ms"`,
		"added pops/ams1",
		"removed pops/jnb1",
		"changed pops/sin1",
		`  addresses: ["127.0.1.1"] → ["2001:db8::1","127.0.1.1"]`,
		"  capacity_rps: null → 700",
		"  location.lat: 1.29 → 1.5",
	}
	for i := range want { // the example's own figures
		if strings.HasPrefix(want[i], "  location.lat") {
			want[i] = fmt.Sprintf("  location.lat: %v → 1.5", before.PoPs["sin1"].Location.LatDeg)
		}
		if strings.HasPrefix(want[i], "  addresses") {
			old := before.PoPs["sin1"].Addresses[0]
			want[i] = fmt.Sprintf("  addresses: [%q] → [\"2001:db8::1\",%q]", old, old)
		}
		if strings.HasPrefix(want[i], "  capacity") && before.PoPs["sin1"].CapacityRPS != 0 {
			want[i] = fmt.Sprintf("  capacity_rps: %d → 700", before.PoPs["sin1"].CapacityRPS)
		}
	}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Error(difference)
	}
	if same := Diff(after, after.With(nil, nil)); len(same) != 0 {
		t.Errorf("a copy differs: %v", same)
	}
	if all := Diff(nil, before); len(all) != len(before.Refs()) || all[0].Kind != "added" {
		t.Errorf("from nothing: got %v", all)
	}
}

func TestDiffOfRules(t *testing.T) {
	before := &Service{Steering: Steering{Policy: Policy{Rules: []Rule{{Name: "a", Must: []string{"x"}}, {Name: "b"}}}}}
	after := &Service{Steering: Steering{Policy: Policy{Rules: []Rule{{Name: "a", Must: []string{"x", "y"}}}}}}
	d, _ := DiffObject(Ref{Services, "s"}, before, after)
	want := []FieldDiff{
		{"steering.rules[0].must", []byte(`["x"]`), []byte(`["x","y"]`)},
		{"steering.rules[1]", []byte(`{"name":"b"}`), []byte("null")},
	}
	if difference := cmp.Diff(want, d.Fields); difference != "" {
		t.Error(difference)
	}
}

func TestDiffOfRecords(t *testing.T) {
	for _, test := range []struct {
		name     string
		from, to []string
		want     []FieldDiff
	}{
		{"nothing", []string{"a", "b"}, []string{"a", "b"}, nil},
		{"twice", []string{"a"}, []string{"a", "a"}, []FieldDiff{{"records", []byte("null"), []byte(`"a"`)}}},
		{"removed and added", []string{"a", "b"}, []string{"c", "a"}, []FieldDiff{{"records", []byte(`"b"`), []byte("null")}, {"records", []byte("null"), []byte(`"c"`)}}},
		{"in another order", []string{"a", "b"}, []string{"b", "a"}, []FieldDiff{{"records[0]", []byte(`"a"`), []byte(`"b"`)}, {"records[1]", []byte(`"b"`), []byte(`"a"`)}}},
	} {
		d, differs := DiffObject(Ref{Zones, "z"}, &Zone{Records: test.from}, &Zone{Records: test.to})
		if difference := cmp.Diff(test.want, d.Fields); difference != "" || differs != (len(test.want) > 0) {
			t.Errorf("%s: %s", test.name, difference)
		}
	}
}

func TestTextDiff(t *testing.T) {
	before := diffExample()
	sin1 := *before.PoPs["sin1"]
	sin1.State = Draining
	after := before.With(map[Ref]Object{{PoPs, "sin1"}: &sin1}, nil)
	got := TextDiff(before, after, "@7", "@9")
	if !strings.HasPrefix(got, "--- @7\n+++ @9\n@@ -") || !strings.Contains(got, "\n-    state: active\n+    state: draining\n") {
		t.Errorf("got %s", got)
	}
	if same := TextDiff(before, before.With(nil, nil), "a", "b"); same != "" {
		t.Errorf("of what is the same: got %q", same)
	}
}
