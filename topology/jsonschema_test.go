package topology

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compileSchema(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asJSON is what an editor sees of YAML: times are text.
func asJSON(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var plain func(any) any
	plain = func(value any) any {
		switch v := value.(type) {
		case time.Time:
			return v.Format(time.RFC3339Nano)
		case []any:
			for i := range v {
				v[i] = plain(v[i])
			}
		case map[string]any:
			for key := range v {
				v[key] = plain(v[key])
			}
		}
		return value
	}
	written, err := json.Marshal(plain(value))
	if err != nil {
		t.Fatal(err)
	}
	read, err := jsonschema.UnmarshalJSON(bytes.NewReader(written))
	if err != nil {
		t.Fatal(err)
	}
	return read
}

type definition struct {
	Properties map[string]struct {
		Ref   string   `json:"$ref"`
		Enum  []string `json:"enum"`
		Type  string   `json:"type"`
		Items struct {
			Enum []string `json:"enum"`
		} `json:"items"`
	} `json:"properties"`
	Enum                 []string `json:"enum"`
	AdditionalProperties any      `json:"additionalProperties"`
}

// TestJSONSchemaHasTheFieldsOfTheTypes holds the properties and closed lists of the schema to the Go types and what validation allows.
func TestJSONSchemaHasTheFieldsOfTheTypes(t *testing.T) {
	var schema struct {
		definition
		Defs map[string]definition `json:"$defs"`
	}
	if err := json.Unmarshal(JSONSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"zone": Zone{}, "service": Service{}, "pop": PoP{}, "cluster": Cluster{}, "override": Override{}, "key": Key{}, "location": Location{},
		"steering": Steering{}, "intake": Intake{}, "jsonRPC": JSONRPC{}, "signature": Signature{}, "elsewhere": Elsewhere{}, "canary": Canary{}, "spill": Spill{}, "bgp": BGP{}, "bgpPeer": BGPPeer{}, "rule": Rule{}, "": document{},
	} {
		fields := map[string]reflect.Value{}
		collectFields(reflect.New(reflect.TypeOf(value)).Elem(), fields)
		def := schema.Defs[name]
		if name == "" {
			def = schema.definition
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(def.Properties))); diff != "" {
			t.Errorf("%s (-type +schema):\n%s", name, diff)
		}
		if def.AdditionalProperties != false {
			t.Errorf("%s: takes unknown keys", name)
		}
		for field, value := range fields {
			want := map[reflect.Kind]string{reflect.Bool: "boolean", reflect.Slice: "array", reflect.Int: "integer", reflect.Int64: "integer", reflect.Uint16: "integer", reflect.Float64: "number"}[value.Kind()]
			if got := def.Properties[field].Type; got != "" && want != "" && got != want {
				t.Errorf("%s.%s: type %s, want %s", name, field, got, want)
			}
		}
	}
	words := func(of ...string) []string { return of }
	for where, pair := range map[string][2][]string{
		"state":           {schema.Defs["state"].Enum, words(string(Active), string(Draining), string(Disabled))},
		"rank":            {schema.Defs["rank"].Enum, words(string(RankByRTT), string(RankByPredicted), string(RankByFailover))},
		"ecs":             {schema.Defs["steering"].Properties["ecs"].Enum, words(string(UseECS), string(IgnoreECS))},
		"ack":             {schema.Defs["intake"].Properties["ack"].Enum, words(string(AckMemory), string(AckSpool), string(AckCluster))},
		"idempotency":     {schema.Defs["intake"].Properties["idempotency_key"].Enum, words(string(IdempotencyOptional), string(IdempotencyRequired))},
		"kind":            {schema.Defs["override"].Properties["kind"].Enum, words(string(Drain), string(Force), string(Pin))},
		"verdict":         {schema.Defs["override"].Properties["verdict"].Enum, words(string(ForceUp), string(ForceDown))},
		"rule.continents": {schema.Defs["rule"].Properties["continents"].Items.Enum, Continents},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s (-types +schema):\n%s", where, diff)
		}
	}
}

