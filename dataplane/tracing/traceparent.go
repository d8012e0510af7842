package tracing

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// Traceparent is the header field of W3C Trace Context (Recommendation of 23 November 2021, section 3.2): the trace that a request belongs
// to, the span that it comes from, and whether that is recorded.
type Traceparent struct {
	TraceID [16]byte
	Parent  [8]byte
	Sampled bool
}

// Octets of the header field in version 00.
const (
	traceparentLength = 55
	parentAt          = 36
	flagsAt           = 53
)

// Parse reads a header field. It returns false for what is to be treated as if it were not there: another form, an id of zeros, the
// version ff, upper case. Of a later version it reads what version 00 has (section 4.3). It does not allocate.
func Parse(header string) (t Traceparent, ok bool) {
	if len(header) < traceparentLength || header[2] != '-' || header[parentAt-1] != '-' || header[flagsAt-1] != '-' {
		return Traceparent{}, false
	}
	var version, flags [1]byte
	if !unhex(version[:], header[:2]) || version[0] == 0xff || !unhex(flags[:], header[flagsAt:traceparentLength]) {
		return Traceparent{}, false
	}
	if len(header) > traceparentLength && (version[0] == 0 || header[traceparentLength] != '-') {
		return Traceparent{}, false
	}
	if !unhex(t.TraceID[:], header[3:parentAt-1]) || !unhex(t.Parent[:], header[parentAt:flagsAt-1]) {
		return Traceparent{}, false
	}
	if t.TraceID == [16]byte{} || t.Parent == [8]byte{} {
		return Traceparent{}, false
	}
	t.Sampled = flags[0]&1 != 0
	return t, true
}

// unhex decodes lower-case hexadecimal digits, twice as many as dst has octets.
func unhex(dst []byte, digits string) bool {
	for i := range dst {
		high, low := nibble(digits[2*i]), nibble(digits[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

// nibble returns the value of a lower-case hexadecimal digit, and more than 15 for anything else.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// Append appends the header field in version 00.
func (t Traceparent) Append(dst []byte) []byte {
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, t.TraceID[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, t.Parent[:])
	if t.Sampled {
		return append(dst, "-01"...)
	}
	return append(dst, "-00"...)
}

// String returns the header field in version 00.
func (t Traceparent) String() string { return string(t.Append(make([]byte, 0, traceparentLength))) }

// child is the header field of a request that is made on behalf of another: the same trace, a parent of our own.
func (t Traceparent) child() Traceparent {
	t.Parent = newSpanID()
	return t
}

// Child returns the header field for a request that is made on behalf of one that came with a header field: the same trace and flag, with
// another parent. Of an empty or wrong field it makes one of a new trace that is not recorded.
func Child(traceparent string) string {
	return string(AppendChild(make([]byte, 0, traceparentLength), traceparent))
}

// AppendChild is Child that appends, and allocates nothing if there is room.
func AppendChild(dst []byte, traceparent string) []byte {
	t, ok := Parse(traceparent)
	if !ok {
		t.TraceID = newTraceID()
	}
	return t.child().Append(dst)
}

// newTraceID returns an id that is not zero. The ids of traces are no secrets, but clients see them: the source is seeded by the system and
// cannot be predicted from what it told (ChaCha8).
func newTraceID() (id [16]byte) {
	for id == [16]byte{} {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id [8]byte) {
	for id == [8]byte{} {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
