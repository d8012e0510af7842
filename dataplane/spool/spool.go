package spool

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

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
	MemoryBytes  int64 // of pending envelopes that are kept in memory, so that they need not be read back; default 64 MiB
	EarlyBytes   int64 // of envelopes that AppendEarly has taken and that are not on disk yet; default 16 MiB

	Outcomes   int           // whose end is remembered; default 1,000,000, for which 150 MB of memory may be needed
	OutcomeAge time.Duration // how long after they left the queue; default 24 hours

	// Seal is called for the envelopes of each batch while the disk syncs, by one goroutine at a time. It may set their Receipt,
	// before their Append returns; what AppendEarly took is not among them.
	Seal func([]*Envelope)
	Log  *slog.Logger
}

// Spool is a durable queue. Its methods may be called concurrently. A folder must not be opened twice at a time.
type Spool struct {
	options Options
	disk    disk
	dead    *deadLetters
	group   *groupcommit.Group[*entry]
	index   *index   // what became of envelopes
	journal *journal // of it on disk
	claims  claims
	write   writer // for commit alone
	stop    chan struct{}
	stopped chan struct{} // closed when the goroutine has ended

	mu       sync.Mutex
	closed   bool
	ended    bool // the files are closed
	lastSeq  uint64
	segments []*segment // oldest first
	garbage  []string   // files of segments that nobody needs
	pending  map[uint64]*Item
	bytes    int64   // of pending envelopes' records, and of those on their way
	count    int     // likewise
	memory   int64   // of pending envelopes that are kept
	queue    []*Item // that can be taken, in order
	head     int     // of queue
	later    later   // items that cannot be taken yet
	settled  []settlement
	early    []*entry // that AppendEarly has taken and that are not written yet
	earlyLen int64
	oldest   uint64 // no envelope before this one is pending
	newest   uint64 // nor one after this one
	failing  bool   // the last write has failed
	failures uint64 // writes that have failed
	ready    chan struct{}
}

// settlement is one that is not written yet.
type settlement struct {
	seq   uint64
	state State
	at    int64
}

// Open opens a spool, or makes one, and finds what is pending in it.
func Open(dir string, o Options) (*Spool, error) {
	s, err := open(folder(dir), o)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s.start()
	return s, nil
}

func open(d disk, o Options) (*Spool, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<30)
	o.MaxEnvelopes = cmp.Or(o.MaxEnvelopes, 1_000_000)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, 64<<20)
	o.MemoryBytes = cmp.Or(o.MemoryBytes, 64<<20)
	o.EarlyBytes = cmp.Or(o.EarlyBytes, 16<<20)
	o.Outcomes = cmp.Or(o.Outcomes, 1_000_000)
	o.OutcomeAge = cmp.Or(o.OutcomeAge, 24*time.Hour)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Spool{
		options: o, disk: d, pending: map[uint64]*Item{}, ready: make(chan struct{}, 1), index: newIndex(o.Outcomes, o.OutcomeAge),
	}
	s.group = groupcommit.New(s.commit)
	s.claims.waiting = map[string]chan struct{}{}
	s.write.spool = s
	var err error
	if _, err = d.List(); err != nil { // makes the folder
		return nil, err
	}
	if s.dead, err = openDeadLetters(d.Sub("dead"), o.Log); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	if s.journal, err = openJournal(d.Sub("outcomes"), s.index, o.Log); err != nil { // newer than what is pending
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

// tickInterval is how long a settlement, an outcome or an early envelope waits for others to be written with.
const tickInterval = 250 * time.Millisecond

// start begins what is done now and then.
func (s *Spool) start() {
	s.stop, s.stopped = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.stopped)
		ticker := time.NewTicker(tickInterval)
		defer ticker.Stop()
		for {
			s.tick()
			select {
			case <-ticker.C:
			case <-s.stop:
				return
			}
		}
	}()
}

// tick writes what nobody waits for, and takes back dead letters that an operator wants to have sent again.
func (s *Spool) tick() {
	_ = s.flush() // logged
	s.journal.flush(false)
	s.sweep()
	s.replay()
}

// flush writes settlements and early envelopes that are not written yet.
func (s *Spool) flush() error {
	s.mu.Lock()
	unwritten, early := len(s.settled) > 0, len(s.early) > 0
	s.mu.Unlock()
	if !unwritten && !early {
		return nil
	}
	return s.group.Do(&entry{durable: early})
}

// Close writes what is not written yet and closes the files. Items that are taken and not settled are found by the next
// Open. Append fails from now on.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.closed = true
	s.await()
	s.mu.Unlock()
	if s.stop != nil {
		close(s.stop)
		<-s.stopped
		s.stop = nil
	}
	s.mu.Lock()
	unwritten := len(s.settled) > 0 || len(s.early) > 0
	s.mu.Unlock()
	err := s.group.Do(&entry{durable: unwritten, last: true})
	s.sweep()
	s.journal.flush(true)
	return errors.Join(err, s.closeFiles())
}

func (s *Spool) closeFiles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failures []error
	if s.journal != nil {
		failures = append(failures, s.journal.close())
	}
	for _, g := range s.segments {
		if g == s.write.active {
			failures = append(failures, g.file.Truncate(g.size)) // gives back what is reserved
		}
		failures = append(failures, g.file.Close())
	}
	s.segments, s.ended = nil, true
	return errors.Join(failures...)
}
