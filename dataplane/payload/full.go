package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/isochrone/isochrone/topology"
)

// A full validation may take that many steps, and so many more for each octet: a schema that refers to itself in several ways could take
// exponential time otherwise. A step is a value and a schema it is held against, or an item of it.
const (
	steps         = 100_000
	stepsPerOctet = 64
)

// full validates by the library.
type full struct {
	instances sync.Pool // of *instance: steps are counted in the schema, so a schema has one user at a time
}

// instance is a compiled schema whose steps are counted.
type instance struct {
	schema *jsonschema.Schema
	left   int
}

func newFull(schema string) *full {
	return &full{instances: sync.Pool{New: func() any {
		made := &instance{}
		var err error
		if made.schema, err = topology.CompileJSONSchema(schema); err != nil {
			panic(err) // it compiled before
		}
		topology.WalkJSONSchema(made.schema, made.count)
		return made
	}}}
}

var errSteps = errors.New("too many steps")

// count has the steps of a schema counted. Its format is evaluated before anything that can go on to other schemas.
func (in *instance) count(s *jsonschema.Schema) {
	format := s.Format
	s.Format = &jsonschema.Format{Name: "steps", Validate: func(v any) error {
		in.left--
		switch v := v.(type) {
		case map[string]any:
			in.left -= len(v)
		case []any:
			in.left -= len(v)
		}
		if in.left < 0 {
			return errSteps
		}
		if format != nil {
			return format.Validate(v)
		}
		return nil
	}}
}

// check validates a body that the scanner has passed. Of a batch, each item is held against the schema.
func (f *full) check(body []byte, batch bool) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return &Fault{Offset: -1, Want: "it cannot be decoded"} // the scanner takes no such thing
	}
	in := f.instances.Get().(*instance)
	defer f.instances.Put(in)
	in.left = steps + stepsPerOctet*len(body)
	if items, ok := value.([]any); ok && batch {
		for i, item := range items {
			if err := in.validate(item, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return in.validate(value)
}

func (in *instance) validate(value any, at ...string) error {
	err := in.schema.Validate(value)
	if in.left < 0 {
		return &Fault{Offset: -1, Want: "it takes too many steps to hold it against the schema: want a smaller or flatter one"}
	}
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return &Fault{Offset: -1, Want: "it does not conform to the schema"}
	}
	first := leaf(invalid)
	return &Fault{Offset: -1, Pointer: pointer(append(at, first.InstanceLocation...)), Want: want(first)}
}

// leaf returns the cause that is told: of the causes of causes the one whose place comes first.
func leaf(e *jsonschema.ValidationError) *jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return e
	}
	var first *jsonschema.ValidationError
	for _, cause := range e.Causes {
		if l := leaf(cause); first == nil || compare(l, first) < 0 {
			first = l
		}
	}
	return first
}

func compare(a, b *jsonschema.ValidationError) int {
	if order := slices.Compare(a.InstanceLocation, b.InstanceLocation); order != 0 {
		return order
	}
	return strings.Compare(a.SchemaURL, b.SchemaURL)
}

// want tells what would be right. Nothing that the payload has is repeated.
func want(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		return "want " + strings.Join(k.Want, " or ")
	case *kind.Required:
		return "it lacks " + brief(strings.Join(k.Missing, ", "))
	case *kind.Pattern:
		return "the text does not match " + brief(k.Want)
	case *kind.AdditionalProperties:
		return "it has fields that are not the schema's: want no other fields"
	case *kind.FalseSchema:
		return "the schema allows nothing here"
	case nil:
		return "it does not conform to the schema"
	default:
		return "it does not conform to " + strings.Join(k.KeywordPath(), "/") + " of the schema"
	}
}
