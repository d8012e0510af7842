package spool

import (
	"encoding/binary"
	"slices"
)

// writer is what commit alone uses: one goroutine at a time.
type writer struct {
	spool    *Spool
	active   *segment // what records are written to, nil before the first and after a failure
	last     uint64   // number of the last file
	unsynced bool     // the last batch, which nobody waited for
	buf      []byte
	spare    []settlement
	sealing  []*Envelope
}

// maxKeptBuffer is the size up to which a buffer is kept for the next batch.
const maxKeptBuffer = 4 << 20

// commit writes a batch in one piece, and waits for the disk if any of it must be durable.
func (s *Spool) commit(batch []*entry) error {
	w := &s.write
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return ErrClosed
	}
	last := slices.ContainsFunc(batch, func(e *entry) bool { return e.last })
	if last {
		defer s.end()
	}
	settled := s.settled
	s.settled, w.spare = w.spare[:0], nil
	early := s.takeEarly()
	s.mu.Unlock()
	if len(early) > 0 {
		batch = append(early, batch...)
	}
	err := w.put(batch, settled)
	if err == nil && last && w.unsynced {
		err = w.active.file.Sync()
	}
	if err != nil {
		s.mu.Lock()
		s.settled = append(s.settled, settled...)
		s.early = append(s.early, early...)
		s.failing = true
		s.failures++
		s.mu.Unlock()
		w.abandon()
		s.clean(false) // on a full disk there may be room then
		s.options.Log.Error("the spool cannot write", "error", err)
		return err
	}
	w.spare = settled[:0]
	s.clean(true)
	return nil
}

// end has later commits fail.
func (s *Spool) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// takeEarly returns what AppendEarly has taken and no cluster has acknowledged yet. The caller holds mu.
func (s *Spool) takeEarly() []*entry {
	early := s.early
	s.early = nil
	return slices.DeleteFunc(early, func(e *entry) bool {
		if e.item.done {
			s.earlyLen -= int64(e.item.length)
		}
		return e.item.done
	})
}

// put writes and syncs a batch, and then offers its envelopes to those who forward.
func (w *writer) put(batch []*entry, settled []settlement) error {
	s := w.spool
	durable, length := false, 0
	for _, e := range batch {
		durable = durable || e.durable
		if e.item != nil {
			length += e.item.length
		}
	}
	if length == 0 && !durable && len(settled) == 0 {
		return nil
	}
	if err := w.room(length + recordHeader + contentHeader + 1 + settledLength*len(settled)); err != nil {
		return err
	}
	w.encode(batch, settled)
	if _, err := w.active.file.Write(w.buf); err != nil {
		return err
	}
	if w.unsynced = !durable; durable {
		if err := w.sync(batch); err != nil {
			return err
		}
	}
	s.index.mu.Lock()
	for _, e := range batch {
		if e.item != nil && !e.early {
			e.item.slot = s.index.add(e.item.Envelope)
		}
	}
	s.index.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	offset := w.active.size
	w.active.size += int64(len(w.buf))
	s.failing = s.failing && !durable
	for _, e := range batch {
		if e.item != nil {
			s.written(e, w.active, offset+e.offset)
		}
	}
	if cap(w.buf) > maxKeptBuffer {
		w.buf = nil
	}
	return nil
}

// written notes where an item is on disk. The caller holds mu.
func (s *Spool) written(e *entry, at *segment, offset int64) {
	item := e.item
	item.segment, item.offset = at, offset
	if e.early {
		s.earlyLen -= int64(item.length)
		if item.done { // before it was on disk
			s.settled = append(s.settled, settlement{item.seq, Delivered, 0})
			return
		}
		at.live++
		return
	}
	at.live++
	s.pending[item.seq] = item
	s.newest = max(s.newest, item.seq)
	s.oldest = min(s.oldest, item.seq)
	s.keep(item, false)
	s.offer(item)
}

// encode fills the buffer.
func (w *writer) encode(batch []*entry, settled []settlement) {
	salt := w.active.salt
	buf := w.buf[:0]
	if len(settled) > 0 || len(batch) == 0 || batch[0].item == nil {
		buf = appendSettled(buf, salt, settled)
	}
	for _, e := range batch {
		if e.item == nil {
			continue
		}
		start := len(buf)
		e.offset = int64(start)
		buf = append(buf, e.meta...)
		sealRecord(buf[start:], e.sum, salt)
		buf = append(buf, e.item.Body...)
	}
	w.buf = buf
}

// appendSettled appends one record for all settlements, or one that means nothing.
func appendSettled(buf, salt []byte, settled []settlement) []byte {
	if len(settled) == 0 {
		return appendRecord(buf, salt, kindNothing, 0, nil)
	}
	for part := range slices.Chunk(settled, 1<<16) {
		buf = appendRecord(buf, salt, kindSettled, 0, func(buf []byte) []byte {
			for _, one := range part {
				buf = binary.BigEndian.AppendUint64(buf, one.seq)
				buf = append(buf, byte(one.state))
				buf = binary.BigEndian.AppendUint64(buf, uint64(one.at))
			}
			return buf
		})
	}
	return buf
}

// sync waits for the disk, and has the envelopes sealed meanwhile.
func (w *writer) sync(batch []*entry) error {
	seal := w.spool.options.Seal
	if seal == nil {
		return w.active.file.Sync()
	}
	w.sealing = w.sealing[:0]
	for _, e := range batch {
		if e.item != nil && !e.early {
			w.sealing = append(w.sealing, e.item.Envelope)
		}
	}
	if len(w.sealing) == 0 {
		return w.active.file.Sync()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		seal(w.sealing)
	}()
	err := w.active.file.Sync()
	<-done
	clear(w.sealing)
	return err
}
