package payload

import (
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/isochrone/isochrone/topology"
)

// Checker checks the payloads of one service. It is safe for concurrent use.
type Checker struct {
	types    types
	places   *places
	maxDepth int
	top      *rule // of the whole payload; nil for any value
	batch    *rule // of a JSON-RPC batch; nil without JSON-RPC
	rpc      *topology.JSONRPC
	full     *full // for a schema that the scanner cannot apply; else nil
}

// Compile makes the checker of a valid policy. Its errors are about policies that validation of a topology would refuse.
func Compile(in *topology.Intake) (*Checker, error) {
	if in.MaxDepth < 1 {
		return nil, fmt.Errorf("max_depth: %d is not in 1..512", in.MaxDepth)
	}
	c := &Checker{types: compileTypes(in.ContentTypes), maxDepth: in.MaxDepth, rpc: in.JSONRPC, places: compilePlaces(in.Elsewhere)}
	if in.JSONSchema != "" {
		schema, err := topology.CompileJSONSchema(in.JSONSchema)
		if err != nil {
			return nil, fmt.Errorf("json_schema %w", err)
		}
		fast, ok := compileRule(schema, map[*jsonschema.Schema]*rule{})
		if ok && in.JSONRPC == nil {
			c.top, ok = fast.requiring(in.RequiredFields)
		}
		if !ok || in.JSONRPC != nil {
			c.top, c.full = nil, newFull(in.JSONSchema)
		}
	}
	switch {
	case in.JSONRPC != nil:
		return c, c.compileRPC(in)
	case in.JSONSchema == "" || c.full != nil && len(in.RequiredFields) > 0:
		var ok bool
		if c.top, ok = newRule(kindObject).requiring(in.RequiredFields); !ok {
			return nil, errTooManyFields
		}
	}
	return c, nil
}

var errTooManyFields = errors.New("required_fields: at most 64 fields can be required")

// compileRPC makes the rules of JSON-RPC 2.0 requests. A schema and required fields are for each request of a batch.
func (c *Checker) compileRPC(in *topology.Intake) error {
	method := newRule(kindString)
	method.minLength = 1
	if len(in.JSONRPC.Methods) > 0 {
		method.enum = in.JSONRPC.Methods
	}
	version := newRule(kindString)
	version.enum = []string{"2.0"}
	request := newRule(kindObject)
	request.fields = []field{
		{name: "jsonrpc", required: true, rule: version},
		{name: "method", required: true, rule: method},
		{name: "params", rule: newRule(kindObject | kindArray)},
		{name: "id", rule: newRule(kindString | kindInteger | kindNull)},
	}
	request, ok := request.requiring(in.RequiredFields)
	if !ok {
		return errTooManyFields
	}
	c.top = request
	c.batch = newRule(kindArray)
	c.batch.items, c.batch.minItems, c.batch.maxItems = request, 1, in.JSONRPC.MaxBatch
	return nil
}

// Check reports why a body is not a payload of the service: a *Fault. It is as good as a status of 400.
func (c *Checker) Check(body []byte) error {
	s := newScanner(body, c.maxDepth)
	defer s.free()
	top, batch := c.top, false
	if c.batch != nil {
		if i := s.space(0); i < len(body) && body[i] == '[' {
			if c.rpc.MaxBatch == 0 {
				return &Fault{Offset: i, Want: "the service takes no JSON-RPC batches: want one request, an object"}
			}
			top, batch = c.batch, true
		}
	}
	if !s.document(top) {
		return s.fault()
	}
	if c.full == nil {
		return nil
	}
	return c.full.check(body, batch)
}

// Probe checks the body of a probe for what is asked of every payload, whatever the service: JSON in UTF-8, its names, its numbers. A probe
// cannot know what a service's schema wants.
func Probe(body []byte) error {
	s := newScanner(body, probeDepth)
	defer s.free()
	if !s.document(nil) {
		return s.fault()
	}
	return nil
}

const probeDepth = 32 // of nested objects and arrays
