package topology

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestUnknownKeysAreTold puts a key that nobody knows into every object at every level of all that is stored, in YAML and in JSON.
func TestUnknownKeysAreTold(t *testing.T) {
	share := 0.5
	x := example()
	s := x.Services[ExampleService]
	s.Steering.Rules = []Rule{{Must: []string{"sin1"}}}
	s.Steering.Canary = &Canary{Policy: Policy{Rules: []Rule{{Must: []string{"sin1"}}}}}
	s.Steering.Pools = map[string][]string{"last": {"sin1"}}
	signing := exampleSigning()
	signing.Roll = &Roll{Role: ZSK}
	for name, test := range map[string]struct {
		value any
		parse func([]byte) []Fault
	}{
		"document": {x, func(text []byte) []Fault {
			_, err := Parse(text)
			return err.(*InvalidError).Faults
		}},
		"service": {s, func(text []byte) []Fault {
			_, faults := ParseObject(Ref{Services, ExampleService}, text)
			return faults
		}},
		"override": {&Override{Schema: 1, Kind: Pin, Share: &share}, func(text []byte) []Fault { _, faults := ParseOverride("x", text); return faults }},
		"key":      {&Key{Schema: 1}, func(text []byte) []Fault { _, faults := ParseKey("x", text); return faults }},
		"sealed":   {&Sealed{Schema: 1}, func(text []byte) []Fault { _, faults := ParseSealed("x", text); return faults }},
		"signing":  {signing, func(text []byte) []Fault { _, faults := ParseSigning("x", text); return faults }},
	} {
		var tree any
		if err := yaml.Unmarshal(MarshalValue(test.value), &tree); err != nil {
			t.Fatal(err)
		}
		if name == "document" {
			if err := yaml.Unmarshal(x.Marshal(), &tree); err != nil {
				t.Fatal(err)
			}
		}
		places := 0
		for _, place := range objectsIn(tree, "", reflect.TypeOf(test.value).Elem()) {
			place.object["nobody"] = []any{1}
			for _, write := range []func() ([]byte, error){
				func() ([]byte, error) { return yaml.Marshal(tree) },
				func() ([]byte, error) { return json.MarshalIndent(tree, "", "\t") },
			} {
				text, err := write()
				if err != nil {
					t.Fatal(err)
				}
				line := 1 + bytes.Count(text[:bytes.Index(text, []byte("nobody"))], []byte("\n"))
				found := false
				for _, f := range test.parse(text) {
					found = found || strings.HasSuffix(f.Path, strings.TrimPrefix(place.path+".nobody", ".")) && f.Line == line && strings.HasPrefix(f.Message, "unknown key; ")
				}
				if !found {
					t.Errorf("%s: an unknown key at %q is not told with line %d: %v", name, place.path, line, test.parse(text))
				}
			}
			delete(place.object, "nobody")
			places++
		}
		if want := map[string]int{"document": 26, "service": 6}[name]; places < max(want, 1) {
			t.Errorf("%s: %d objects were tried, want %d", name, places, want)
		}
	}
}

type placeInTree struct {
	path   string
	object map[string]any
}

// objectsIn finds the objects in a tree that are structs by their type, rather than maps.
func objectsIn(tree any, path string, of reflect.Type) (all []placeInTree) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch value := tree.(type) {
	case map[string]any:
		fields := map[string]reflect.Value{}
		if of.Kind() == reflect.Struct {
			collectFields(reflect.New(of).Elem(), fields)
			all = append(all, placeInTree{path, value})
		}
		for key, inner := range value {
			if of.Kind() == reflect.Map {
				all = append(all, objectsIn(inner, join(path, key), of.Elem())...)
			} else if field, ok := fields[key]; ok {
				all = append(all, objectsIn(inner, join(path, key), field.Type())...)
			}
		}
	case []any:
		for i, inner := range value {
			all = append(all, objectsIn(inner, fmt.Sprintf("%s[%d]", path, i), of.Elem())...)
		}
	}
	return all
}

