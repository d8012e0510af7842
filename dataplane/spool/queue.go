package spool

import (
	"context"
	"fmt"
	"time"
)

// itemBytes is about what an item takes beside what its record holds.
const itemBytes = 400

// keep has an item's envelope stay in memory, if there is room or it is on disk nowhere. The caller holds mu.
func (s *Spool) keep(item *Item, anyway bool) {
	cost := int64(item.length) + itemBytes
	if !anyway && s.memory+cost > s.options.MemoryBytes {
		item.Envelope = nil
		return
	}
	item.kept = true
	s.memory += cost
}

// offer puts an item at the end of the queue and wakes who waits. The caller holds mu.
func (s *Spool) offer(item *Item) {
	s.queue = append(s.queue, item)
	s.wake()
}

func (s *Spool) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Next takes the first envelope of the queue; it waits for one until ctx ends. What is taken must be settled by Delivered or
// Bury, or given back by Return or ReturnAt.
func (s *Spool) Next(ctx context.Context) (*Item, error) {
	var one [1]*Item
	items, err := s.Take(ctx, 1, one[:0])
	if err != nil {
		return nil, err
	}
	return items[0], nil
}

// Take takes up to max envelopes of the queue, at least one, and appends them to dst; it waits until there is one or ctx ends.
// Each is what Next would have returned.
func (s *Spool) Take(ctx context.Context, max int, dst []*Item) ([]*Item, error) {
	had := len(dst)
	for {
		if dst = s.take(max, dst); len(dst) > had {
			return dst, nil
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return dst, ctx.Err()
		}
	}
}

// take takes what there is. What is not in memory is read without holding the others up.
func (s *Spool) take(max int, dst []*Item) []*Item {
	had, absent := len(dst), []pinned(nil)
	s.mu.Lock()
	for s.head < len(s.queue) && len(dst)-had < max {
		item := s.queue[s.head]
		s.queue[s.head] = nil
		s.head++
		if item.done {
			continue
		}
		if item.Envelope == nil {
			item.segment.readers++
			absent = append(absent, pinned{item.segment, item.offset, item.length})
		}
		dst = append(dst, item)
	}
	switch {
	case s.head == len(s.queue):
		s.queue, s.head = s.queue[:0], 0
	case s.head > 1024 && s.head > len(s.queue)/2:
		s.queue, s.head = append(s.queue[:0], s.queue[s.head:]...), 0
		fallthrough
	default:
		s.wake() // there is work for another
	}
	s.mu.Unlock()
	if len(absent) == 0 {
		return dst
	}
	whole := dst[:had]
	for _, item := range dst[had:] {
		if item.Envelope == nil {
			from := absent[0]
			absent = absent[1:]
			if !s.load(item, from) {
				continue
			}
		}
		whole = append(whole, item)
	}
	if len(whole) == had { // none could be read; there may be others
		return s.take(max, whole)
	}
	return whole
}

// load reads an item's envelope back. One that cannot be read stays on disk, where it may yet be rescued; the next start tries
// again.
func (s *Spool) load(item *Item, from pinned) bool {
	e, err := from.read(from.offset, from.length)
	s.mu.Lock()
	s.unpin(from.segment)
	s.mu.Unlock()
	if err != nil {
		s.options.Log.Error("an accepted envelope cannot be read back", "error", err)
		return false
	}
	item.Envelope = e
	return true
}

// pinned is a record in a file that stays open meanwhile, even if the envelope is moved.
type pinned struct {
	*segment
	offset int64
	length int
}

// Return gives an item back, to the end of the queue. It is not the caller's any more.
func (s *Spool) Return(item *Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if item = s.returned(item); item != nil {
		s.offer(item)
	}
}

// returned makes what waits again of an item that was taken, or returns nil if it does not wait. The caller holds mu.
func (s *Spool) returned(item *Item) *Item {
	if s.pending[item.seq] == nil {
		return nil
	}
	item.Attempts++
	if item.kept {
		return item
	}
	again := *item // so that the caller may still look at what it had
	s.keep(&again, false)
	s.pending[item.seq] = &again
	return &again
}

// Acknowledge is Delivered where the cluster has no name.
func (s *Spool) Acknowledge(item *Item) { s.Delivered(item, "") }

// Delivered takes an envelope out of the queue for good: a cluster has it.
func (s *Spool) Delivered(item *Item, cluster string) {
	s.settle(item, Settlement{Acknowledged: true, Cluster: cluster})
}

// Bury makes an envelope a dead letter: a file in the folder dead, for an operator to look at. With an error it is still
// taken.
func (s *Spool) Bury(item *Item, reason string) error {
	if err := s.dead.add(item.Envelope, reason); err != nil {
		return fmt.Errorf("keep dead letter %s: %w", item.ID, err)
	}
	s.settle(item, Settlement{Reason: reason})
	return nil
}

func (s *Spool) settle(item *Item, how Settlement) {
	state, now := Delivered, time.Now().UnixNano()
	if !how.Acknowledged {
		state = DeadLettered
	}
	s.mu.Lock()
	e := item.Envelope
	item = s.pending[item.seq]
	if item == nil {
		s.mu.Unlock()
		return
	}
	item.done = true
	delete(s.pending, item.seq)
	s.bytes -= int64(item.length)
	s.count--
	if item.kept {
		s.memory -= int64(item.length) + itemBytes
	}
	if item.segment != nil {
		item.segment.live--
		s.settled = append(s.settled, settlement{item.seq, state, now})
	}
	s.mu.Unlock()
	s.journal.note(s.index.settle(e, item.slot, state, how, now))
	if item.settled != nil {
		item.settled(how)
	}
}
