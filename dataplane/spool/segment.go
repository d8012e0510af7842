package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// segment is a file of records.
type segment struct {
	format
	name     string
	file     file
	size     int64
	reserved int64 // length up to which the file system has promised room
	live     int   // envelopes that are pending
	readers  int   // that have the file open
	removed  bool  // from the list; the last reader closes it
}

// leastReserved is the room that a segment has at least, or else the disk is full.
const leastReserved = 1 << 20

// room makes sure that the active segment has room for so many octets, and begins another one if not.
func (w *writer) room(length int) error {
	s, need := w.spool, int64(length)
	if g := w.active; g != nil && (g.size < s.options.SegmentBytes && g.size+need <= g.reserved) {
		return nil
	}
	if w.active != nil {
		if err := w.active.file.Truncate(w.active.size); err != nil { // gives back what was reserved and is not needed
			return err
		}
		w.active, w.unsynced = nil, false
	}
	name := fmt.Sprintf("%016d.segment", w.last+1)
	f, err := s.disk.Create(name)
	if err != nil {
		return full(err)
	}
	w.last++ // even if what follows fails: the file is there
	g := &segment{name: name, file: f}
	if err := w.begin(g, need); err != nil {
		return full(errors.Join(err, f.Close(), s.disk.Remove(name)))
	}
	w.active = g
	s.mu.Lock()
	s.segments = append(s.segments, g)
	s.mu.Unlock()
	return nil
}

// begin reserves the room of a new segment and writes its header.
func (w *writer) begin(g *segment, need int64) error {
	header := append([]byte(segmentMagic), make([]byte, 8)...)
	rand.Read(header[len(segmentMagic):])
	if err := w.reserve(g, need+int64(len(header))); err != nil {
		return err
	}
	if _, err := g.file.Write(header); err != nil {
		return err
	}
	g.format, g.size = formatOf(header), int64(len(header))
	return w.spool.disk.SyncNames()
}

// reserve takes room for a new segment. Where the file system has less than usual, a segment takes a quarter of that, so that it can be
// given up while others wait.
func (w *writer) reserve(g *segment, need int64) error {
	least := max(leastReserved, need)
	g.reserved = max(w.spool.options.SegmentBytes, need)
	err := g.file.Reserve(g.reserved)
	if err == nil || !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	for errors.Is(err, syscall.ENOSPC) && g.reserved > least {
		g.reserved = max(g.reserved/2, least)
		err = g.file.Reserve(g.reserved)
	}
	if err != nil || g.reserved == least {
		return err
	}
	g.reserved = max(g.reserved/4, least)
	return errors.Join(g.file.Truncate(0), g.file.Reserve(g.reserved))
}

// full says ErrFull of a file system that has no room.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// abandon ends the active segment after a failure: what is behind its last good record is not known and was not accepted, so it is cut off
// and nothing more is written. A file without a good record is removed, so that a broken disk does not fill with files. One whose records are
// settlements alone stays: they are of envelopes in older segments.
func (w *writer) abandon() {
	failed, s := w.active, w.spool
	if w.active, w.unsynced = nil, false; failed == nil {
		return
	}
	s.mu.Lock()
	needed := failed.live > 0 || failed.size > int64(segmentHeader)
	if !needed {
		s.segments = slices.DeleteFunc(s.segments, func(g *segment) bool { return g == failed })
		s.retire(failed)
	}
	s.mu.Unlock()
	// The failure that led here is reported.
	if needed {
		_ = failed.file.Truncate(failed.size)
	} else {
		_ = s.disk.Remove(failed.name)
	}
}

// retire closes a segment's file once nobody reads it. The caller holds mu.
func (s *Spool) retire(g *segment) {
	g.removed = true
	if g.readers == 0 {
		g.file.Close()
	}
}

// unpin ends a reading that began with readers++. The caller holds mu.
func (s *Spool) unpin(g *segment) {
	if g.readers--; g.readers == 0 && g.removed {
		g.file.Close()
	}
}

