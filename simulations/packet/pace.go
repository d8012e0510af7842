package packet

import (
	"io"
	"net/http"
	"time"
)

// tick is a moment of virtual time that is counted in no figure. What was begun before it is done after it.
const tick = time.Nanosecond

// Pace has a client say what it says in one order. A request's header, its body and what a new connection begins with are written by goroutines that
// race, so that they travel in one datagram or in several, and with losses that matters for milliseconds. It is for the Wrap of package intakeclient,
// and costs each request a few nanoseconds.
func Pace(transport http.RoundTripper) http.RoundTripper { return &paced{transport} }

type paced struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p *paced) RoundTrip(r *http.Request) (*http.Response, error) {
	<-time.After(tick)
	if r.Body != nil {
		r.Body = &pacedBody{ReadCloser: r.Body}
	}
	return p.RoundTripper.RoundTrip(r)
}

// pacedBody is read after a tick.
type pacedBody struct {
	io.ReadCloser
	read bool
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	if !b.read {
		b.read = true
		<-time.After(tick)
	}
	return b.ReadCloser.Read(p)
}
