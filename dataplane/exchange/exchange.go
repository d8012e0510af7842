// Package exchange is one HTTP request and its answer, whatever version of HTTP carries them: what the intake works on, so that HTTP/3,
// which has a lean server of our own (package h3), and HTTP/2 and HTTP/1.1, which net/http serves, go through the same code.
package exchange

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/isochrone/isochrone/dataplane/overload"
)

// Request is a request. It is valid until its handler has returned; what Header returns may be kept.
type Request struct {
	Method        string
	Path          string // without the query; as it was sent, not decoded
	Query         string // after the first question mark
	Host          string // Host or :authority, with a port if one was sent
	Proto         string // h3, h2 or http/1.1
	Header        Header
	ContentLength int64 // -1 when it is not told
	Remote        netip.AddrPort
	Early         bool            // it came in TLS early data (0-RTT), or another server says so: it may be a repetition of an attacker (RFC 8470)
	Ticket        overload.Ticket // of a request that a Shedder has let in
	Body          Body
	Context       context.Context // ends when the client has given up, or its connection is lost
}

// Header has the fields of a request.
type Header interface {
	// Get returns the first value of a field, or nothing. The name is in canonical form, such as X-Api-Key.
	Get(name string) string
	// Repeated reports whether a field came in more than one line.
	Repeated(name string) bool
}

// Body is what is received after the header.
type Body interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// ErrLength is the error of reading a body that is longer or shorter than its Content-Length.
var ErrLength = errors.New("the body is not as long as its Content-Length")

// Field is a field of an answer.
type Field struct {
	Name  string // in lower case
	Value string
}

// Answer is what a handler fills in. The server reads it when the handler has returned.
type Answer struct {
	Status int
	Fields []Field
	Body   []byte
	// Rejected says that nobody has looked at the request, so that the client may send it again, elsewhere or over a new connection.
	// HTTP/3 can say that (H3_REQUEST_REJECTED, RFC 9114 section 4.1.1); over others the rest is the answer.
	Rejected bool
	Turn     overload.Turn // until which the client's connection is not heard after this answer
	Pause    time.Duration // for which neither
}

// Add adds a field.
func (a *Answer) Add(name, value string) { a.Fields = append(a.Fields, Field{name, value}) }

// Reset makes an answer empty and keeps its memory.
func (a *Answer) Reset() { *a = Answer{Fields: a.Fields[:0], Body: a.Body[:0]} }

// Handler answers requests. It may be called concurrently. It fills in the answer, which keeps nothing of it afterwards.
type Handler interface {
	Answer(*Request, *Answer)
}

// Shedder is a Handler that refuses some requests before anything is read of them but the header.
type Shedder interface {
	// Shed reports whether a request is refused, and how, or else let in with a Ticket. Of the request there is what its header tells.
	// It may be called concurrently, must not wait, and keeps nothing.
	Shed(*Request, *Answer) bool
}