// clean gives up the oldest segments that nobody needs. When files take too much more than what is pending in them, and moving
// is allowed, the envelopes of the oldest one are moved to the newest.
func (s *Spool) clean(moving bool) {
	for {
		s.mu.Lock()
		if len(s.segments) == 0 || s.segments[0] == s.write.active {
			s.mu.Unlock()
			return
		}
		oldest := s.segments[0]
		var disk int64
		for _, g := range s.segments {
			disk += g.size
		}
		crowded := disk > 2*s.bytes+4*s.options.SegmentBytes
		live := oldest.live
		s.mu.Unlock()
		if live > 0 {
			if !crowded || !moving {
				return
			}
			if err := s.move(oldest); err != nil {
				s.options.Log.Error("the spool cannot make room", "error", err)
				s.write.abandon()
				return
			}
		}
		s.mu.Lock()
		s.segments = s.segments[1:]
		s.garbage = append(s.garbage, oldest.name)
		s.retire(oldest)
		s.mu.Unlock()
	}
}

// sweep removes the files of segments that nobody needs, once what became of their envelopes is told by the journal.
func (s *Spool) sweep() {
	s.mu.Lock()
	garbage := s.garbage
	s.garbage = nil
	s.mu.Unlock()
	if len(garbage) == 0 {
		return
	}
	s.journal.flush(true)
	for _, name := range garbage {
		err := s.disk.Remove(name)
		if err == nil {
			err = s.disk.SyncNames() // else it might be back after a crash without the segments that tell what was settled
		}
		if err != nil {
			s.options.Log.Error("the spool cannot remove a segment", "error", err)
		}
	}
}

// moveBytes is about how much is in memory while envelopes are moved.
const moveBytes = 1 << 20

// move writes the pending envelopes of a segment to the active one, under the numbers that they have.
func (s *Spool) move(from *segment) error {
	s.mu.Lock()
	var moved []*Item
	total := 0
	for _, item := range s.pending {
		if item.segment == from {
			moved = append(moved, item)
			total += item.length + recordHeader
		}
	}
	s.mu.Unlock()
	slices.SortFunc(moved, func(a, b *Item) int { return int(a.offset - b.offset) })
	w := &s.write
	if err := w.room(total + 64*len(moved)); err != nil { // a record of version 1 grows
		return err
	}
	offsets, lengths := make([]int64, len(moved)), make([]int, len(moved))
	buf, written := []byte(nil), w.active.size
	put := func() error {
		_, err := w.active.file.Write(buf)
		written += int64(len(buf))
		buf = buf[:0]
		return err
	}
	for i, item := range moved {
		e, err := from.read(item.offset, item.length)
		if err != nil {
			return err
		}
		start := len(buf)
		offsets[i] = written + int64(start)
		buf = appendRecord(buf, w.active.salt, kindEnvelope, item.seq, e.appendTo)
		lengths[i] = len(buf) - start
		if len(buf) >= moveBytes {
			if err := put(); err != nil {
				return err
			}
		}
	}
	if err := put(); err != nil {
		return err
	}
	if err := w.active.file.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.active.size = written
	for i, item := range moved {
		if item = s.pending[item.seq]; item == nil { // settled meanwhile; Return may have made another of it
			continue
		}
		s.bytes += int64(lengths[i] - item.length)
		if item.kept {
			s.memory += int64(lengths[i] - item.length)
		}
		item.segment, item.offset, item.length = w.active, offsets[i], lengths[i]
		from.live--
		w.active.live++
	}
	return nil
}

// read returns the envelope of the record at an offset.
func (g *segment) read(offset int64, length int) (*Envelope, error) {
	record := make([]byte, length)
	if _, err := g.file.ReadAt(record, offset); err != nil {
		return nil, fmt.Errorf("read %s at %d: %w", g.name, offset, err)
	}
	content, ok := g.parseRecord(record)
	if !ok {
		return nil, fmt.Errorf("read %s at %d: the record is damaged", g.name, offset)
	}
	e, err := g.parseEnvelope(content[contentHeader:])
	if err != nil {
		return nil, fmt.Errorf("read %s at %d: %w", g.name, offset, err)
	}
	return e, nil
}
