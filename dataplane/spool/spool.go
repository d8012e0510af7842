package spool

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/isochrone/isochrone/internal/groupcommit"
)

// The errors of Append by which a caller decides. After any error of Append the envelope was not accepted, though it may
// be found after a crash.
var (
	ErrFull   = errors.New("the spool is full")
	ErrClosed = errors.New("the spool is closed")
)

// Options are limits of a spool. Zero values stand for the defaults.
type Options struct {
	MaxBytes     int64 // of pending envelopes and dead letters; files may take twice as much and four segments; default 1 GiB
	MaxEnvelopes int   // pending; default 1,000,000
	SegmentBytes int64 // at which a new segment begins; default 64 MiB
	Log          *slog.Logger
}

// Spool is a durable queue. Its methods may be called concurrently. A folder must not be opened twice at a time.
type Spool struct {
	options Options
	disk    disk
	dead    *deadLetters
	group   *groupcommit.Group[*entry]

	mu       sync.Mutex
	closed   bool
	lastSeq  uint64
	lastFile uint64
	segments []*segment // oldest first
	active   *segment   // what records are written to, nil before the first and after a failure; for commit alone
	pending  map[uint64]*place
	bytes    int64    // of pending envelopes' records, and of those on their way
	count    int      // likewise
	queue    []uint64 // sequence numbers that can be taken, in order
	head     int      // of queue
	settled  []uint64 // whose settlement is not written yet
	oldest   uint64   // no envelope before this one is pending
	newest   uint64   // nor one after this one
	failing  bool     // the last write has failed
	failures uint64   // writes that have failed
	ready    chan struct{}
}

// segment is a file of records.
type segment struct {
	name string
	file file
	salt []byte
	size int64
	live int // envelopes that are pending
}

// place is where a pending envelope is.
type place struct {
	segment  *segment
	offset   int64
	received int64 // Unix time in nanoseconds
	length   int
	attempts int
	settled  func(Settlement)
}

// entry is what a commit writes.
type entry struct {
	envelope *Envelope // nil writes nothing, durably when durable is set
	durable  bool
	settled  func(Settlement)
	length   int
}

// Open opens a spool, or makes one, and finds what is pending in it.
func Open(dir string, o Options) (*Spool, error) {
	return open(folder(dir), filepath.Join(dir, "dead"), o)
}

func open(d disk, dead string, o Options) (*Spool, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<30)
	o.MaxEnvelopes = cmp.Or(o.MaxEnvelopes, 1_000_000)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, 64<<20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Spool{options: o, disk: d, pending: map[uint64]*place{}, ready: make(chan struct{}, 1)}
	s.group = groupcommit.New(s.commit)
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), s.closeFiles())
	}
	var err error
	if s.dead, err = openDeadLetters(dead); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), s.closeFiles())
	}
	return s, nil
}

// Append returns when the envelope is on disk, or an error. The function, which may be nil, is called once when the
// envelope has left the queue, unless the process ends before; it must not block.
func (s *Spool) Append(e *Envelope, settled func(Settlement)) error {
	if err := e.check(); err != nil {
		return err
	}
	length := recordHeader + contentHeader + e.size()
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case s.bytes+int64(length)+s.dead.size() > s.options.MaxBytes || s.count >= s.options.MaxEnvelopes:
		s.mu.Unlock()
		return ErrFull
	}
	s.bytes += int64(length)
	s.count++
	s.mu.Unlock()
	if err := s.group.Do(&entry{envelope: e, durable: true, settled: settled, length: length}); err != nil {
		s.mu.Lock()
		s.bytes -= int64(length)
		s.count--
		s.mu.Unlock()
		return fmt.Errorf("append to spool: %w", err)
	}
	return nil
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

// commit writes a batch in one piece, and waits for the disk if any of it must be durable.
func (s *Spool) commit(batch []*entry) error {
	s.mu.Lock()
	settled := s.settled
	s.settled = nil
	first := s.lastSeq + 1
	s.lastSeq += uint64(len(batch))
	closed := s.closed && s.segments == nil
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	err := s.write(batch, settled, first)
	if err != nil {
		s.mu.Lock()
		s.settled = append(s.settled, settled...)
		s.failing = true
		s.failures++
		s.mu.Unlock()
		s.abandon()
		s.options.Log.Error("the spool cannot write", "error", err)
		return err
	}
	s.clean()
	return nil
}

