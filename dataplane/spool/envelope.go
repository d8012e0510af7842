package spool

import (
	"fmt"
	"time"
)

// Envelope is one accepted payload. The spool keeps what Append was given, so neither the envelope nor its body may be changed
// until it is settled.
type Envelope struct {
	ID          string    // request id, unique
	SHA256      [32]byte  // of Body
	KeyID       string    // of the API key it came with
	Service     string    // host name
	ContentType string    // as the client sent it
	Window      int64     // number of the quota window that it was admitted in
	Traceparent string    // W3C Trace Context of the request, empty for none; in an agent's queue, other fields of its header behind it, a line each
	Received    time.Time // arrival, with a precision of nanoseconds
	Replayed    time.Time // when an operator put it back as a dead letter; zero for never
	Body        []byte

	Receipt string // what Options.Seal has made of it; not stored
}

// Queued is since when the envelope has been waiting for a cluster: its arrival, or when it was put back.
func (e *Envelope) Queued() time.Time {
	if e.Replayed.IsZero() {
		return e.Received
	}
	return e.Replayed
}

// texts are the fields of variable length in the order of a record, the body apart.
func (e *Envelope) texts() [5]*string {
	return [5]*string{&e.ID, &e.KeyID, &e.Service, &e.ContentType, &e.Traceparent}
}

// check reports what a record cannot hold.
func (e *Envelope) check() error {
	for _, text := range e.texts() {
		if len(*text) > 1<<12 {
			return fmt.Errorf("spool: a field of envelope %.40q has %d octets, more than 4096", e.ID, len(*text))
		}
	}
	if len(e.Body) > maxRecordContent-(1<<16) {
		return fmt.Errorf("spool: envelope %.40q has a body of %d octets, more than fit a record", e.ID, len(e.Body))
	}
	return nil
}

// Item is an envelope that is in the queue, or was taken from it.
type Item struct {
	*Envelope     // for who has taken the item
	Attempts  int // how often the item was given back by Return or ReturnAt

	// The spool's own, guarded by its mutex.
	seq     uint64
	segment *segment // nil until it is written
	offset  int64
	length  int    // of its record
	queued  int64  // Unix time in nanoseconds
	kept    bool   // the envelope is in memory while it waits
	done    bool   // settled
	slot    uint32 // of the index, if it has this core there
	core    uint64 // hash of the id's core, for those that were recovered
	settled func(Settlement)
}

// Settlement is how an envelope left the queue.
type Settlement struct {
	Acknowledged bool
	Cluster      string // that has acknowledged
	Reason       string // why the envelope is a dead letter, if not acknowledged
}
