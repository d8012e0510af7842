package payload

import (
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
)

// The bounds of numbers. They are forwarded as they are; the bounds spare those behind us, and the full validator, numbers that are only
// there to cost.
const (
	maxDigits   = 64  // of a number, those of its exponent among them
	maxExponent = 999 // and its negative
)

// scanner reads one body. It is used again for another one.
type scanner struct {
	body     []byte
	maxDepth int
	names    []name   // of all objects that are open, the innermost last
	slots    []uint32 // hash tables of those that have many names
	arena    []byte   // names that had escapes, without them
	scratch  []byte   // a text that had escapes, without them
	seed     maphash.Seed

	at    int    // of the fault
	want  string // of the fault; empty if there is none
	steps []string
}

var scanners = sync.Pool{New: func() any { return &scanner{seed: maphash.MakeSeed()} }}

func newScanner(body []byte, maxDepth int) *scanner {
	s := scanners.Get().(*scanner)
	s.begin(body, maxDepth)
	return s
}

func (s *scanner) begin(body []byte, maxDepth int) {
	s.body, s.maxDepth = body, maxDepth
	s.names, s.slots, s.arena, s.want, s.steps = s.names[:0], s.slots[:0], s.arena[:0], "", nil
}

// free gives the scanner back, unless a body made it large.
func (s *scanner) free() {
	if s.body = nil; cap(s.names)*16+cap(s.slots)*4+cap(s.arena)+cap(s.scratch) < 128<<10 {
		scanners.Put(s)
	}
}

// fail notes the first fault, and returns -1.
func (s *scanner) fail(at int, want string) int {
	if s.want == "" {
		s.at, s.want = at, want
	}
	return -1
}

func (s *scanner) fault() error {
	slices.Reverse(s.steps)
	return &Fault{Offset: s.at, Pointer: pointer(s.steps), Want: s.want}
}

// document reads the body to its end: one value, with white space around it.
func (s *scanner) document(r *rule) bool {
	if len(s.body) == 0 {
		s.fail(0, "it is empty: want JSON")
		return false
	}
	if len(s.body) >= 3 && string(s.body[:3]) == "\ufeff" {
		s.fail(0, "it begins with a byte order mark: want JSON without one")
		return false
	}
	i := s.value(s.space(0), 0, r)
	if i < 0 {
		return false
	}
	if i = s.space(i); i < len(s.body) {
		s.fail(i, "something follows the JSON value: want nothing but white space")
		return false
	}
	return true
}

// space returns the first octet from i on that is not white space.
func (s *scanner) space(i int) int {
	for i < len(s.body) {
		if c := s.body[i]; c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			break
		}
		i++
	}
	return i
}

// value reads a value and returns where it ends, or -1.
func (s *scanner) value(i, depth int, r *rule) int {
	if i >= len(s.body) {
		return s.fail(i, "it ends here: want a value")
	}
	switch c := s.body[i]; c {
	case '{':
		return s.object(i, depth+1, r)
	case '[':
		return s.array(i, depth+1, r)
	case '"':
		end, escaped := s.text(i + 1)
		if end < 0 || r != nil && !s.checkText(r, i, end, escaped) {
			return -1
		}
		return end + 1
	case 't':
		return s.literal(i, "true", kindTrue, r)
	case 'f':
		return s.literal(i, "false", kindFalse, r)
	case 'n':
		return s.literal(i, "null", kindNull, r)
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.fail(i, "no JSON value begins so: want {, [, a quote, a number, true, false or null")
		}
		end := s.number(i)
		if end < 0 || r != nil && !s.checkNumber(r, i, end) {
			return -1
		}
		return end
	}
}

func (s *scanner) literal(i int, text string, k kinds, r *rule) int {
	end := i + len(text)
	if end > len(s.body) || string(s.body[i:end]) != text {
		return s.fail(i, "no JSON value begins so: want "+text)
	}
	if r != nil && !s.checkKind(r, i, k) {
		return -1
	}
	return end
}

func (s *scanner) array(i, depth int, r *rule) int {
	if depth > s.maxDepth {
		return s.fail(i, "objects and arrays are nested deeper than "+strconv.Itoa(s.maxDepth))
	}
	var items *rule
	if r != nil {
		if !s.checkKind(r, i, kindArray) {
			return -1
		}
		items = r.items
	}
	begin, n := i, 0
	if i = s.space(i + 1); i < len(s.body) && s.body[i] == ']' {
		i++
	} else {
		for more := true; more; n++ {
			if i = s.value(i, depth, items); i < 0 {
				s.steps = append(s.steps, strconv.Itoa(n))
				return -1
			}
			if i = s.space(i); i >= len(s.body) || s.body[i] != ',' && s.body[i] != ']' {
				return s.fail(i, "want , or ] after an item")
			}
			if more = s.body[i] == ','; more {
				i = s.space(i + 1)
			} else {
				i++
			}
		}
	}
	if r != nil && !s.checkCount(begin, n, r.minItems, r.maxItems, "items") {
		return -1
	}
	return i
}

