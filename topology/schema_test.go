package topology

import (
	"fmt"
	"strings"
	"testing"
)

// TestNewerSchemasAreOneFault reads values of a newer schema, with keys and values that this program does not know.
func TestNewerSchemasAreOneFault(t *testing.T) {
	const text = "what: {nobody: knows}\nstate: asleep\nkind: nap\nschema: 9\nlocation: 7\n"
	parse := map[string]func() []Fault{
		"overrides.x":        func() []Fault { _, faults := ParseOverride("x", []byte(text)); return faults },
		"keys.x":             func() []Fault { _, faults := ParseKey("x", []byte(text)); return faults },
		"secrets.x":          func() []Fault { _, faults := ParseSealed("x", []byte(text)); return faults },
		"dnssec.example.net": func() []Fault { _, faults := ParseSigning("example.net", []byte(text)); return faults },
	}
	for _, kind := range []Kind{Zones, Services, PoPs, Clusters} {
		parse[string(kind)+".x"] = func() []Fault {
			o, faults := ParseObject(Ref{kind, "x"}, []byte(text))
			if o != nil {
				t.Errorf("got %v of a schema that nobody knows", o)
			}
			return faults
		}
	}
	for path, parse := range parse {
		want := fmt.Sprintf("[line 4: %s.schema: 9 is newer than this program knows (%d): upgrade it]", path, SchemaVersion)
		if got := fmt.Sprint(parse()); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	for name, test := range map[string]struct{ text, want string }{
		"document":             {"schema: 9\nfoo: {}\npops: {a: {what: 1}}\n", "line 1: schema: 9 is newer than"},
		"object in a document": {"schema: 1\npops:\n  a:\n    what: 1\n    schema: 9\n", "line 5: pops.a.schema: 9 is newer than"},
		"JSON":                 {`{"schema": 1, "pops": {"a": {"what": 1, "schema": 9}}}`, "line 1: pops.a.schema: 9 is newer than"},
	} {
		_, err := Parse([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("%s: got %v\nwant one fault, %s", name, err, test.want)
		}
	}
}

func TestSnapshotSaysThatTheProgramIsTooOld(t *testing.T) {
	a := stored(example())
	good := a.Snapshot(1)
	a.Put("topology/clusters/ap", []byte("{schema: 9, what: 1}"))
	a.Put("topology/clusters/eu", []byte("{schema: 9, what: 1}"))
	a.Put("topology/clusters/us", []byte("{schema: 9, what: 1}")) // which is all that the service has
	if snap := a.Snapshot(2); !snap.TooOld || len(snap.Faults) != 3 || snap.Topology != good.Topology || snap.Hash != good.Hash {
		t.Errorf("got too old: %v, faults %v", snap.TooOld, snap.Faults)
	}
	a.Put("overrides/x", []byte("{schema: 9, kind: nap}"))
	if snap := a.Snapshot(3); !snap.TooOld || len(snap.Faults) != 3 || len(snap.Ignored) != 1 {
		t.Errorf("after an override: too old: %v, faults %v, ignored %v", snap.TooOld, snap.Faults, snap.Ignored)
	}
	for _, name := range ExampleClusters {
		a.Put("topology/clusters/"+name, []byte("{schema: 1, what: 1}"))
	}
	if snap := a.Snapshot(4); snap.TooOld || len(snap.Faults) == 0 {
		t.Errorf("an unknown key of a known schema: too old: %v, faults %v", snap.TooOld, snap.Faults)
	}
	for _, name := range ExampleClusters {
		a.Put("topology/clusters/"+name, MarshalValue(example().Clusters[name]))
	}
	if snap := a.Snapshot(5); snap.TooOld || len(snap.Faults) != 0 || snap.Topology != good.Topology {
		t.Errorf("mended: too old: %v, faults %v", snap.TooOld, snap.Faults)
	}
}

func TestNewestSchema(t *testing.T) {
	x := example()
	if got := NewestSchema(x); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
	x.PoPs["sin1"].Schema = 4
	if got := NewestSchema(x); got != 4 {
		t.Errorf("got %d, want 4", got)
	}
	if got := NewestSchema(&Topology{}); got != 0 {
		t.Errorf("got %d of an empty topology, want 0", got)
	}
}
