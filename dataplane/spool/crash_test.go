package spool

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// life is a workload on a disk that may crash at any of its steps, and what its client was promised.
type life struct {
	t       *testing.T
	disk    *crashDisk
	spool   *Spool
	bodies  map[string][]byte // by id
	owed    map[string]bool   // accepted, and not settled
	letters map[string]bool   // dead letters that are kept, by id
	settled map[string]State  // told to the spool
	n       int
}

func crashOptions() Options { return Options{SegmentBytes: 2_000, MemoryBytes: 1_000, Outcomes: 40} }

func newLife(t *testing.T) *life {
	return &life{
		t: t, disk: newCrashDisk(1), bodies: map[string][]byte{}, owed: map[string]bool{}, letters: map[string]bool{}, settled: map[string]State{},
	}
}

func (l *life) open() bool {
	var err error
	l.spool, err = open(l.disk, crashOptions())
	if err != nil && !l.disk.crashed {
		l.t.Fatal(err)
	}
	return err == nil
}

func (l *life) envelope() *Envelope {
	l.n++
	id := fmt.Sprintf("pop.%d", l.n)
	l.bodies[id] = bytes.Repeat(append([]byte{0x15, 0x05, 0xc8, 0xa7}, id...), 1+l.n%37) // it looks like a record
	e := envelope(id, l.bodies[id])
	e.Window, e.Traceparent = int64(l.n), "00-trace"
	return e
}

func (l *life) append() {
	if e := l.envelope(); l.spool.Append(e, nil) == nil {
		l.owed[e.ID] = true
	}
}

// early has what was answered early be safe with the next that is not.
func (l *life) early() {
	var promised []string
	for range 3 {
		if e := l.envelope(); l.spool.AppendEarly(e, nil) == nil {
			promised = append(promised, e.ID)
		}
	}
	if e := l.envelope(); l.spool.Append(e, nil) == nil {
		for _, id := range append(promised, e.ID) {
			l.owed[id] = true
		}
	}
}

// forward takes some, and delivers, buries or returns them.
func (l *life) forward(n int) {
	for i, item := range l.spool.take(n, nil) {
		if !bytes.Equal(item.Body, l.bodies[item.ID]) {
			l.t.Fatalf("%s came with other bytes", item.ID)
		}
		switch {
		case i%5 == 3:
			l.spool.Return(item)
		case i%5 == 1:
			if l.spool.Bury(item, "no") == nil {
				delete(l.owed, item.ID)
				l.letters[item.ID] = true
				l.settled[item.ID] = DeadLettered
			}
		default:
			l.spool.Delivered(item, "eu")
			delete(l.owed, item.ID)
			l.settled[item.ID] = Delivered
		}
	}
}

// replay has one letter put back, as the command does.
func (l *life) replay() {
	dead := l.disk.Sub("dead")
	names, _ := dead.List()
	for _, name := range names {
		if stem, ok := strings.CutSuffix(name, letterSuffix); ok {
			_ = dead.Rename(name, stem+replaySuffix)
			_ = dead.SyncNames()
			break
		}
	}
	l.spool.tick()
}

// run goes on until the disk crashes, or to its end.
func (l *life) run() {
	for range 2 {
		if !l.open() {
			return
		}
		for i := range 8 {
			l.append()
			l.append()
			if i%3 == 0 {
				l.early()
			}
			l.forward(3)
			if i%4 == 1 {
				l.replay()
			}
			if i%2 == 0 {
				l.spool.tick()
			}
			if l.disk.crashed {
				return
			}
		}
		if l.spool.Close() != nil {
			return
		}
	}
}

// check starts again after a crash and returns what is wrong.
func (l *life) check() error {
	s, err := open(l.disk, crashOptions())
	if err != nil {
		return err
	}
	defer s.Close()
	s.tick() // takes back what is to be replayed
	found := map[string]bool{}
	for _, item := range s.take(1<<30, nil) {
		want := envelope(item.ID, l.bodies[item.ID])
		if !bytes.Equal(item.Body, want.Body) || item.SHA256 != want.SHA256 || item.ContentType != want.ContentType ||
			item.Traceparent != "00-trace" || fmt.Sprintf("pop.%d", item.Window) != item.ID {
			return fmt.Errorf("%s came back with other bytes", item.ID)
		}
		found[item.ID] = true
	}
	for id := range l.owed {
		if !found[id] {
			return fmt.Errorf("accepted envelope %s is lost", id)
		}
		if o, ok := s.Lookup(id); ok && o.State != Pending {
			return fmt.Errorf("the receipt of %s, which waits, says %v", id, o.State)
		}
	}
	letters := map[string]bool{}
	names, _ := l.disk.Sub("dead").List()
	for _, name := range names {
		text, err := readFile(l.disk.Sub("dead"), name)
		if err != nil {
			return err
		}
		letter, err := parseLetter(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if e, err := letter.Envelope(); err != nil || !bytes.Equal(e.Body, l.bodies[e.ID]) {
			return fmt.Errorf("dead letter %s has other bytes, %w", name, err)
		}
		letters[letter.ID] = true
	}
	for id := range l.letters {
		if !letters[id] && !found[id] && l.settled[id] == DeadLettered {
			return fmt.Errorf("dead letter %s is lost", id)
		}
	}
	return nil
}

var crashes = flag.Int("crashes", 0, "how many more random crashes TestCrashAtEveryStep has at each step")

// TestCrashAtEveryStep crashes a disk before and in each of its writes, syncs, creations, renamings and removals, in a workload that has
// segments turn, envelopes move, dead letters come and go, and restarts. It must also fail if the disk does not do what it is asked for.
func TestCrashAtEveryStep(t *testing.T) {
	campaign := func(prepare func(*crashWorld)) (steps int, first error) {
		whole := newLife(t)
		whole.run()
		for at := 1; at <= whole.disk.steps; at++ {
			for _, left := range append([]survival{nothing, everything, anything}, slices.Repeat([]survival{anything}, *crashes)...) {
				l := newLife(t)
				prepare(l.disk.crashWorld)
				l.disk.crashAt = at
				l.run()
				l.disk.crash(left)
				if err := l.check(); err != nil {
					return at, fmt.Errorf("a crash at step %d, survival %d: %w", at, left, err)
				}
			}
		}
		return whole.disk.steps, nil
	}
	begun := time.Now()
	steps, err := campaign(func(*crashWorld) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps in %v", steps, time.Since(begun))
	if _, err := campaign(func(w *crashWorld) { w.noSync = true }); err == nil {
		t.Error("nobody notices that Sync does nothing")
	}
	if _, err := campaign(func(w *crashWorld) { w.noNames = true }); err == nil {
		t.Error("nobody notices that SyncNames does nothing")
	}
}
