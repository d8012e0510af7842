package payload

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzSchema makes a schema and a payload of seeds, and holds the scanner's rules to the full validator: both take a payload, or neither.
func FuzzSchema(f *testing.F) {
	for i := range uint64(200) {
		f.Add(i, i*7, "")
	}
	f.Add(uint64(1), uint64(2), `{"a":1.0,"b":"é\u0061","c":[null,true]}`)
	f.Fuzz(func(t *testing.T, schemaSeed, bodySeed uint64, body string) {
		text := mustJSON(schemaOf(rand.New(rand.NewPCG(schemaSeed, 1)), 3))
		c, err := Compile(policy(with(text)))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if c.full != nil {
			t.Fatalf("%s: not compiled to rules", text)
		}
		whole := newFull(text)
		r := rand.New(rand.NewPCG(bodySeed, 2))
		bodies := []string{body}
		for range 20 {
			bodies = append(bodies, valueOf(r, 3))
		}
		for _, body := range bodies {
			if Probe([]byte(body)) != nil {
				continue
			}
			got, want := c.Check([]byte(body)), whole.check([]byte(body), false)
			if (got == nil) != (want == nil) {
				t.Fatalf("schema %s\npayload %s\nrules: %v\nfull: %v", text, body, got, want)
			}
		}
	})
}

var (
	fieldNames = []string{"a", "b", "c", "é"}
	texts      = []string{"", "a", "abc", "é", "0x1f", "😀😀"}
	numbers    = []string{"0", "-0", "1", "1.0", "10e-1", "1.5", "-2", "3", "1e2", "1E400", "9223372036854775807", "9223372036854775808", "0.30", "1e-400"}
)

func one[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// schemaOf makes a schema of the keywords that rules have.
func schemaOf(r *rand.Rand, depth int) any {
	if r.IntN(8) == 0 {
		return true
	}
	s := map[string]any{}
	switch r.IntN(4) {
	case 0:
		s["type"] = one(r, []string{"object", "array", "string", "number", "integer", "boolean", "null"})
	case 1:
		s["type"] = []string{"integer", one(r, []string{"string", "null", "boolean"}), one(r, []string{"object", "array"})}
	}
	maybe := func(n int, keyword string, value func() any) {
		if r.IntN(n) == 0 {
			s[keyword] = value()
		}
	}
	count := func() any { return r.IntN(4) }
	numeral := func() any { return json.Number(one(r, numbers)) }
	for _, keyword := range []string{"minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength"} {
		maybe(8, keyword, count)
	}
	for _, keyword := range []string{"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"} {
		maybe(8, keyword, numeral)
	}
	maybe(8, "pattern", func() any { return one(r, []string{"^a", "^0x[0-9a-f]+$", "é", "^.{2}$", "c$"}) })
	maybe(10, "enum", func() any { return []any{one(r, texts), one(r, texts), one(r, []any{nil, true, false, "x"})} })
	if s["enum"] == nil {
		maybe(20, "const", func() any { return one(r, []any{nil, true, "a", "é"}) })
	}
	if depth == 0 {
		return s
	}
	maybe(2, "properties", func() any {
		properties := map[string]any{}
		for range r.IntN(4) {
			properties[one(r, fieldNames)] = schemaOf(r, depth-1)
		}
		return properties
	})
	maybe(3, "additionalProperties", func() any { return schemaOf(r, depth-1) })
	maybe(3, "items", func() any { return schemaOf(r, depth-1) })
	if s["additionalProperties"] == nil {
		maybe(3, "required", func() any { return fieldNames[:r.IntN(3)] })
		if s["required"] == nil {
			maybe(3, "additionalProperties", func() any { return false })
		}
	}
	maybe(20, "properties", func() any { return map[string]any{"a": map[string]any{"$ref": "#"}} })
	return s
}

// valueOf makes JSON, in many ways of writing it.
func valueOf(r *rand.Rand, depth int) string {
	n := 6
	if depth == 0 {
		n = 4
	}
	switch r.IntN(n) {
	case 0:
		return one(r, []string{"null", "true", "false"})
	case 1:
		return one(r, numbers)
	case 2, 3:
		return written(r, one(r, texts))
	case 4:
		var items []string
		for range r.IntN(4) {
			items = append(items, valueOf(r, depth-1))
		}
		return "[" + strings.Join(items, " ,") + "]"
	}
	var fields []string
	for _, name := range fieldNames {
		if r.IntN(2) == 0 {
			fields = append(fields, written(r, name)+": "+valueOf(r, depth-1))
		}
	}
	return "{" + strings.Join(fields, ",\n") + "}"
}

// written writes a string, sometimes by escapes.
func written(r *rand.Rand, text string) string {
	if r.IntN(3) > 0 {
		return mustJSON(text)
	}
	var b strings.Builder
	for _, c := range text {
		if c < 0x10000 {
			fmt.Fprintf(&b, `\u%04x`, c)
		} else {
			b.WriteRune(c)
		}
	}
	return `"` + b.String() + `"`
}

func mustJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