func (s *Spool) write(batch []*entry, settled []uint64, seq uint64) error {
	if s.active == nil || s.active.size >= s.options.SegmentBytes {
		if err := s.newSegment(); err != nil {
			return err
		}
	}
	active, durable := s.active, false
	var buf []byte
	for _, old := range settled {
		buf = appendRecord(buf, active.salt, kindSettled, old, nil)
	}
	places := make([]*place, len(batch))
	for i, e := range batch {
		durable = durable || e.durable
		if e.envelope == nil {
			if e.durable {
				buf = appendRecord(buf, active.salt, kindNothing, 0, nil)
			}
			continue
		}
		places[i] = &place{
			segment: active, offset: active.size + int64(len(buf)), received: e.envelope.Received.UnixNano(), length: e.length, settled: e.settled,
		}
		buf = appendRecord(buf, active.salt, kindEnvelope, seq+uint64(i), e.envelope.appendTo)
	}
	if _, err := active.file.Write(buf); err != nil {
		return err
	}
	if durable {
		if err := active.file.Sync(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	active.size += int64(len(buf))
	s.failing = s.failing && !durable
	for i, p := range places {
		if p != nil {
			active.live++
			s.pending[seq+uint64(i)] = p
			s.newest = seq + uint64(i)
			s.offer(s.newest)
		}
	}
	s.mu.Unlock()
	return nil
}

// abandon ends the active segment after a failure: what is in the file now is not known, so nothing more is written to it. A
// file that holds nothing that is pending is removed, so that a full disk does not fill with files.
func (s *Spool) abandon() {
	failed := s.active
	if s.active = nil; failed == nil {
		return
	}
	s.mu.Lock()
	needed := failed.live > 0
	if !needed {
		s.segments = slices.DeleteFunc(s.segments, func(g *segment) bool { return g == failed })
	}
	s.mu.Unlock()
	if !needed {
		failed.file.Close()
		_ = s.disk.Remove(failed.name) // the failure that led here is reported
	}
}

// newSegment begins a segment.
func (s *Spool) newSegment() error {
	name := fmt.Sprintf("%016d.segment", s.lastFile+1)
	f, err := s.disk.Create(name)
	if err != nil {
		return err
	}
	s.lastFile++ // even if what follows fails: the file is there
	header := append([]byte(segmentMagic), make([]byte, 8)...)
	rand.Read(header[len(segmentMagic):])
	if _, err := f.Write(header); err != nil {
		return errors.Join(err, f.Close(), s.disk.Remove(name))
	}
	s.active = &segment{name: name, file: f, salt: header[len(segmentMagic):], size: int64(len(header))}
	s.mu.Lock()
	s.segments = append(s.segments, s.active)
	s.mu.Unlock()
	return nil
}

// clean removes the oldest segments that nobody needs. When files take too much more than what is pending in them, the
// envelopes of the oldest one are moved to the newest.
func (s *Spool) clean() {
	for {
		s.mu.Lock()
		oldest := s.segments[0]
		var disk int64
		for _, g := range s.segments {
			disk += g.size
		}
		crowded := disk > 2*s.bytes+4*s.options.SegmentBytes
		live := oldest.live
		s.mu.Unlock()
		if oldest == s.active {
			return
		}
		if live > 0 {
			if !crowded {
				return
			}
			if err := s.move(oldest); err != nil {
				s.options.Log.Error("the spool cannot make room", "error", err)
				s.abandon()
				return
			}
		}
		s.mu.Lock()
		s.segments = s.segments[1:]
		s.mu.Unlock()
		oldest.file.Close()
		if err := s.disk.Remove(oldest.name); err != nil {
			s.options.Log.Error("the spool cannot remove a segment", "error", err)
		}
	}
}

// move writes the pending envelopes of a segment to the active one, under the numbers that they have.
func (s *Spool) move(from *segment) error {
	s.mu.Lock()
	moved := map[uint64]*place{}
	for seq, p := range s.pending {
		if p.segment == from {
			copied := *p
			moved[seq] = &copied
		}
	}
	s.mu.Unlock()
	active, buf := s.active, []byte(nil)
	for seq, p := range moved {
		content, err := from.read(p.offset, p.length)
		if err != nil {
			return err
		}
		p.segment, p.offset = active, active.size+int64(len(buf))
		buf = appendRecord(buf, active.salt, kindEnvelope, seq, func(b []byte) []byte { return append(b, content[contentHeader:]...) })
	}
	if _, err := active.file.Write(buf); err != nil {
		return err
	}
	if err := active.file.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	active.size += int64(len(buf))
	for seq, p := range moved {
		if now := s.pending[seq]; now != nil { // not settled meanwhile
			now.segment, now.offset = p.segment, p.offset
			from.live--
			active.live++
		}
	}
	return nil
}

// read returns the content of the record at an offset.
func (g *segment) read(offset int64, length int) ([]byte, error) {
	record := make([]byte, length)
	if _, err := g.file.ReadAt(record, offset); err != nil {
		return nil, fmt.Errorf("read %s at %d: %w", g.name, offset, err)
	}
	content, ok := parseRecord(record, g.salt)
	if !ok {
		return nil, fmt.Errorf("read %s at %d: the record is damaged", g.name, offset)
	}
	return content, nil
}

// offer puts a number at the end of the queue and wakes who waits. The caller holds mu.
func (s *Spool) offer(seq uint64) {
	s.queue = append(s.queue, seq)
	s.wake()
}

func (s *Spool) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Next takes the first envelope of the queue; it waits for one until ctx ends. What is taken must be settled by
// Acknowledge or Bury, or given back by Return.
func (s *Spool) Next(ctx context.Context) (*Item, error) {
	for {
		item, err := s.take()
		if item != nil || err != nil {
			return item, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Spool) take() (*Item, error) {
	for {
		s.mu.Lock()
		if s.head == len(s.queue) {
			s.queue, s.head = s.queue[:0], 0
			s.mu.Unlock()
			return nil, nil
		}
		seq := s.queue[s.head]
		s.head++
		if s.head > 1024 && s.head > len(s.queue)/2 {
			s.queue, s.head = append(s.queue[:0], s.queue[s.head:]...), 0
		}
		if s.head < len(s.queue) {
			s.wake() // there is work for another
		}
		p := *s.pending[seq]
		content, err := p.segment.read(p.offset, p.length) // under the lock, so that the segment is not removed meanwhile
		s.mu.Unlock()
		if err != nil {
			// It stays on disk, where it may yet be rescued; the next start tries again.
			s.options.Log.Error("an accepted envelope cannot be read back", "error", err)
			continue
		}
		envelope, err := parseEnvelope(content[contentHeader:])
		if err != nil {
			return nil, err
		}
		return &Item{Envelope: *envelope, Attempts: p.attempts, seq: seq}, nil
	}
}

// Return gives an item back, to the end of the queue.
func (s *Spool) Return(item *Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[item.seq].attempts++
	s.offer(item.seq)
}

// Acknowledge takes an envelope out of the queue for good: a cluster has it.
func (s *Spool) Acknowledge(item *Item) { s.settle(item, Settlement{Acknowledged: true}) }

// Bury makes an envelope a dead letter: a file in the folder dead, for an operator to look at. With an error it is still
// taken.
func (s *Spool) Bury(item *Item, reason string) error {
	if err := s.dead.add(item, reason); err != nil {
		return fmt.Errorf("keep dead letter %s: %w", item.ID, err)
	}
	s.settle(item, Settlement{Reason: reason})
	return nil
}

// flushSettled is how many settlements are written at the latest.
const flushSettled = 64

func (s *Spool) settle(item *Item, how Settlement) {
	s.mu.Lock()
	p := s.pending[item.seq]
	delete(s.pending, item.seq)
	p.segment.live--
	s.bytes -= int64(p.length)
	s.count--
	s.settled = append(s.settled, item.seq)
	flush := len(s.settled) >= flushSettled || len(s.pending) == 0
	s.mu.Unlock()
	if p.settled != nil {
		p.settled(how)
	}
	if flush {
		_ = s.group.Do(&entry{}) // logged; a settlement that is not written costs a duplicate at worst
	}
}

// Close writes what is not written yet and closes the files. Items that are taken and not settled are found by the next
// Open. Append fails from now on.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.closed = true
	unwritten := len(s.settled) > 0
	s.mu.Unlock()
	var err error
	if unwritten {
		err = s.group.Do(&entry{durable: true})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.closeFiles())
}

func (s *Spool) closeFiles() error {
	var failures []error
	for _, g := range s.segments {
		failures = append(failures, g.file.Close())
	}
	s.segments, s.active = nil, nil
	return errors.Join(failures...)
}

// recover reads all segments. Nothing is written to them any more.
func (s *Spool) recover() error {
	names, err := s.disk.List()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		var number uint64
		if _, err := fmt.Sscanf(name, "%d.segment", &number); err != nil || name != fmt.Sprintf("%016d.segment", number) {
			continue
		}
		s.lastFile = max(s.lastFile, number)
		if err := s.recoverSegment(name); err != nil {
			return err
		}
	}
	for seq, p := range s.pending {
		s.bytes += int64(p.length)
		s.count++
		s.queue = append(s.queue, seq)
	}
	slices.Sort(s.queue)
	if s.newest = s.lastSeq; len(s.queue) > 0 {
		s.oldest = s.queue[0]
		s.wake()
	}
	return nil
}

func (s *Spool) recoverSegment(name string) error {
	f, err := s.disk.Open(name)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	g := &segment{name: name, file: f, size: size}
	s.segments = append(s.segments, g)
	if len(data) < segmentHeader || string(data[:len(segmentMagic)]) != segmentMagic {
		if len(data) >= segmentHeader {
			s.options.Log.Error("a file of the spool is not a segment, or of a newer version", "file", name)
		}
		return nil
	}
	g.salt = slices.Clone(data[len(segmentMagic):segmentHeader])
	lost := scan(data, g.salt, func(offset int, content []byte) {
		seq := binary.BigEndian.Uint64(content[1:])
		s.lastSeq = max(s.lastSeq, seq)
		old := s.pending[seq]
		switch content[0] {
		case kindEnvelope: // once more where it was moved
			if old != nil {
				old.segment.live--
			}
			g.live++
			s.pending[seq] = &place{segment: g, offset: int64(offset), received: receivedOf(content), length: recordHeader + len(content)}
		case kindSettled:
			if old != nil {
				old.segment.live--
				delete(s.pending, seq)
			}
		}
	})
	if lost > 0 {
		s.options.Log.Warn("a segment of the spool has octets that are no record, as after a crash", "file", name, "octets", lost)
	}
	return nil
}