// TestJSONIsRead writes the same in ways that JSON allows.
func TestJSONIsRead(t *testing.T) {
	long := strings.Repeat("long ", 300)
	for name, text := range map[string]string{
		"compact":             `{"schema":1,"kind":"drain","pop":"sin1","reason":"é","expires":"2030-01-01T00:00:00Z"}`,
		"tabs":                "{\n\t\"schema\":\t1,\n\t\"kind\" :\t\"drain\"\t,\n\t\t\"pop\": \"sin1\",\r\n\t\"reason\": \"é\", \"expires\": \"2030-01-01T00:00:00Z\"\n}\n",
		"a line of its own":   "{\"schema\"\n:\n1\n,\n\"kind\": \"drain\", \"pop\": \"sin1\", \"reason\": \"é\", \"expires\": \"2030-01-01T00:00:00Z\"}",
		"escapes":             `{"schema": 1, "kind": "dr\u0061in", "pop": "sin1", "reason": "\u00e9", "expires": "2030-01-01T00:00:00Z"}`,
		"surrogates":          `{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "\ud83d\ude00", "expires": "2030-01-01T00:00:00Z"}`,
		"slash":               `{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "a\/b", "expires": "2030-01-01T00:00:00Z"}`,
		"other escapes":       `{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "\"\\\b\f\n\r\t", "expires": "2030-01-01T00:00:00Z"}`,
		"exponent":            `{"schema": 1, "kind": "pin", "share": 5e-1, "pop": "sin1", "reason": "r", "expires": "2030-01-01T00:00:00Z"}`,
		"null":                `{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "r", "cluster": null, "expires": "2030-01-01T00:00:00Z"}`,
		"byte order mark":     "\ufeff" + `{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "r", "expires": "2030-01-01T00:00:00Z"}`,
		"what YAML would not": `{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "a: b # c, [d] {e} & *f !g |h", "expires": "2030-01-01T00:00:00Z"}`,
	} {
		o, faults := ParseOverride("x", []byte(text))
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
			continue
		}
		want := struct{ Reason string }{}
		if err := json.Unmarshal(bytes.TrimPrefix([]byte(text), []byte("\ufeff")), &want); err != nil || o.Reason != want.Reason {
			t.Errorf("%s: reason %q, want %q, %v", name, o.Reason, want.Reason, err)
		}
	}
	_, faults := ParseOverride("x", []byte(`{"schema": 1, "`+long+`": 1, "`+long+`2": 1}`))
	if len(faults) != 2 {
		t.Errorf("long keys: %.300s", faults)
	}
}

// FuzzParseStored reads overrides and keys: what is valid is the same after writing and reading, and has the same digest.
func FuzzParseStored(f *testing.F) {
	f.Add([]byte("{schema: 1, kind: pin, pop: sin1, share: 0.5, reason: r, created: 2030-01-01T00:00:00+24:00, expires: 2030-01-01T00:00:00.5+05:30}"))
	f.Add([]byte("{schema: 1, sha256: " + HashKey("x") + ", from: ['::/0', 192.0.2.0/24], services: [a], expires: 9999-12-31T23:59:59Z}"))
	f.Add([]byte(`{"schema": 1, "sha256": "` + HashKey("x") + `", "note": "\ud800", "created": "0000-01-01T00:00:00Z"}`))
	f.Add([]byte("schema: 1\nsha256: " + HashKey("x") + "\nservices: [a, b.c]\nfrom: [192.0.2.0/24, 2001:db8::/32]\nquota_per_minute: 7\nprobe: true\nnote: a: b\ncreated: 2030-01-01T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if o, faults := ParseOverride("x", text); len(faults) == 0 {
			again, faults := ParseOverride("x", MarshalValue(o))
			if len(faults) > 0 || digestOfOverride("x", o) != digestOfOverride("x", again) {
				t.Errorf("%s\nbecomes, %v,\n%s", MarshalValue(o), faults, MarshalValue(again))
			}
		}
		if k, faults := ParseKey("x", text); len(faults) == 0 {
			if quick := MarshalKey(k); !bytes.Equal(quick, MarshalValue(k)) {
				t.Errorf("is written quickly\n%s\nand otherwise\n%s", quick, MarshalValue(k))
			}
			again, faults := ParseKey("x", MarshalValue(k))
			if len(faults) > 0 || digestOfKey("x", k) != digestOfKey("x", again) {
				t.Errorf("%s\nbecomes, %v,\n%s", MarshalValue(k), faults, MarshalValue(again))
			}
		}
		quick, quickFaults := ParseKey("x", text)
		if k, faults := parseKey("x", text); !reflect.DeepEqual(quick, k) || !reflect.DeepEqual(quickFaults, faults) {
			t.Errorf("%s\nis %+v, %v by the quick way, and %+v, %v", text, quick, quickFaults, k, faults)
		}
	})
}

