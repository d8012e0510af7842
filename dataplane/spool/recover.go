package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// recover reads all segments. Nothing is written to them any more.
func (s *Spool) recover() error {
	names, err := s.disk.List()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		number, ok := segmentNumber(name)
		if !ok {
			continue
		}
		s.write.last = max(s.write.last, number)
		if err := s.recoverSegment(name); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	for _, item := range s.pending {
		s.bytes += int64(item.length)
		s.count++
		s.queue = append(s.queue, item)
	}
	slices.SortFunc(s.queue, func(a, b *Item) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	if s.newest = s.lastSeq; len(s.queue) > 0 {
		s.oldest = s.queue[0].seq
		s.wake()
	}
	return nil
}

// segmentNumber reads the name of a segment's file.
func segmentNumber(name string) (number uint64, ok bool) {
	if !strings.HasSuffix(name, ".segment") {
		return 0, false
	}
	_, err := fmt.Sscanf(name, "%d.segment", &number)
	return number, err == nil && name == fmt.Sprintf("%016d.segment", number)
}

func (s *Spool) recoverSegment(name string) error {
	f, err := s.disk.Open(name)
	if err != nil {
		return err
	}
	g := &segment{name: name, file: f}
	if g.size, g.format, err = header(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if g.version == 0 && g.size >= int64(segmentHeader) {
		// It stays where it is: what is in it may have been accepted.
		s.options.Log.Error("a file of the spool is not a segment, or of a newer version; its envelopes wait for a program that knows it",
			"file", name)
		return f.Close()
	}
	s.segments = append(s.segments, g)
	if g.version == 0 { // a crash came before its header was on disk, so nothing in it was accepted
		return nil
	}
	if err := f.Truncate(g.size); err != nil { // gives back what was reserved
		s.options.Log.Warn("a segment's reserved room cannot be given back", "file", name, "error", err)
	}
	lost, err := g.scan(f, g.size, func(offset int64, content []byte) {
		seq := binary.BigEndian.Uint64(content[1:])
		s.lastSeq = max(s.lastSeq, seq)
		switch content[0] {
		case kindEnvelope:
			err = errors.Join(err, s.recoverEnvelope(g, seq, offset, content))
		case kindSettled:
			s.recoverSettled(seq, Delivered, 0) // of version 1, or number 0
			for rest := content[contentHeader:]; len(rest) >= settledLength; rest = rest[settledLength:] {
				seq := binary.BigEndian.Uint64(rest)
				s.lastSeq = max(s.lastSeq, seq)
				s.recoverSettled(seq, State(rest[8]), int64(binary.BigEndian.Uint64(rest[9:])))
			}
		}
	})
	if lost > 0 {
		s.options.Log.Warn("a segment of the spool has octets that are no record, as after a crash", "file", name, "octets", lost)
	}
	return err
}

// recoverEnvelope finds an envelope, or finds it once more where it was moved.
func (s *Spool) recoverEnvelope(g *segment, seq uint64, offset int64, content []byte) error {
	e, err := g.parseEnvelope(content[contentHeader:])
	if err != nil {
		s.options.Log.Error("a record of the spool has a right checksum and is no envelope", "file", g.name, "offset", offset)
		return nil
	}
	if old := s.pending[seq]; old != nil {
		old.segment.live--
	}
	g.live++
	item := &Item{seq: seq, segment: g, offset: offset, length: recordHeader + len(content), queued: e.Queued().UnixNano()}
	s.pending[seq] = item
	item.slot, item.core = s.index.pending(e)
	return nil
}

// pending remembers an envelope that was found on disk, once if it was moved or put back.
func (x *index) pending(e *Envelope) (slot uint32, hash uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r, n := x.find(CoreOf(e.ID)); r != nil && r.sha256 == e.SHA256 {
		r.state, r.settled, r.why, r.accepted, r.again = Pending, 0, 0, e.Received.UnixNano(), e.again()
		return n, r.hash
	}
	n := x.add(e)
	return n, x.slot(n).hash
}

func (s *Spool) recoverSettled(seq uint64, state State, at int64) {
	item := s.pending[seq]
	if item == nil {
		return
	}
	item.segment.live--
	item.done = true
	delete(s.pending, seq)
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	if r := s.index.slot(item.slot); r.hash == item.core && r.state == Pending && (state == Delivered || state == DeadLettered) {
		r.state, r.settled = state, at // the journal did not tell where
		if at == 0 {
			r.settled = time.Now().UnixNano()
		}
	}
}
