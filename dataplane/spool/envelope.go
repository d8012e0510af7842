package spool

import (
	"time"
)

// Envelope is one accepted payload.
type Envelope struct {
	ID          string    // request id, unique
	SHA256      [32]byte  // of Body
	KeyID       string    // of the API key it came with
	Service     string    // host name
	ContentType string    // as the client sent it
	Window      int64     // number of the quota window that it was admitted in
	Traceparent string    // W3C Trace Context of the request, empty for none
	Received    time.Time // arrival, with a precision of nanoseconds
	Body        []byte
}

// Item is an envelope that was taken from the queue.
type Item struct {
	Envelope
	Attempts int // how often the item was given back by Return
	seq      uint64
}

// Settlement is how an envelope left the queue.
type Settlement struct {
	Acknowledged bool
	Reason       string // why the envelope is a dead letter, if not acknowledged
}