func (s *scanner) object(i, depth int, r *rule) int {
	if depth > s.maxDepth {
		return s.fail(i, "objects and arrays are nested deeper than "+strconv.Itoa(s.maxDepth))
	}
	if r != nil && !s.checkKind(r, i, kindObject) {
		return -1
	}
	begin, o := i, opened{names: len(s.names), slots: len(s.slots), arena: len(s.arena)}
	var seen uint64
	if i = s.space(i + 1); i < len(s.body) && s.body[i] == '}' {
		i++
	} else {
		for more := true; more; {
			if i = s.member(i, depth, r, &o, &seen); i < 0 {
				return -1
			}
			if i = s.space(i); i >= len(s.body) || s.body[i] != ',' && s.body[i] != '}' {
				return s.fail(i, "want , or } after a field")
			}
			if more = s.body[i] == ','; more {
				i = s.space(i + 1)
			} else {
				i++
			}
		}
	}
	n := len(s.names) - o.names
	s.names, s.slots, s.arena = s.names[:o.names], s.slots[:o.slots], s.arena[:o.arena]
	if r != nil {
		if missing := r.required &^ seen; missing != 0 {
			return s.fail(begin, r.missing(missing))
		}
		if !s.checkCount(begin, n, r.minFields, r.maxFields, "fields") {
			return -1
		}
	}
	return i
}

// member reads a name and its value.
func (s *scanner) member(i, depth int, r *rule, o *opened, seen *uint64) int {
	if i >= len(s.body) || s.body[i] != '"' {
		return s.fail(i, "want a field's name in quotes")
	}
	begin := i
	end, escaped := s.text(i + 1)
	if end < 0 {
		return -1
	}
	n := name{from: uint32(i + 1), to: uint32(end)}
	if escaped {
		n.from = uint32(len(s.arena)) | inArena
		s.arena = unescape(s.arena, s.body[i+1:end])
		n.to = uint32(len(s.arena))
	}
	text := s.nameText(n)
	if !s.add(o, n, text) {
		if s.want == "" {
			s.steps = append(s.steps, string(text))
		}
		return s.fail(begin, "the field is there twice: want each name once in an object")
	}
	if i = s.space(end + 1); i >= len(s.body) || s.body[i] != ':' {
		return s.fail(i, "want : after a field's name")
	}
	i = s.space(i + 1)
	var value *rule
	if r != nil {
		value = r.additional
		if f := r.field(text); f >= 0 {
			known := &r.fields[f]
			if value = known.rule; !known.notNull || i < len(s.body) && s.body[i] != 'n' {
				*seen |= known.bit
			}
		} else if r.closed {
			s.steps = append(s.steps, string(text))
			return s.fail(begin, "the field is not one of the schema's: want no other fields")
		}
	}
	if i = s.value(i, depth, value); i < 0 {
		s.steps = append(s.steps, string(s.nameText(n)))
	}
	return i
}

// number reads a number by RFC 8259 section 6, and keeps it in its bounds.
func (s *scanner) number(i int) int {
	begin := i
	if s.body[i] == '-' {
		i++
	}
	whole := i
	i = s.digits(i)
	digits := i - whole
	if digits == 0 {
		return s.fail(i, "want a digit")
	}
	if digits > 1 && s.body[whole] == '0' {
		return s.fail(begin, "the number begins with 0: want no leading zeros")
	}
	if i < len(s.body) && s.body[i] == '.' {
		fraction := i + 1
		if i = s.digits(fraction); i == fraction {
			return s.fail(i, "want a digit after the point")
		}
		digits += i - fraction
	}
	if i < len(s.body) && s.body[i]|0x20 == 'e' {
		if i++; i < len(s.body) && (s.body[i] == '+' || s.body[i] == '-') {
			i++
		}
		exponent, value := i, 0
		if i = s.digits(i); i == exponent {
			return s.fail(i, "want a digit of the exponent")
		}
		for _, c := range s.body[exponent:i] {
			value = min(value*10+int(c-'0'), maxExponent+1)
		}
		if value > maxExponent {
			return s.fail(begin, "the number's exponent is out of -999..999")
		}
		digits += i - exponent
	}
	if digits > maxDigits {
		return s.fail(begin, "the number has more than 64 digits: send it as a string")
	}
	return i
}

func (s *scanner) digits(i int) int {
	for i < len(s.body) && s.body[i]-'0' <= 9 {
		i++
	}
	return i
}
