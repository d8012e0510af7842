package spool

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hooked is a disk that calls a function in each Sync of a file.
type hooked struct {
	disk
	hook *func()
}

type hookedFile struct {
	file
	hook *func()
}

func (d hooked) Create(name string) (file, error) {
	f, err := d.disk.Create(name)
	return hookedFile{f, d.hook}, err
}

func (f hookedFile) Sync() error {
	if *f.hook != nil {
		(*f.hook)()
	}
	return f.file.Sync()
}

// TestReturnWhileMoved gives an envelope back while it is moved to another segment: it is not lost with the old one.
func TestReturnWhileMoved(t *testing.T) {
	var hook func()
	s := mustOpen(t, hooked{newCrashDisk(1), &hook}, Options{SegmentBytes: 2_000, MemoryBytes: 1})
	defer s.Close()
	body := []byte("old and alone")
	if err := s.Append(envelope("old", body), nil); err != nil {
		t.Fatal(err)
	}
	old := s.take(1, nil)[0]
	from := old.segment
	hook = func() {
		if old != nil {
			s.Return(old)
			old = nil
		}
	}
	for i := range 200 {
		if err := s.Append(envelope(fmt.Sprint(i), make([]byte, 500)), nil); err != nil {
			t.Fatal(err)
		}
		for _, item := range s.take(10, nil) {
			if item.ID != "old" {
				s.Acknowledge(item)
				continue
			}
			if old = item; !bytes.Equal(item.Body, body) {
				t.Fatalf("got %q", item.Body)
			}
		}
		s.tick()
	}
	if old == nil || old.segment == from || s.Stats().Pending != 1 {
		t.Fatalf("the envelope is lost, or was never moved: %+v", s.Stats())
	}
	s.Acknowledge(old)
	for _, g := range s.segments {
		if g.live != 0 {
			t.Errorf("%s has %d envelopes, of none", g.name, g.live)
		}
	}
}

// TestSettlementsOutliveAFailure has the disk fail after settlements were written to a segment that has nothing else.
func TestSettlementsOutliveAFailure(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{SegmentBytes: 400})
	for _, e := range []*Envelope{envelope("settled", nil), envelope("pending", nil), envelope("long", make([]byte, 1000))} {
		if err := s.Append(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	items := drain(t, s)
	s.Acknowledge(items[0])
	s.Acknowledge(items[2])
	if err := s.Check(); err != nil { // writes the settlements
		t.Fatal(err)
	}
	d.failSync = true
	if s.Check() == nil {
		t.Fatal("a disk that fails is well")
	}
	d.failSync = false
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, d, Options{})
	defer s.Close()
	if items := drain(t, s); len(items) != 1 || items[0].ID != "pending" {
		t.Errorf("got %d envelopes after a restart, want the one that was not settled", len(items))
	}
}

// TestFailedAttemptIsCutOff has another payload accepted under a core whose first attempt the disk did not take: the first one is not found
// after a crash that keeps all that was written.
func TestFailedAttemptIsCutOff(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{})
	if err := s.Append(envelope("before", nil), nil); err != nil {
		t.Fatal(err)
	}
	d.failSync = true
	if earlier, err := s.AppendOnce(envelope("pop.key", []byte("first")), nil); err == nil || earlier != nil {
		t.Fatalf("got %v, %v", earlier, err)
	}
	if _, ok := s.ByCore("key"); ok {
		t.Error("what was not accepted is remembered")
	}
	d.failSync = false
	if earlier, err := s.AppendOnce(envelope("pop.key", []byte("second")), nil); err != nil || earlier != nil {
		t.Fatalf("got %v, %v", earlier, err)
	}
	s.Close()
	d.crash(everything)
	s = mustOpen(t, d, Options{})
	defer s.Close()
	if items := drain(t, s); len(items) != 2 || string(items[1].Body) != "second" {
		t.Errorf("got %d envelopes", len(items))
	}
	if known, ok := s.ByCore("key"); !ok || known.State != Pending || known.SHA256 != envelope("", []byte("second")).SHA256 {
		t.Errorf("got %+v, %v", known, ok)
	}
	if earlier, err := s.AppendOnce(envelope("pop.key", []byte("second")), nil); err != nil || earlier == nil {
		t.Errorf("after a restart: got %v, %v", earlier, err)
	}
}

// TestOldOutcomeDoesNotHideAPendingOne has a key used again with another payload after the first was forgotten.
func TestOldOutcomeDoesNotHideAPendingOne(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{OutcomeAge: time.Nanosecond})
	for _, body := range []string{"first", "second"} {
		if earlier, err := s.AppendOnce(envelope("pop.key", []byte(body)), nil); err != nil || earlier != nil {
			t.Fatalf("got %v, %v", earlier, err)
		}
		if item := s.take(1, nil)[0]; body == "first" {
			s.Delivered(item, "eu")
		}
	}
	s.Close()
	s = mustOpen(t, d, Options{})
	if known, ok := s.ByCore("key"); !ok || known.State != Pending || known.SHA256 != envelope("", []byte("second")).SHA256 {
		t.Errorf("got %+v, %v", known, ok)
	}
	s.Delivered(s.take(1, nil)[0], "ap")
	s.Close()
	s = mustOpen(t, d, Options{})
	defer s.Close()
	if known, ok := s.ByCore("key"); !ok || known.Cluster != "ap" || known.SHA256 != envelope("", []byte("second")).SHA256 {
		t.Errorf("after it was delivered: got %+v, %v", known, ok)
	}
}

// TestReplayMakesItsOwnRoom has dead letters fill a spool: they can be put back all the same.
func TestReplayMakesItsOwnRoom(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, folder(dir), Options{MaxBytes: 3_000})
	defer s.Close()
	if err := s.Append(envelope("dead", make([]byte, 2_000)), nil); err != nil {
		t.Fatal(err)
	}
	item, err := s.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bury(item, "answered 422"); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(envelope("more", make([]byte, 100)), nil); err == nil {
		t.Fatalf("there is room: %+v", s.Stats())
	}
	names, _ := os.ReadDir(filepath.Join(dir, "dead"))
	if len(names) != 1 || !strings.HasSuffix(names[0].Name(), letterSuffix) {
		t.Fatalf("got %v", names)
	}
	if err := Replay(dir, names[0].Name()); err != nil {
		t.Fatal(err)
	}
	s.tick()
	if stats := s.Stats(); stats.Pending != 1 || stats.Dead != 0 {
		t.Errorf("got %+v", stats)
	}
}

// TestKeyUsedAgain has a key used for one payload after another, as far as the first is forgotten: what becomes of one is not said of the other,
// neither now nor after a restart.
func TestKeyUsedAgain(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{Outcomes: 1})
	append := func(id, body string) *Item {
		t.Helper()
		if earlier, err := s.AppendOnce(envelope(id, []byte(body)), nil); err != nil || earlier != nil {
			t.Fatalf("got %v, %v", earlier, err)
		}
		return s.take(1, nil)[0]
	}
	first := append("pop.key", "first")
	s.Delivered(append("pop.other", "other"), "eu") // over the first
	second := append("pop.key", "second")
	check := func(body string, want State) {
		t.Helper()
		if known, ok := s.ByCore("key"); !ok || known.State != want || known.SHA256 != envelope("", []byte(body)).SHA256 {
			t.Errorf("got %+v, %v", known, ok)
		}
	}
	s.Delivered(first, "eu")
	check("second", Pending)
	s.Delivered(second, "eu")
	check("second", Delivered)
	s.Close()
	s = mustOpen(t, d, Options{})
	defer s.Close()
	check("second", Delivered)
}
