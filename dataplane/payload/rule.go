package payload

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kinds are kinds of JSON values.
type kinds uint8

const (
	kindNull kinds = 1 << iota
	kindTrue
	kindFalse
	kindNumber // integers among them
	kindInteger
	kindString
	kindArray
	kindObject

	kindAny = kindNull | kindTrue | kindFalse | kindNumber | kindString | kindArray | kindObject
)

// String implements fmt.Stringer, for errors.
func (k kinds) String() string {
	var names []string
	for i, name := range []string{"null", "true", "false", "a number", "an integer", "a string", "an array", "an object"} {
		if k&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "nothing"
	}
	return strings.Join(names, " or ")
}

// rule is what the scanner asks of a value: all that is here, of the kinds of values that it is about. A nil rule asks nothing.
type rule struct {
	kinds kinds

	fields               []field
	index                map[string]int // of fields, if there are many
	required             uint64         // bits of fields
	closed               bool           // no other fields
	additional           *rule          // of other fields
	minFields, maxFields int            // maxFields is -1 for none, as are the other maxima

	items              *rule
	minItems, maxItems int

	minLength, maxLength int // in code points
	pattern              *regexp.Regexp
	enum                 []string // the strings that are allowed; nil for all

	bounds []bound
}

// newRule returns a rule that asks for kinds alone.
func newRule(k kinds) *rule { return &rule{kinds: k, maxFields: -1, maxItems: -1, maxLength: -1} }

// field is a field that a rule knows.
type field struct {
	name     string
	required bool
	notNull  bool
	bit      uint64 // in rule.required, if required
	rule     *rule
}

// bound is a bound of numbers.
type bound struct {
	value *big.Rat
	whole int64 // value, if exact
	exact bool
	low   bool // a minimum
	open  bool // exclusive
}

// fewFields are compared one by one.
const fewFields = 8

// seal makes the bits and the index of the fields. It reports whether there are few enough that are required.
func (r *rule) seal() bool {
	var bit uint64 = 1
	r.required, r.index = 0, nil
	for i := range r.fields {
		r.fields[i].bit = 0
		if r.fields[i].required {
			if bit == 0 {
				return false
			}
			r.fields[i].bit = bit
			r.required |= bit
			bit <<= 1
		}
	}
	if len(r.fields) > fewFields {
		r.index = make(map[string]int, len(r.fields))
		for i := range r.fields {
			r.index[r.fields[i].name] = i
		}
	}
	return true
}

// requiring returns a rule that also wants an object with fields that are not null.
func (r *rule) requiring(names []string) (*rule, bool) {
	if r == nil {
		r = newRule(kindAny)
	}
	made := *r
	if made.fields = slices.Clone(r.fields); len(names) > 0 {
		made.kinds &= kindObject
	}
	for _, name := range names {
		i := slices.IndexFunc(made.fields, func(f field) bool { return f.name == name })
		if i < 0 {
			if made.closed {
				return nil, false
			}
			i = len(made.fields)
			made.fields = append(made.fields, field{name: name, rule: made.additional})
		}
		made.fields[i].required, made.fields[i].notNull = true, true
	}
	return &made, made.seal()
}

