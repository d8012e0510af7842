package spool

import (
	"fmt"
	"strings"
	"sync"
)

// entry is what a commit writes.
type entry struct {
	item    *Item // nil writes nothing, durably when durable is set
	durable bool
	early   bool
	last    bool   // no commit comes after this one
	meta    []byte // the record without the body, which is the envelope's own
	sum     uint32 // checksum without the salt
	offset  int64  // in the batch
}

var entries = sync.Pool{New: func() any { return new(entry) }}

// encode makes the record of an item, but for the salt of a segment that is not known yet.
func (e *entry) encode(item *Item) {
	e.item, e.durable, e.early = item, true, false
	e.meta = item.appendMeta(beginRecord(e.meta[:0], kindEnvelope, item.seq))
	e.sum = endRecord(e.meta, 0, item.Body)
}

// recycle gives an entry back.
func (e *entry) recycle() {
	e.item = nil
	entries.Put(e)
}

// Append returns when the envelope is on disk, or an error. The function, which may be nil, is called once when the
// envelope has left the queue, unless the process ends before; it must not block.
func (s *Spool) Append(e *Envelope, settled func(Settlement)) error { return s.append(e, settled, 0) }

// append is Append of what will free so many octets of dead letters.
func (s *Spool) append(e *Envelope, settled func(Settlement), frees int64) error {
	item, err := s.admit(e, settled, false, frees)
	if err != nil {
		return err
	}
	entry := entries.Get().(*entry)
	entry.encode(item)
	err = s.group.Do(entry)
	entry.recycle()
	if err != nil {
		s.mu.Lock()
		s.bytes -= int64(item.length)
		s.count--
		s.mu.Unlock()
		return fmt.Errorf("append to spool: %w", err)
	}
	return nil
}

// AppendEarly returns before the envelope is on disk, where it comes within a quarter of a second: a crash of the process or
// of the machine until then loses it, unless a cluster has it already. It fails as Append does, and with ErrFull while
// Options.EarlyBytes wait for the disk. While the disk takes no writes the envelope stays in memory and is tried again.
func (s *Spool) AppendEarly(e *Envelope, settled func(Settlement)) error {
	item, err := s.admit(e, settled, true, 0)
	if err != nil {
		return err
	}
	entry := new(entry) // it may wait for long, so it is none of the pool
	entry.encode(item)
	entry.early = true
	s.index.mu.Lock()
	item.slot = s.index.add(e)
	s.index.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // meanwhile
		s.bytes -= int64(item.length)
		s.earlyLen -= int64(item.length)
		s.count--
		return ErrClosed
	}
	s.early = append(s.early, entry)
	s.pending[item.seq] = item
	s.newest = max(s.newest, item.seq)
	s.oldest = min(s.oldest, item.seq)
	s.keep(item, true)
	s.offer(item)
	return nil
}

// admit checks that there is room, takes it, and makes an item.
func (s *Spool) admit(e *Envelope, settled func(Settlement), early bool, frees int64) (*Item, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	length := recordHeader + contentHeader + e.size()
	item := &Item{Envelope: e, length: length, queued: e.Queued().UnixNano(), settled: settled}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.bytes+int64(length)+s.dead.size()-frees > s.options.MaxBytes || s.count >= s.options.MaxEnvelopes:
		return nil, ErrFull
	case early && (s.earlyLen+int64(length) > s.options.EarlyBytes || s.failing):
		return nil, fmt.Errorf("%w: the disk is behind", ErrFull)
	}
	s.bytes += int64(length)
	s.count++
	s.lastSeq++
	item.seq = s.lastSeq
	if early {
		s.earlyLen += int64(length)
	}
	return item, nil
}

// Check writes a record that means nothing and returns when it is on disk: whether Append would succeed.
func (s *Spool) Check() error {
	s.mu.Lock()
	full := s.bytes+s.dead.size() >= s.options.MaxBytes || s.count >= s.options.MaxEnvelopes
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case full:
		return ErrFull
	}
	return s.group.Do(&entry{durable: true})
}

// claims are the cores of requests that are being stored.
type claims struct {
	mu      sync.Mutex
	waiting map[string]chan struct{} // closed when that is over
}

// AppendOnce is Append for a request whose id depends on what the client calls it, an Idempotency-Key. If this PoP has
// accepted one with the same core (CoreOf) before, nothing is stored and that one is returned; the caller compares its
// SHA256. Of several at a time one is stored, and the others wait for it. What left the queue longer ago than
// Options.OutcomeAge, or came before Options.Outcomes others, is not known any more.
func (s *Spool) AppendOnce(e *Envelope, settled func(Settlement)) (earlier *Outcome, err error) {
	core := CoreOf(e.ID)
	for {
		s.claims.mu.Lock()
		other := s.claims.waiting[core]
		if other == nil {
			break
		}
		s.claims.mu.Unlock()
		<-other
	}
	if known, ok := s.ByCore(core); ok {
		s.claims.mu.Unlock()
		return &known, nil
	}
	done := make(chan struct{})
	s.claims.waiting[core] = done
	s.claims.mu.Unlock()
	defer func() {
		s.claims.mu.Lock()
		delete(s.claims.waiting, core)
		s.claims.mu.Unlock()
		close(done)
	}()
	return nil, s.Append(e, settled)
}

// CoreOf returns the part of a request id that does not depend on the PoP.
func CoreOf(id string) string {
	if _, core, found := strings.Cut(id, "."); found {
		return core
	}
	return id
}