// TestKeysAreReadQuickly knows that most records are read in the quick way, and to what all others come.
func TestKeysAreReadQuickly(t *testing.T) {
	_, _, k, err := NewKey(strings.NewReader(strings.Repeat("random", 10)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, rotated, err := k.Rotate(strings.NewReader(strings.Repeat("random", 10)), "x", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rotated.Services, rotated.From, rotated.Probe, rotated.Expires = []string{"a.example", "b.example"}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, true, k.Created
	for _, note := range []string{
		"", "customer 17, the large one", "ops@example.net", "a:b", "no.", "y", "off", "1e5", "0x1F", "0b1", "1_000", "12:30:45", "2030-01-01", "2030-01-01T00:00:00Z", "1.5", ".inf", "infinity",
		"1e100000", strings.Repeat("7", 64), strings.Repeat("a long note ", 40), "a\nb", "a\tb", "é", "1/2345", "infinite", "-.inf", "'", "yes",
	} {
		k.Note, rotated.Note = note, note
		for _, record := range []*Key{k, rotated} {
			text := MarshalValue(record)
			if quick := MarshalKey(record); !bytes.Equal(quick, text) {
				t.Errorf("is written quickly\n%s\nand otherwise\n%s", quick, text)
			}
			got, faults := ParseKey("x", text)
			if len(faults) > 0 || !reflect.DeepEqual(got, record) {
				t.Errorf("%s\ngot %+v, %v", text, got, faults)
			}
			if quick := readKey(string(text)) != nil; !quick && (note == "" || note == "ops@example.net" || note == "a:b") {
				t.Errorf("is not read quickly:\n%s", text)
			}
		}
	}
	full := string(MarshalValue(rotated))
	for _, text := range []string{
		full + "note: again\n", full + "what: 1\n", full + "# a comment\n", strings.TrimSuffix(full, "\n"), strings.Replace(full, "note: ", "note:  ", 1), full + "\n",
		strings.Replace(full, "note: yes", "note: null", 1), strings.Replace(full, "note: yes", "note: Null", 1), strings.Replace(full, "note: yes", "note: 'a'", 1),
		strings.Replace(full, "note: yes", "note: a: b", 1), strings.Replace(full, "note: yes", "note: a #b", 1), strings.Replace(full, "note: yes", "note: a:", 1),
		strings.Replace(full, "note: yes", "note: a\n  b", 1), strings.Replace(full, "note: yes", "note: |", 1), strings.Replace(full, "probe: true", "probe: True", 1),
		strings.Replace(full, "[a.example, b.example]", "[]", 1), strings.Replace(full, "[a.example, b.example]", "[null, b]", 1), strings.Replace(full, "[a.example, b.example]", "[a.example,b.example]", 1),
		strings.Replace(full, "schema: 1", "schema: 9", 1), strings.Replace(full, "schema: 1", "schema: 0x1", 1), strings.Replace(full, "schema: 1", "schema: +1", 1), "", "schema: 1\n", "\n",
	} {
		quick, quickFaults := ParseKey("x", []byte(text))
		if k, faults := parseKey("x", []byte(text)); !reflect.DeepEqual(quick, k) || !reflect.DeepEqual(quickFaults, faults) {
			t.Errorf("%s\nis %+v, %v by the quick way, and %+v, %v", text, quick, quickFaults, k, faults)
		}
	}
}
