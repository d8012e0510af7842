package payload

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The bounds of JSON that no policy changes.
const (
	maxDigits   = 64      // of a number before its exponent
	maxExponent = 9999    // and -9999
	maxNames    = 100_000 // of fields in all objects of a payload
)

// Error says what is wrong with a payload, and where.
type Error struct {
	Offset  int    // in octets from the beginning; -1 when all of it is meant
	Pointer string // JSON Pointer (RFC 6901) to the value, empty for the whole
	Problem string
}

// Error implements error. It has no more than 40 octets of the payload in it, beside the pointer.
func (e *Error) Error() string {
	if e.Offset < 0 {
		return "the payload " + e.Problem
	}
	if e.Pointer == "" {
		return fmt.Sprintf("the payload %s (at octet %d)", e.Problem, e.Offset)
	}
	return fmt.Sprintf("the payload %s (at octet %d, in %.200s)", e.Problem, e.Offset, e.Pointer)
}

// kind is that of a JSON value, by its first octet.
type kind byte

const (
	object kind = '{'
	array  kind = '['
	text   kind = '"'
	null   kind = 'n'
	yes    kind = 't'
	no     kind = 'f'
	number kind = '0'
)

// span is a part of the payload.
type span struct{ start, end int }

// name is the name of a field of an object that is being read.
type name struct {
	hash    uint64
	span         // without the quotes
	escaped bool // it has escapes
}

// scanner reads one payload at a time. It is used again, so that it allocates nothing.
type scanner struct {
	data    []byte
	pos     int
	checker *Checker
	names   []name // of all objects that are open
	counted int    // names so far
	tables  tables
	scratch [2][]byte // names without their escapes
	found   uint64    // required fields, by bit
	rpc     rpcFields
	fault   *Error
	path    []string // to the fault, the innermost first
}

var seed = maphash.MakeSeed()

// scan reports what is wrong with a payload.
func (s *scanner) scan(data []byte, c *Checker) error {
	s.data, s.pos, s.checker, s.counted, s.found, s.fault = data, 0, c, 0, 0, nil
	s.names, s.path = s.names[:0], s.path[:0]
	defer func() {
		s.data, s.fault = nil, nil
		s.tables.reset()
		if cap(s.names) > 4096 {
			s.names = nil
		}
	}()
	s.space()
	if s.pos == len(data) {
		return &Error{Offset: -1, Problem: "is empty"}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return &Error{Offset: -1, Problem: "begins with a byte order mark, which JSON does not have"}
	}
	switch k := kind(data[s.pos]); {
	case k == object || c.schema != nil:
	case c.rpc != nil && k == array && c.rpc.MaxBatch > 0:
	case strings.IndexByte(`["tfn-0123456789`, byte(k)) >= 0:
		return &Error{Offset: -1, Problem: "is not an object"}
	}
	if !s.value(0) {
		s.fault.Pointer = s.pointer()
		return s.fault
	}
	if s.space(); s.pos < len(data) {
		return &Error{Offset: s.pos, Problem: "goes on after its end"}
	}
	return s.missing()
}

// missing reports required fields that are not there.
func (s *scanner) missing() error {
	all := uint64(1)<<len(s.checker.required) - 1
	if s.found == all {
		return nil
	}
	var lacks []string
	for i, field := range s.checker.required {
		if s.found&(1<<i) == 0 {
			lacks = append(lacks, field)
		}
	}
	return &Error{Offset: -1, Problem: fmt.Sprintf("lacks %s; required are %s", strings.Join(lacks, ", "), strings.Join(s.checker.required, ", "))}
}

// pointer returns the JSON pointer of the fault.
func (s *scanner) pointer() string {
	var b strings.Builder
	for i := len(s.path) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(s.path[i]))
	}
	return b.String()
}

// fail notes the first fault, and returns false.
func (s *scanner) fail(at int, format string, arguments ...any) bool {
	if s.fault == nil {
		s.fault = &Error{Offset: at, Problem: fmt.Sprintf(format, arguments...)}
	}
	return false
}

