package h3

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/quic-go/qpack"

	"github.com/isochrone/isochrone/dataplane/exchange"
)

// header is a request's header. It is immutable.
type header struct {
	method, path, query, authority string
	contentLength                  int64
	expect                         bool // the client waits for 100 before it sends the body
	early                          bool
	fields                         fields
}

// fields are the regular fields in the order in which they came.
type fields []exchange.Field

// Get implements exchange.Header.
func (f fields) Get(name string) string {
	for i := range f {
		if len(f[i].Name) == len(name) && equalFold(f[i].Name, name) {
			return f[i].Value
		}
	}
	return ""
}

// Repeated implements exchange.Header.
func (f fields) Repeated(name string) bool {
	n := 0
	for i := range f {
		if len(f[i].Name) == len(name) && equalFold(f[i].Name, name) {
			n++
		}
	}
	return n > 1
}

// equalFold compares a name in lower case with one in canonical form.
func equalFold(lower, name string) bool {
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if lower[i] != c {
			return false
		}
	}
	return true
}

// maxFields is how many fields a header may have.
const maxFields = 128

var (
	errMalformed = errors.New("the header is malformed")
	errQPACK     = errors.New("the header cannot be decompressed")
	errLarge     = errors.New("the header is too large")
)

// parseHeader reads a field section. Its size counts as RFC 9114 section 4.2.2 says.
func parseHeader(block []byte, maxBytes int) (*header, error) {
	h := &header{contentLength: -1, fields: make(fields, 0, 12)}
	next := qpack.NewDecoder().Decode(block)
	size, scheme, seen := 0, "", 0
	for {
		f, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, errQPACK
		}
		if size += len(f.Name) + len(f.Value) + 32; size > maxBytes || len(h.fields) >= maxFields {
			return nil, errLarge
		}
		if !validValue(f.Value) {
			return nil, errMalformed
		}
		if f.IsPseudo() {
			to, bit := (*string)(nil), 0
			switch f.Name {
			case ":method":
				to, bit = &h.method, 1
			case ":path":
				to, bit = &h.path, 2
			case ":authority":
				to, bit = &h.authority, 4
			case ":scheme":
				to, bit = &scheme, 8
			}
			if to == nil || seen&bit != 0 || len(h.fields) > 0 { // unknown, twice, or after a regular field (RFC 9114 section 4.3)
				return nil, errMalformed
			}
			*to, seen = f.Value, seen|bit
			continue
		}
		if err := h.add(f.Name, f.Value); err != nil {
			return nil, err
		}
	}
	return h, h.finish(scheme)
}

// add takes a regular field.
func (h *header) add(name, value string) error {
	if !validName(name) {
		return errMalformed
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade": // RFC 9114 section 4.2
		return errMalformed
	case "te":
		if value != "trailers" {
			return errMalformed
		}
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || h.contentLength >= 0 && h.contentLength != int64(n) {
			return errMalformed
		}
		h.contentLength = int64(n)
	case "expect":
		h.expect = strings.EqualFold(value, "100-continue")
	case "early-data":
		h.early = value == "1"
	case "host":
		if h.authority != "" && h.authority != value {
			return errMalformed
		}
		h.authority = value
	}
	h.fields = append(h.fields, exchange.Field{Name: name, Value: value})
	return nil
}

// finish checks what must be there (RFC 9114 section 4.3.1).
func (h *header) finish(scheme string) error {
	if h.method == "" || !validToken(h.method) {
		return errMalformed
	}
	if h.method == "CONNECT" {
		return nil // has no path, and nobody takes it
	}
	if h.path == "" || scheme == "" || h.authority == "" && (scheme == "https" || scheme == "http") {
		return errMalformed
	}
	if strings.Contains(h.authority, "@") || h.path[0] != '/' && h.path != "*" {
		return errMalformed
	}
	h.path, h.query, _ = strings.Cut(h.path, "?")
	return nil
}

// validName reports whether a field name is a token in lower case.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return validToken(name)
}

// token has the characters of a token (RFC 9110 section 5.6.2).
var token = func() (set [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		set[c] = true
	}
	return set
}()

func validToken(text string) bool {
	for i := range len(text) {
		if !token[text[i]] {
			return false
		}
	}
	return text != ""
}

// validValue reports whether a field value has no control characters, which could pass for the end of a line elsewhere (RFC 9110
// section 5.5).
func validValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// remembered is the latest field section of a connection. Most clients send the same one with every request.
type remembered struct {
	block  []byte
	header *header
}

func (r *remembered) is(block []byte) bool { return r != nil && bytes.Equal(r.block, block) }

// staticStatus are the statuses with an entry in QPACK's static table (RFC 9204 appendix A).
var staticStatus = map[int]byte{103: 24, 200: 25, 304: 26, 404: 27, 503: 28, 100: 63, 204: 64, 206: 65, 302: 66, 400: 67, 403: 68, 421: 69, 425: 70, 500: 71}

// staticName are names of fields with an entry in the static table, whose index fits four bits with one octet more.
var staticName = map[string]byte{"content-type": 44, "content-length": 4, "location": 12, "alt-svc": 83}

// appendAnswer appends the frames of an answer: a field section that uses the static table alone, and the body.
func appendAnswer(buf []byte, a *exchange.Answer, noBody bool) []byte {
	section := make([]byte, 0, 512)
	section = append(section, 0, 0) // required insert count and base (RFC 9204 section 4.5.1)
	section = appendStatus(section, a.Status)
	for i := range a.Fields {
		section = appendField(section, a.Fields[i].Name, a.Fields[i].Value)
	}
	if !noBody {
		section = appendField(section, "content-length", strconv.Itoa(len(a.Body)))
	}
	buf = append(appendFrame(buf, frameHeaders, len(section)), section...)
	if len(a.Body) > 0 && !noBody {
		buf = append(appendFrame(buf, frameData, len(a.Body)), a.Body...)
	}
	return buf
}

func appendStatus(buf []byte, status int) []byte {
	if index, ok := staticStatus[status]; ok {
		return appendInteger(buf, 0xc0, 6, uint64(index))
	}
	buf = appendInteger(buf, 0x50, 4, 24) // literal with the name of entry 24, which is :status
	return appendText(buf, 0, 7, strconv.Itoa(status))
}

func appendField(buf []byte, name, value string) []byte {
	if index, ok := staticName[name]; ok {
		buf = appendInteger(buf, 0x50, 4, uint64(index))
	} else {
		buf = appendText(buf, 0x20, 3, name)
	}
	return appendText(buf, 0, 7, value)
}

// appendText appends a string literal, not compressed (RFC 9204 section 4.1.2).
func appendText(buf []byte, first byte, prefix int, text string) []byte {
	return append(appendInteger(buf, first, prefix, uint64(len(text))), text...)
}

// appendInteger appends an integer with a prefix of some bits (RFC 7541 section 5.1).
func appendInteger(buf []byte, first byte, prefix int, value uint64) []byte {
	if limit := uint64(1)<<prefix - 1; value < limit {
		return append(buf, first|byte(value))
	} else {
		buf = append(buf, first|byte(limit))
		value -= limit
	}
	for ; value >= 0x80; value >>= 7 {
		buf = append(buf, byte(value)|0x80)
	}
	return append(buf, byte(value))
}
