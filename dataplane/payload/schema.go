package payload

import (
	"math/big"
	"reflect"
	"regexp"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compileRule makes a rule of a compiled schema, if the scanner can apply all of it: type, enum and const of strings, booleans and null;
// properties, required, additionalProperties, minProperties, maxProperties; items, minItems, maxItems; minLength, maxLength, pattern;
// minimum, maximum and the exclusive ones; $ref alone. A schema of another draft, or that has anything else, is for the full validator.
func compileRule(s *jsonschema.Schema, known map[*jsonschema.Schema]*rule) (*rule, bool) {
	if s == nil {
		return nil, true
	}
	if s.Bool != nil {
		return nil, *s.Bool
	}
	if r := known[s]; r != nil {
		return r, true
	}
	if s.DraftVersion != 2020 || !isSimple(s) {
		return nil, false
	}
	if s.Ref != nil {
		if !isOnlyRef(s) || s.Ref.Ref != nil { // a chain may be a cycle
			return nil, false
		}
		return compileRule(s.Ref, known)
	}
	r := newRule(kindAny)
	known[s] = r
	ok := r.types(s) && r.enumerate(s) && r.object(s, known)
	if s.Pattern != nil {
		pattern, err := regexp.Compile(s.Pattern.String())
		ok = ok && err == nil
		r.pattern = pattern
	}
	r.minItems, r.maxItems = atLeast(s.MinItems), atMost(s.MaxItems)
	r.minLength, r.maxLength = atLeast(s.MinLength), atMost(s.MaxLength)
	r.bound(s.Minimum, true, false)
	r.bound(s.ExclusiveMinimum, true, true)
	r.bound(s.Maximum, false, false)
	r.bound(s.ExclusiveMaximum, false, true)
	if ok {
		r.items, ok = compileRule(s.Items2020, known)
	}
	return r, ok
}

// annotations of a schema ask nothing.
var annotations = []string{
	"DraftVersion", "Location", "ID", "Anchor", "DynamicAnchor", "Title", "Description", "Default", "Comment", "ReadOnly", "WriteOnly", "Examples",
	"Deprecated",
}

// applied are the keywords that a rule has.
var applied = []string{
	"Ref", "Types", "Enum", "Const", "MaxProperties", "MinProperties", "Required", "Properties", "AdditionalProperties", "MinItems", "MaxItems",
	"Items2020", "MinLength", "MaxLength", "Pattern", "Maximum", "Minimum", "ExclusiveMaximum", "ExclusiveMinimum",
}

// isSimple reports whether a schema has only keywords that a rule has. What a newer version of the library adds is not simple.
func isSimple(s *jsonschema.Schema) bool { return hasOnly(s, applied) }

func isOnlyRef(s *jsonschema.Schema) bool { return hasOnly(s, []string{"Ref"}) }

func hasOnly(s *jsonschema.Schema, keywords []string) bool {
	value := reflect.ValueOf(s).Elem()
	for i := range value.NumField() {
		f := value.Type().Field(i)
		if f.IsExported() && !value.Field(i).IsZero() && !slices.Contains(annotations, f.Name) && !slices.Contains(keywords, f.Name) {
			return false
		}
	}
	return true
}

// types reads type.
func (r *rule) types(s *jsonschema.Schema) bool {
	if s.Types == nil || s.Types.IsEmpty() {
		return true
	}
	r.kinds = 0
	for _, name := range s.Types.ToStrings() {
		k := map[string]kinds{
			"null": kindNull, "boolean": kindTrue | kindFalse, "number": kindNumber, "integer": kindInteger, "string": kindString, "array": kindArray,
			"object": kindObject,
		}[name]
		if k == 0 {
			return false
		}
		r.kinds |= k
	}
	return true
}

// enumerate reads enum and const.
func (r *rule) enumerate(s *jsonschema.Schema) bool {
	var values []any
	switch {
	case s.Enum != nil && s.Const != nil:
		return false
	case s.Enum != nil:
		values = s.Enum.Values
	case s.Const != nil:
		values = []any{*s.Const}
	default:
		return true
	}
	var found kinds
	r.enum = []string{}
	for _, value := range values {
		switch value := value.(type) {
		case nil:
			found |= kindNull
		case bool:
			if value {
				found |= kindTrue
			} else {
				found |= kindFalse
			}
		case string:
			found |= kindString
			r.enum = append(r.enum, value)
		default:
			return false
		}
	}
	r.kinds &= found
	return true
}

// object reads what is about objects.
func (r *rule) object(s *jsonschema.Schema, known map[*jsonschema.Schema]*rule) bool {
	r.minFields, r.maxFields = atLeast(s.MinProperties), atMost(s.MaxProperties)
	switch additional := s.AdditionalProperties.(type) {
	case nil:
	case bool:
		r.closed = !additional
	case *jsonschema.Schema:
		var ok bool
		if r.additional, ok = compileRule(additional, known); !ok {
			return false
		}
	default:
		return false
	}
	for name, schema := range s.Properties {
		value, ok := compileRule(schema, known)
		if !ok {
			return false
		}
		r.fields = append(r.fields, field{name: name, required: slices.Contains(s.Required, name), rule: value})
	}
	for _, name := range s.Required {
		if _, ok := s.Properties[name]; !ok {
			if r.closed { // it can never be there
				return false
			}
			if !slices.ContainsFunc(r.fields, func(f field) bool { return f.name == name }) {
				r.fields = append(r.fields, field{name: name, required: true, rule: r.additional})
			}
		}
	}
	slices.SortFunc(r.fields, func(a, b field) int { // those that are asked for first
		if a.required != b.required {
			if a.required {
				return -1
			}
			return 1
		}
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return r.seal()
}

// bound adds a bound of numbers.
func (r *rule) bound(value *big.Rat, low, open bool) {
	if value == nil {
		return
	}
	b := bound{value: value, low: low, open: open}
	if value.IsInt() && value.Num().IsInt64() {
		b.whole, b.exact = value.Num().Int64(), true
	}
	r.bounds = append(r.bounds, b)
}

func atLeast(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

func atMost(n *int) int {
	if n == nil || *n < 0 {
		return -1
	}
	return *n
}