// excerpt returns what is at a position, for a person.
func (s *scanner) excerpt(at int) string {
	if at >= len(s.data) {
		return "its end"
	}
	return fmt.Sprintf("%.20q", s.data[at:min(at+10, len(s.data))])
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// value reads a value. Depth counts the objects and arrays around it.
func (s *scanner) value(depth int) bool {
	if s.pos == len(s.data) {
		return s.fail(s.pos, "ends where a value is wanted")
	}
	switch c := s.data[s.pos]; {
	case c == '{' || c == '[':
		if depth >= s.checker.maxDepth {
			return s.fail(s.pos, "is nested deeper than %d", s.checker.maxDepth)
		}
		if c == '{' {
			return s.object(depth)
		}
		return s.array(depth)
	case c == '"':
		_, _, ok := s.text()
		return ok
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return s.fail(s.pos, "has %s where a value is wanted", s.excerpt(s.pos))
}

func (s *scanner) word(want string) bool {
	if s.pos+len(want) > len(s.data) || string(s.data[s.pos:s.pos+len(want)]) != want {
		return s.fail(s.pos, "has %s where a value is wanted", s.excerpt(s.pos))
	}
	s.pos += len(want)
	return true
}

// object reads an object.
func (s *scanner) object(depth int) bool {
	first := len(s.names)
	ok := s.fields(depth, first)
	s.tables.release(first)
	s.names = s.names[:first]
	return ok
}

func (s *scanner) fields(depth, first int) bool {
	root := depth == 0 || depth == 1 && s.rpc.batch
	if root && s.checker.rpc != nil {
		s.rpc.begin(depth)
	}
	s.pos++
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == '}' {
		s.pos++
		return !root || s.checker.rpc == nil || s.rpc.end(s)
	}
	for {
		if s.pos == len(s.data) || s.data[s.pos] != '"' {
			return s.fail(s.pos, "has %s where the name of a field is wanted", s.excerpt(s.pos))
		}
		at := s.pos
		in, escaped, ok := s.text()
		if !ok {
			return false
		}
		n := name{span: in, escaped: escaped}
		if !s.add(n, first, at) {
			return false
		}
		if s.space(); s.pos == len(s.data) || s.data[s.pos] != ':' {
			return s.fail(s.pos, "has %s where a colon is wanted", s.excerpt(s.pos))
		}
		s.pos++
		s.space()
		start := s.pos
		if !s.value(depth + 1) {
			s.path = append(s.path, string(s.plain(n, 0)))
			return false
		}
		if root {
			s.field(n, depth, span{start, s.pos})
		}
		s.space()
		if s.pos == len(s.data) {
			return s.fail(s.pos, "ends inside an object")
		}
		switch s.data[s.pos] {
		case ',':
			s.pos++
			s.space()
			continue
		case '}':
			s.pos++
			return !root || s.checker.rpc == nil || s.rpc.end(s)
		}
		return s.fail(s.pos, "has %s where a comma or the end of an object is wanted", s.excerpt(s.pos))
	}
}

// field notes a field of the outermost object.
func (s *scanner) field(n name, depth int, value span) {
	if s.checker.rpc != nil {
		s.rpc.field(s, n, value)
	}
	if depth > 0 || len(s.checker.required) == 0 || s.data[value.start] == 'n' {
		return
	}
	plain := s.plain(n, 0)
	for i, want := range s.checker.required {
		if string(plain) == want {
			s.found |= 1 << i
		}
	}
}

// array reads an array.
func (s *scanner) array(depth int) bool {
	batch := depth == 0 && s.checker.rpc != nil
	if batch {
		s.rpc.batch = true
		defer func() { s.rpc.batch = false }()
	}
	at := s.pos
	s.pos++
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == ']' {
		s.pos++
		if batch {
			return s.fail(at, "is an empty batch")
		}
		return true
	}
	for i := 0; ; i++ {
		start := s.pos
		if batch && i == s.checker.rpc.MaxBatch {
			return s.fail(start, "is a batch of more than %d requests", s.checker.rpc.MaxBatch)
		}
		if batch && s.pos < len(s.data) && s.data[s.pos] != '{' {
			return s.fail(start, "is a batch with something that is not a request")
		}
		if !s.value(depth + 1) {
			s.path = append(s.path, strconv.Itoa(i))
			return false
		}
		s.space()
		if s.pos == len(s.data) {
			return s.fail(s.pos, "ends inside an array")
		}
		switch s.data[s.pos] {
		case ',':
			s.pos++
			s.space()
			continue
		case ']':
			s.pos++
			return true
		}
		return s.fail(s.pos, "has %s where a comma or the end of an array is wanted", s.excerpt(s.pos))
	}
}

// number reads a number (RFC 8259 section 6).
func (s *scanner) number() bool {
	at, digits := s.pos, 0
	if s.data[s.pos] == '-' {
		s.pos++
	}
	switch n := s.digits(); {
	case n == 0:
		return s.fail(at, "has %s where a number is wanted", s.excerpt(at))
	case n > 1 && s.data[s.pos-n] == '0':
		return s.fail(at, "has a number that begins with 0")
	default:
		digits = n
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		n := s.digits()
		if n == 0 {
			return s.fail(at, "has a number without digits after its point")
		}
		digits += n
	}
	if digits > maxDigits {
		return s.fail(at, "has a number of %d digits; at most %d are taken, more belong in a string", digits, maxDigits)
	}
	if s.pos < len(s.data) && s.data[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		n := s.digits()
		if n == 0 {
			return s.fail(at, "has a number without digits in its exponent")
		}
		exponent := bytes.TrimLeft(s.data[s.pos-n:s.pos], "0")
		if len(exponent) > len("9999") {
			return s.fail(at, "has a number whose exponent is not in -%d..%d", maxExponent, maxExponent)
		}
	}
	return true
}

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// text reads a string, and returns it without its quotes.
func (s *scanner) text() (in span, escaped, ok bool) {
	start := s.pos + 1
	for p := start; ; {
		for p+8 <= len(s.data) && plainWord(binary.LittleEndian.Uint64(s.data[p:])) {
			p += 8
		}
		if p >= len(s.data) {
			return in, escaped, s.fail(start-1, "ends inside a string")
		}
		switch c := s.data[p]; {
		case c == '"':
			s.pos = p + 1
			return span{start, p}, escaped, true
		case c == '\\':
			escaped = true
			n := s.escape(p)
			if n == 0 {
				return in, escaped, false
			}
			p += n
		case c < 0x20:
			return in, escaped, s.fail(p, "has a control character in a string: write \\u%04x", c)
		case c < utf8.RuneSelf:
			p++
		default:
			r, n := utf8.DecodeRune(s.data[p:])
			if r == utf8.RuneError && n == 1 {
				return in, escaped, s.fail(p, "is not UTF-8")
			}
			p += n
		}
	}
}

// plainWord reports whether eight octets are ASCII without quotation mark, backslash and control characters.
func plainWord(w uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quotes, slashes := w^(ones*'"'), w^(ones*'\\')
	return (w|(w-ones*0x20)|(quotes-ones)|(slashes-ones))&highs == 0
}

// escape checks the escape at p, and returns its length, 0 if it is none. A surrogate must have its other half: alone it stands for no
// character, and parsers differ in what they make of it (RFC 8259 section 8.2).
func (s *scanner) escape(p int) int {
	if p+1 < len(s.data) {
		switch s.data[p+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			return 2
		case 'u':
			first, ok := s.hex(p + 2)
			if !ok {
				break
			}
			if !utf16.IsSurrogate(first) {
				return 6
			}
			if p+7 < len(s.data) && s.data[p+6] == '\\' && s.data[p+7] == 'u' {
				if second, ok := s.hex(p + 8); ok && utf16.DecodeRune(first, second) != utf8.RuneError {
					return 12
				}
			}
			s.fail(p, "has half a surrogate pair in a string")
			return 0
		}
	}
	s.fail(p, "has %s in a string, which is no escape", s.excerpt(p))
	return 0
}

// hex reads four hexadecimal digits.
func (s *scanner) hex(p int) (rune, bool) {
	var value [2]byte
	if p+4 > len(s.data) {
		return 0, false
	}
	_, err := hex.Decode(value[:], s.data[p:p+4])
	return rune(binary.BigEndian.Uint16(value[:])), err == nil
}

// plain returns a name without its escapes, in one of two places if it has any.
func (s *scanner) plain(n name, place int) []byte {
	raw := s.data[n.start:n.end]
	if !n.escaped {
		return raw
	}
	out := s.scratch[place][:0]
	for p := 0; p < len(raw); {
		if raw[p] != '\\' {
			out = append(out, raw[p])
			p++
			continue
		}
		c := raw[p+1]
		if c == 'u' {
			r, _ := s.hex(n.start + p + 2)
			if p += 6; utf16.IsSurrogate(r) {
				low, _ := s.hex(n.start + p + 2)
				r = utf16.DecodeRune(r, low)
				p += 6
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		if i := strings.IndexByte("bfnrt", c); i >= 0 {
			c = "\b\f\n\r\t"[i]
		}
		out = append(out, c)
		p += 2
	}
	s.scratch[place] = out
	return out
}
