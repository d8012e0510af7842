package dataplane

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// How fast a body must come: after bodyGrace at least bodyRate since its beginning.
const (
	bodyGrace = 10 * time.Second
	bodyRate  = 16 << 10 // octets in a second
)

// ErrSlowBody is why a body is not read to its end.
var ErrSlowBody = errors.New("the body comes too slowly")

// timedBody reads a body as long as it comes fast enough.
type timedBody struct {
	body       io.Reader
	control    *http.ResponseController
	connection *connection
	began      time.Time
	until      time.Time // as the transport knows
	read       int64
}

// TimedBody returns the body of a request, whose reads fail with ErrSlowBody, and the transport's error, when it comes too slowly:
// it has ten seconds, and one more for each 16 KiB. For a body that comes at once it costs what one SetReadDeadline costs.
func TimedBody(w http.ResponseWriter, r *http.Request) io.Reader {
	t := &timedBody{body: r.Body, control: http.NewResponseController(w), connection: connectionOf(r.Context()), began: time.Now()}
	t.extend()
	return t
}

func (t *timedBody) extend() {
	t.until = t.began.Add(bodyGrace + time.Duration(t.read)*time.Second/bodyRate)
	_ = t.control.SetReadDeadline(t.until) // unsupported by a recorder in a test
}

// Read implements io.Reader.
func (t *timedBody) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	before := t.read / bodyRate
	if t.read += int64(n); err == nil && t.read/bodyRate > before {
		t.extend()
		t.connection.moved()
	}
	if err != nil && err != io.EOF && time.Now().After(t.until) {
		err = errors.Join(ErrSlowBody, err)
	}
	return n, err
}