// TestJSONSchemaTakesWhatIsValid tries it with the topologies of the repository, the example world, and objects as they are stored.
func TestJSONSchemaTakesWhatIsValid(t *testing.T) {
	document := compileSchema(t, JSONSchema())
	check := func(name string, schema *jsonschema.Schema, text []byte) {
		t.Helper()
		if err := schema.Validate(asJSON(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	x := example()
	check("example", document, x.Marshal())
	files := 0
	for _, pattern := range []string{"../docs/*.yaml", "../deploy/*.yaml", "../deploy/*/*.yaml", "../router/testdata/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Parse(text); err == nil {
				check(path, document, text)
				files++
			}
		}
	}
	if files == 0 {
		t.Error("there is no topology in the docs")
	}
	share := 0.25
	values := map[string][]any{
		"overrides": {
			&Override{Schema: 1, Kind: Pin, PoP: "sin1", Share: &share, Reason: "r", Created: time.Now(), Expires: time.Now()},
			&Override{Schema: 1, Kind: Force, Cluster: "ap", Verdict: ForceUp, Reason: "r", Created: time.Now().UTC(), Expires: time.Now().UTC()},
			&Override{Schema: 1, Kind: Drain, PoP: "sin1", Reason: "r", Author: "a", Created: time.Now(), Expires: time.Now()},
		},
	}
	for range 2 {
		_, _, key, err := NewKey(strings.NewReader(strings.Repeat("random", 10)), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, rotated, err := key.Rotate(strings.NewReader(strings.Repeat("random", 10)), "k", time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		rotated.Services, rotated.Expires = []string{ExampleService}, time.Now()
		values["keys"] = append(values["keys"], key, rotated)
	}
	for _, r := range x.Refs() {
		values[string(r.Kind)] = append(values[string(r.Kind)], x.Object(r))
	}
	for objects := range objectSchemas {
		text, err := JSONSchemaOf(objects)
		if err != nil {
			t.Fatal(err)
		}
		schema := compileSchema(t, text)
		if len(values[objects]) == 0 {
			t.Errorf("no %s were tried", objects)
		}
		for _, value := range values[objects] {
			check(objects, schema, MarshalValue(value))
		}
		if schema.Validate(map[string]any{}) == nil {
			t.Errorf("%s: an empty object is taken", objects)
		}
	}
	if _, err := JSONSchemaOf("pop"); err == nil || !strings.Contains(err.Error(), "did you mean pops?") {
		t.Errorf("got %v", err)
	}
}

// TestJSONSchemaRefusesWhatIsInvalid tries what validation refuses too.
func TestJSONSchemaRefusesWhatIsInvalid(t *testing.T) {
	const hash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	for objects, texts := range map[string][]string{
		"": {
			"pops: {}", "schema: 9", "schema: 1\nfoo: {}", "schema: 1\npops: {Sin_1: {location: {country: SG}}}", "schema: 1\npops: {explain: {location: {country: SG}}}",
			"schema: 1\nservices: {Example.com: {}}", "schema: 1\nservices: {example.com.: {}}",
		},
		"pops": {
			"{location: {country: SG}}", "{schema: 1}", "{schema: 1, location: {}}", "{schema: 1, location: {country: sg}}", "{schema: 1, location: {country: SG, lat: 91}}",
			"{schema: 1, location: {country: SG, lon: -181}}", "{schema: 1, location: {country: SG}, adresses: []}", "{schema: 1, location: {country: SG}, addresses: 192.0.2.1}",
			"{schema: 1, location: {country: SG}, addresses: [example.com]}", "{schema: 1, location: {country: SG}, addresses: [192.0.2.1, 192.0.2.1]}",
			"{schema: 1, location: {country: SG}, state: down}", "{schema: 1, location: {country: SG}, port: 65536}", "{schema: 1, location: {country: SG}, capacity_rps: -1}",
			"{schema: 1, location: {country: SG}, announces: [192.0.2.1]}", "{schema: 1, location: {country: SG}, announces: [192.0.2.0/33]}",
			"{schema: 1, location: {country: SG}, vips: [anycast]}",
			"{schema: 1, location: {country: SG}, bgp: {}}", "{schema: 1, location: {country: SG}, announces: [192.0.2.0/24], bgp: {asn: 64512, peers: {}}}",
			"{schema: 1, location: {country: SG}, addresses: [198.51.100.1], announces: [192.0.2.0/24], bgp: {asn: 64512, peers: {a: {address: 198.51.100.2, asn: 0}}}}",
			"{schema: 1, location: {country: SG}, addresses: [198.51.100.1], announces: [192.0.2.0/24], bgp: {asn: 64512, communities: [no-export], peers: {a: {address: 198.51.100.2, asn: 1}}}}",
		},
		"clusters": {
			"{schema: 1, location: {country: SG}}", "{schema: 1, location: {country: SG}, endpoints: []}", "{schema: 1, location: {country: SG}, endpoints: ['ftp://x']}",
			"{schema: 1, location: {country: SG}, endpoints: ['http://u@x']}", "{schema: 1, location: {country: SG}, endpoints: ['http://x?y']}",
			"{schema: 1, location: {country: SG}, endpoints: ['http://x', 'http://x']}",
		},
		"zones": {
			"{schema: 1, hostmaster: h.example}", "{schema: 1, hostmaster: h.example, nameservers: {}}", "{schema: 1, nameservers: {ns.example: []}}",
			"{schema: 1, hostmaster: h.example, nameservers: {ns.example.: []}}", "{schema: 1, hostmaster: h.example, nameservers: {ns.example: [x]}}",
			"{schema: 1, hostmaster: h.example, nameservers: {ns.example: []}, ttl: 60}", "{schema: 1, hostmaster: h.example, nameservers: {ns.example: []}, records: ['']}",
			"{schema: 1, hostmaster: h.example, nameservers: {ns.example: []}, records: [' A 192.0.2.1']}",
		},
		"services": {
			"{schema: 1, steering: {ttl: 1 minute}}", "{schema: 1, steering: {answers: 5}}", "{schema: 1, steering: {answers: -1}}", "{schema: 1, steering: {ecs: maybe}}",
			"{schema: 1, steering: {when_all_down: closed}}", "{schema: 1, steering: {panic: 101}}", "{schema: 1, steering: {rank: distance}}",
			"{schema: 1, steering: {weights: {sin1: 0}}}", "{schema: 1, steering: {costs: {sin1: 5}}}", "{schema: 1, steering: {rules: [{countries: [SG]}]}}",
			"{schema: 1, steering: {rules: [{must: [sin1], continents: [XX]}]}}", "{schema: 1, steering: {rules: [{must: [sin1], asns: [-1]}]}}",
			"{schema: 1, steering: {canary: {rank: rttt}}}", "{schema: 1, steering: {canary: {share: 1.5}}}", "{schema: 1, intake: {ack: none}}",
			"{schema: 1, intake: {max_body_bytes: -1}}", "{schema: 1, intake: {required_fields: ['']}}", "{schema: 1, what: 1}",
		},
		"overrides": {
			"{schema: 1, kind: drain, reason: r, expires: 2030-01-01T00:00:00Z}", "{schema: 1, kind: drain, pop: a, cluster: b, reason: r, expires: 2030-01-01T00:00:00Z}",
			"{schema: 1, kind: drain, pop: a, expires: 2030-01-01T00:00:00Z}", "{schema: 1, kind: drain, pop: a, reason: r}", "{schema: 1, kind: drian, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}",
			"{schema: 1, kind: force, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}", "{schema: 1, kind: force, verdict: well, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}",
			"{schema: 1, kind: pin, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}", "{schema: 1, kind: pin, share: 2, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}",
			"{schema: 1, kind: pin, share: 1, cluster: a, reason: r, expires: 2030-01-01T00:00:00Z}", "{schema: 1, kind: drain, share: 1, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}",
			"{schema: 1, kind: drain, verdict: up, pop: a, reason: r, expires: 2030-01-01T00:00:00Z}", "{schema: 1, kind: drain, pop: a, reason: r, expires: tomorrow}",
		},
		"keys": {
			"{schema: 1}", "{schema: 1, sha256: abc}", "{schema: 1, sha256: " + strings.ToUpper(hash) + "}", "{schema: 1, sha256: " + hash + ", previous_sha256: " + hash + "}",
			"{schema: 1, sha256: " + hash + ", from: [here]}", "{schema: 1, sha256: " + hash + ", services: [A]}", "{schema: 1, sha256: " + hash + ", quota_per_minute: -1}",
			"{schema: 1, sha256: " + hash + ", probe: 7}", "{schema: 1, sha256: " + hash + ", expires: never}", "{schema: 1, sha256: " + hash + ", note: " + strings.Repeat("n", 501) + "}",
		},
	} {
		text := JSONSchema()
		if objects != "" {
			var err error
			if text, err = JSONSchemaOf(objects); err != nil {
				t.Fatal(err)
			}
		}
		schema := compileSchema(t, text)
		for _, text := range texts {
			var faults any
			switch objects {
			case "":
				_, faults = Parse([]byte(text))
			case "overrides":
				_, faults = faultsOf(ParseOverride("x", []byte(text)))
			case "keys":
				_, faults = faultsOf(ParseKey("x", []byte(text)))
			default:
				_, faults = faultsOf(ParseObject(Ref{Kind(objects), "x"}, []byte(text)))
			}
			if schema.Validate(asJSON(t, []byte(text))) == nil {
				t.Errorf("%s: the schema takes %s", objects, text)
			}
			if faults == nil {
				t.Errorf("%s: validation takes %s, the schema does not", objects, text)
			}
		}
	}
}

// faultsOf returns nil for no faults.
func faultsOf[T any](value T, faults []Fault) (T, any) {
	if len(faults) == 0 {
		return value, nil
	}
	return value, faults
}
