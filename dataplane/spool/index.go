package spool

import (
	"crypto/sha256"
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// State is what has become of an envelope.
type State uint8

// The states of an envelope.
const (
	Pending State = 1 + iota
	Delivered
	DeadLettered
)

// String returns the word that receipts use.
func (s State) String() string {
	switch s {
	case Pending:
		return "accepted"
	case Delivered:
		return "delivered"
	case DeadLettered:
		return "dead-lettered"
	}
	return "unknown"
}

// Outcome is what is remembered of an envelope that was accepted.
type Outcome struct {
	ID       string
	SHA256   [32]byte
	KeyID    string
	Service  string
	Accepted time.Time // arrival of the payload, as in its receipt
	State    State
	Settled  time.Time // when it left the queue; zero while it is pending
	Cluster  string    // that has it, if it is known
	Reason   string    // why it is a dead letter
}

// index remembers the outcomes of the last envelopes, in a ring. An entry has no pointers, and takes 112 octets; with the map
// from cores to entries that is 150 for each of a million.
type index struct {
	max int
	age time.Duration

	mu    sync.Mutex
	seed  maphash.Seed
	pages [][]remembered // of pageSize, as many as were needed so far
	next  uint32         // slot that is written next, over the oldest once all are in use
	slots map[uint64]uint32
	names texts
}

const pageSize = 1 << 10

// remembered is an Outcome without pointers.
type remembered struct {
	sha256            [32]byte
	core              [32]byte // or its hash, if it is longer
	hash              uint64   // of the core; the key of slots
	accepted, settled int64    // Unix time in nanoseconds; 0 for none
	pop, key, service uint32   // numbers of names
	why               uint32   // cluster or reason
	again             uint32   // seconds from accepted until it was put back as a dead letter, rounded up; 0 for never
	state             State
	coreLength        uint8 // 255 if core is a hash
	taken             bool
}

// texts are strings that many envelopes share.
type texts struct {
	list    []string
	numbers map[string]uint32
}

// maxTexts is how many there are at most; beyond it a text is not remembered.
const maxTexts = 1 << 17

func (t *texts) number(text string) uint32 {
	if n, ok := t.numbers[text]; ok {
		return n
	}
	if len(t.list) >= maxTexts {
		return 0
	}
	text = string([]byte(text)) // not a part of something longer
	t.list = append(t.list, text)
	t.numbers[text] = uint32(len(t.list) - 1)
	return uint32(len(t.list) - 1)
}

func newIndex(max int, age time.Duration) *index {
	x := &index{max: max, age: age, seed: maphash.MakeSeed(), slots: map[uint64]uint32{}, names: texts{numbers: map[string]uint32{}}}
	x.names.number("") // 0
	return x
}

func (x *index) slot(n uint32) *remembered { return &x.pages[n/pageSize][n%pageSize] }

// add remembers an envelope as pending, over the oldest if there are too many, and returns its slot. The caller holds mu.
func (x *index) add(e *Envelope) uint32 {
	r, n := x.place()
	core := CoreOf(e.ID)
	pop := e.ID[:len(e.ID)-len(core)]
	*r = remembered{
		sha256: e.SHA256, hash: maphash.String(x.seed, core), accepted: e.Received.UnixNano(), again: e.again(), pop: x.names.number(pop), key: x.names.number(e.KeyID),
		service: x.names.number(e.Service), state: Pending, taken: true,
	}
	r.core, r.coreLength = packCore(core)
	x.slots[r.hash] = n
	return n
}

// again is what remembered has of Replayed.
func (e *Envelope) again() uint32 {
	if e.Replayed.IsZero() {
		return 0
	}
	return uint32(max(1, math.Ceil(e.Replayed.Sub(e.Received).Seconds())))
}

// queued is since when the envelope was in the queue last, to the second above.
func (r *remembered) queued() int64 { return r.accepted + int64(r.again)*int64(time.Second) }

// place frees the next slot.
func (x *index) place() (*remembered, uint32) {
	n := x.next
	if x.next++; int(x.next) >= x.max {
		x.next = 0
	}
	if int(n/pageSize) >= len(x.pages) {
		x.pages = append(x.pages, make([]remembered, min(pageSize, x.max)))
	}
	r := x.slot(n)
	if r.taken {
		if at, ok := x.slots[r.hash]; ok && at == n {
			delete(x.slots, r.hash)
		}
	}
	return r, n
}

// find returns what is remembered of a core. The caller holds mu.
func (x *index) find(core string) (*remembered, uint32) {
	n, ok := x.slots[maphash.String(x.seed, core)]
	if !ok {
		return nil, 0
	}
	r := x.slot(n)
	if packed, length := packCore(core); packed != r.core || length != r.coreLength {
		return nil, 0
	}
	return r, n
}

// packCore returns a core as it is, or its hash if it is longer than that.
func packCore(core string) (packed [32]byte, length uint8) {
	if len(core) > len(packed) {
		return sha256.Sum256([]byte(core)), 255
	}
	length = uint8(copy(packed[:], core))
	return packed, length
}

// settle notes how an envelope left the queue, and returns that.
func (x *index) settle(e *Envelope, slot uint32, state State, how Settlement, now int64) Outcome {
	o := Outcome{
		ID: e.ID, SHA256: e.SHA256, KeyID: e.KeyID, Service: e.Service, Accepted: e.Received, State: state,
		Settled: time.Unix(0, now), Cluster: how.Cluster, Reason: how.Reason,
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.slot(slot)
	if packed, _ := packCore(CoreOf(e.ID)); !r.taken || r.core != packed || r.sha256 != e.SHA256 {
		return o // forgotten for newer ones
	}
	o.Accepted = time.Unix(0, r.accepted)
	r.state, r.settled, r.why = state, now, x.names.number(how.Cluster+how.Reason) // one of them is empty
	return o
}

// restore remembers an outcome that was read from disk.
func (x *index) restore(o *Outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, _ := x.find(CoreOf(o.ID))
	if r != nil && r.state == Pending && r.queued() > o.Settled.UnixNano() { // put back since then, or another one of the same core
		return
	}
	if r == nil || r.sha256 != o.SHA256 {
		n := x.add(&Envelope{ID: o.ID, SHA256: o.SHA256, KeyID: o.KeyID, Service: o.Service, Received: o.Accepted})
		r = x.slot(n)
	}
	r.state, r.settled, r.why = o.State, o.Settled.UnixNano(), x.names.number(o.Cluster+o.Reason)
}

// Lookup tells what has become of the envelope with an id, if this PoP has accepted it and remembers.
func (s *Spool) Lookup(id string) (Outcome, bool) {
	o, ok := s.ByCore(CoreOf(id))
	if !ok || o.ID != id {
		return Outcome{}, false
	}
	return o, true
}

// ByCore tells what has become of the last envelope whose id has this core (CoreOf), if this PoP has accepted it and remembers.
func (s *Spool) ByCore(core string) (Outcome, bool) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	r, _ := x.find(core)
	if r == nil || r.state != Pending && time.Since(time.Unix(0, r.settled)) > x.age {
		return Outcome{}, false
	}
	o := Outcome{
		ID: x.names.list[r.pop] + core, SHA256: r.sha256, KeyID: x.names.list[r.key], Service: x.names.list[r.service],
		Accepted: time.Unix(0, r.accepted), State: r.state,
	}
	if r.settled != 0 {
		o.Settled = time.Unix(0, r.settled)
	}
	switch why := x.names.list[r.why]; r.state {
	case Delivered:
		o.Cluster = why
	case DeadLettered:
		o.Reason = why
	}
	return o, true
}
