package dataplane

import (
	"errors"
	"io"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
)

// How fast a body must come: after bodyGrace at least bodyRate since its beginning.
const (
	bodyGrace = 10 * time.Second
	bodyRate  = 16 << 10 // octets in a second
)

// errSlowBody is why a body is not read to its end.
var errSlowBody = errors.New("the body comes too slowly")

// timedBody reads a body as long as it comes fast enough: it has ten seconds, and one more for each 16 KiB. For a body that comes at once
// it costs what one SetReadDeadline costs.
type timedBody struct {
	body       exchange.Body
	connection *connection
	began      time.Time
	until      time.Time // as the transport knows
	read       int64
}

// begin begins with the body of a request.
func (t *timedBody) begin(r *exchange.Request, now time.Time) {
	*t = timedBody{body: r.Body, connection: connectionOf(r.Context), began: now}
	t.extend()
}

func (t *timedBody) extend() {
	t.until = t.began.Add(bodyGrace + time.Duration(t.read)*time.Second/bodyRate)
	_ = t.body.SetReadDeadline(t.until) // unsupported by a recorder in a test
}

// Read implements io.Reader. It fails with errSlowBody, and the transport's error, when the body comes too slowly.
func (t *timedBody) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	before := t.read / bodyRate
	if t.read += int64(n); err == nil && t.read/bodyRate > before {
		t.extend()
		t.connection.moved()
	}
	if err != nil && err != io.EOF && time.Now().After(t.until) {
		err = errors.Join(errSlowBody, err)
	}
	return n, err
}