// field returns the index of a field, or -1.
func (r *rule) field(name []byte) int {
	if r.index != nil {
		if i, ok := r.index[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := range r.fields {
		if r.fields[i].name == string(name) {
			return i
		}
	}
	return -1
}

func (r *rule) missing(bits uint64) string {
	var lacking, all []string
	for _, f := range r.fields {
		if f.required {
			all = append(all, f.name)
			if f.bit&bits != 0 {
				lacking = append(lacking, f.name)
			}
		}
	}
	return "it lacks " + strings.Join(lacking, ", ") + "; required are " + strings.Join(all, ", ")
}

func (s *scanner) checkKind(r *rule, at int, k kinds) bool {
	if r.kinds&k == 0 {
		s.fail(at, "it is not "+r.kinds.String())
		return false
	}
	return true
}

func (s *scanner) checkCount(at, n, low, high int, what string) bool {
	if n < low {
		s.fail(at, fmt.Sprintf("it has %d %s, want at least %d", n, what, low))
		return false
	}
	if high >= 0 && n > high {
		s.fail(at, fmt.Sprintf("it has %d %s, want at most %d", n, what, high))
		return false
	}
	return true
}

// checkText checks the string whose quotes are at at and end.
func (s *scanner) checkText(r *rule, at, end int, escaped bool) bool {
	if !s.checkKind(r, at, kindString) {
		return false
	}
	if r.minLength <= 0 && r.maxLength < 0 && r.pattern == nil && r.enum == nil {
		return true
	}
	text := s.body[at+1 : end]
	if escaped {
		s.scratch = unescape(s.scratch[:0], text)
		text = s.scratch
	}
	if r.minLength > 0 || r.maxLength >= 0 {
		switch n := utf8.RuneCount(text); {
		case n < r.minLength:
			s.fail(at, fmt.Sprintf("the text has %d characters, want at least %d", n, r.minLength))
			return false
		case r.maxLength >= 0 && n > r.maxLength:
			s.fail(at, fmt.Sprintf("the text has %d characters, want at most %d", n, r.maxLength))
			return false
		}
	}
	if r.pattern != nil && !r.pattern.Match(text) {
		s.fail(at, "the text does not match "+brief(r.pattern.String()))
		return false
	}
	if r.enum == nil {
		return true
	}
	for _, allowed := range r.enum {
		if string(text) == allowed {
			return true
		}
	}
	s.fail(at, "want one of "+brief(strings.Join(r.enum, ", ")))
	return false
}

// brief cuts a text of the policy.
func brief(text string) string {
	if len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}

// checkNumber checks the number from at to end.
func (s *scanner) checkNumber(r *rule, at, end int) bool {
	text := s.body[at:end]
	if r.kinds&kindNumber == 0 && (r.kinds&kindInteger == 0 || !isInteger(text)) {
		s.fail(at, "it is not "+r.kinds.String())
		return false
	}
	if len(r.bounds) == 0 {
		return true
	}
	whole, exact := smallInteger(text)
	var value *big.Rat
	for i := range r.bounds {
		b := &r.bounds[i]
		var order int // of the number and the bound
		switch {
		case exact && b.exact && whole < b.whole:
			order = -1
		case exact && b.exact && whole > b.whole:
			order = 1
		case !exact || !b.exact:
			if value == nil {
				value, _ = new(big.Rat).SetString(string(text))
			}
			order = value.Cmp(b.value)
		}
		if b.low {
			order = -order
		}
		if order > 0 || order == 0 && b.open {
			s.fail(at, "want a number "+b.String())
			return false
		}
	}
	return true
}

// String implements fmt.Stringer, for errors.
func (b *bound) String() string {
	text := b.value.RatString()
	switch {
	case b.low && b.open:
		return "over " + brief(text)
	case b.low:
		return "of at least " + brief(text)
	case b.open:
		return "under " + brief(text)
	}
	return "of at most " + brief(text)
}

// smallInteger returns the value of an integer without point and exponent, of up to 18 digits.
func smallInteger(text []byte) (int64, bool) {
	digits, sign := text, int64(1)
	if text[0] == '-' {
		digits, sign = text[1:], -1
	}
	if len(digits) > 18 {
		return 0, false
	}
	var value int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		value = value*10 + int64(c-'0')
	}
	return sign * value, true
}

// isInteger reports whether a number has no fraction: 1.0 and 10e-1 are integers too (JSON Schema core 2020-12, section 4.2.3).
func isInteger(text []byte) bool {
	if _, ok := smallInteger(text); ok {
		return true
	}
	if _, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return true
	}
	value, ok := new(big.Rat).SetString(string(text))
	return ok && value.IsInt()
}
