package scenario

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

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema()))
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

// seen is what an editor sees of YAML.
func seen(t *testing.T, text string) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	written, err := json.Marshal(value)
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
		Type       string                     `json:"type"`
		Properties map[string]json.RawMessage `json:"properties"`
		Items      struct {
			Enum []string `json:"enum"`
		} `json:"items"`
		Enum []string `json:"enum"`
	} `json:"properties"`
	AdditionalProperties any `json:"additionalProperties"`
}

// TestJSONSchemaHasTheFieldsOfTheTypes holds the properties and closed lists of the schema to the Go types.
func TestJSONSchemaHasTheFieldsOfTheTypes(t *testing.T) {
	var schema struct {
		definition
		Defs map[string]definition `json:"$defs"`
	}
	if err := json.Unmarshal(JSONSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	schema.Defs[""] = schema.definition
	fieldsOf := func(value any) []string {
		var names []string
		for field := range reflect.TypeOf(value).Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); name != "-" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	for name, value := range map[string]any{
		"": Scenario{}, "short": Short{}, "world": World{}, "pops": PoPs{}, "clusters": Clusters{}, "clients": Clients{}, "weight": Weight{}, "access": Access{},
		"resolvers": Resolvers{}, "network": Network{}, "event": Event{}, "claim": Claim{}, "assertion": Assertion{}, "policy": topology.Policy{},
	} {
		if diff := cmp.Diff(fieldsOf(value), slices.Sorted(maps.Keys(schema.Defs[name].Properties))); diff != "" {
			t.Errorf("%q (-type +schema):\n%s", name, diff)
		}
		if schema.Defs[name].AdditionalProperties != false {
			t.Errorf("%q takes unknown keys", name)
		}
	}
	event := schema.Defs["event"].Properties
	for name, value := range map[string]any{"brown_out": BrownOut{}, "flap": Flap{}, "crowd": Crowd{}, "flip": Flip{}, "rolling_upgrade": Upgrade{}} {
		if diff := cmp.Diff(fieldsOf(value), slices.Sorted(maps.Keys(event[name].Properties))); diff != "" {
			t.Errorf("%s (-type +schema):\n%s", name, diff)
		}
	}
	for where, pair := range map[string][2][]string{
		"policies": {namesOf(PolicyNames), schema.Properties["policies"].Items.Enum},
		"scales":   {namesOf(Scales), schema.Properties["scales"].Items.Enum},
		"scopes":   {{string(ScopesOurs), string(ScopesEcho), string(ScopesMerge)}, schema.Defs["world"].Properties["scopes"].Enum},
		"geo":      {{string(GeoCity), string(GeoCountry), string(GeoExact)}, schema.Defs["world"].Properties["geo"].Enum},
		"lines":    {Lines, schema.Defs["access"].Properties["line"].Enum},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s (-types +schema):\n%s", where, diff)
		}
	}
}

func namesOf[T ~string](words []T) []string {
	names := make([]string, len(words))
	for i, word := range words {
		names[i] = string(word)
	}
	return names
}

// TestJSONSchemaTakesWhatIsValid tries it with the example and the scenarios of the repository.
func TestJSONSchemaTakesWhatIsValid(t *testing.T) {
	schema := compiled(t)
	texts := map[string]string{"example": example}
	for _, pattern := range []string{"../*/scenarios/*.yaml", "../scenarios/*.yaml", "../*/*.scenario.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(text)
		}
	}
	for name, text := range texts {
		if err := schema.Validate(seen(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestJSONSchemaRefusesWhatIsInvalid tries what validation refuses too.
func TestJSONSchemaRefusesWhatIsInvalid(t *testing.T) {
	schema := compiled(t)
	for _, change := range [][2]string{
		{"scenario: two-regions", "scenario: Two"}, {"scales: [flow]", "scales: [flwo]"}, {"scales: [flow]", "scales: []"}, {"duration: 24h", "duration: 24"}, {"duration: 24h", "what: 1"},
		{"seeds: [1, 2, 3]", "seeds: [1, 1]"}, {"seeds: [1, 2, 3]", "seeds: [-1]"}, {"policies: [ours, anycast]", "policies: [x]"}, {"count: 40", "count: 501"},
		{"count: 40,", "at: [Singapore],"}, {"fra1: 0.1", "fra1: 1.1"}, {"[IAD, FRA]", "[]"}, {"[IAD, FRA]", "[FRA, FRA]"}, {"rank: rtt", "rank: rrt"}, {"within: 2ms", "wthin: 2ms"},
		{"count: 1000000", "count: 0"}, {"line: fibre", "line: fiber"}, {"part: 0.5}]", "part: 1.5}]"}, {"weight: 2", "weight: -2"}, {"ecs: 0.2", "ecs: 1.2"}, {"ecs: 0.2", "farm: 0"},
		{"spread: 0,", "spread: -1,"}, {"spread: 0,", "loss: 0.6,"}, {"spread: 0,", "mtu: 100,"}, {"spread: 0,", "catchment: {far: 2},"}, {`"sin,iad"`, "sin"},
		{"lose: [largest], ", ""}, {"lose: [largest]", "lose: [Largest]"}, {"factor: 10", "factor: 0"}, {"near: SIN, within", "near: X, within"}, {"12h, crowd", "12h, flip: {part: 2}, crowd"},
		{"12h, crowd", "12h, etcd_away: true, drain: [x], crowd"}, {"ours/rtt.p99 <= 80 ms", "ours/rtt.p99"}, {"pops: 12", "pops: 501"}, {"summary: Two regions.", "claims: [{what: x}]"},
	} {
		text := strings.Replace(example, change[0], change[1], 1)
		if text == example {
			t.Fatalf("%q is not in the example", change[0])
		}
		if schema.Validate(seen(t, text)) == nil {
			t.Errorf("the schema takes %s", change[1])
		}
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("validation takes %s, the schema does not", change[1])
		}
	}
}
