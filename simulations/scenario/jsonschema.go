package scenario

import (
	_ "embed"
	"encoding/json"
	"errors"
	"sync"

	"github.com/isochrone/isochrone/topology"
)

//go:embed schema.json
var schemaText []byte

// fromTopology are the definitions of a topology's schema that a scenario's uses.
var fromTopology = []string{
	"label", "duration", "address", "prefix", "popNames", "rank", "within", "weights", "costs", "failover", "rules", "rule", "anycast",
}

// JSONSchema returns the JSON Schema (2020-12) of a scenario's file, for editors. Whoever calls must not change it.
var JSONSchema = sync.OnceValue(func() []byte {
	type schema struct {
		Schema      string                     `json:"$schema"`
		Title       string                     `json:"title"`
		Description string                     `json:"description"`
		Type        string                     `json:"type"`
		Additional  bool                       `json:"additionalProperties"`
		Required    []string                   `json:"required"`
		Properties  json.RawMessage            `json:"properties"`
		Definitions map[string]json.RawMessage `json:"$defs"`
	}
	var ours, theirs schema
	err := errors.Join(json.Unmarshal(schemaText, &ours), json.Unmarshal(topology.JSONSchema(), &theirs))
	if err != nil {
		panic("scenario: schema.json: " + err.Error())
	}
	for _, name := range fromTopology {
		ours.Definitions[name] = theirs.Definitions[name]
	}
	text, err := json.MarshalIndent(ours, "", "  ")
	if err != nil {
		panic("scenario: schema.json: " + err.Error())
	}
	return text
})
