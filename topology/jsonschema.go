package topology

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/isochrone/isochrone/internal/spelling"
)

//go:embed schema.json
var jsonSchema []byte

// objectSchemas are the definitions of schema.json by what stands under a prefix of the store.
var objectSchemas = map[string]string{
	"zones": "zone", "services": "service", "pops": "pop", "clusters": "cluster", "overrides": "override", "keys": "key",
}

// JSONSchema returns the JSON Schema (2020-12) of a document, for editors. Whoever calls must not change it.
func JSONSchema() []byte { return jsonSchema }

// JSONSchemaOf returns the JSON Schema of one object, as it is the value of an etcd key: of pops, clusters, services, zones, overrides or
// keys.
func JSONSchemaOf(objects string) ([]byte, error) {
	name, ok := objectSchemas[objects]
	if !ok {
		return nil, fmt.Errorf("%q is no kind of object: %s", objects, spelling.Suggest(objects, slices.Collect(maps.Keys(objectSchemas))))
	}
	var document struct {
		Schema      string                     `json:"$schema"`
		Definitions map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(jsonSchema, &document); err != nil {
		return nil, fmt.Errorf("read schema.json: %w", err)
	}
	return json.MarshalIndent(struct {
		Schema      string                     `json:"$schema"`
		Title       string                     `json:"title"`
		Ref         string                     `json:"$ref"`
		Required    []string                   `json:"required"`
		Definitions map[string]json.RawMessage `json:"$defs"`
	}{document.Schema, "Isochrone " + name, "#/$defs/" + name, []string{"schema"}, document.Definitions}, "", "  ")
}
