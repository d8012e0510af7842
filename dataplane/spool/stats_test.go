package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOldest(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{})
	at := func(i int) time.Time { return time.Unix(1_900_000_000+int64(i), 0) }
	const n = 3 * oldestStep / 2
	for i := range n {
		e := envelope(fmt.Sprint("id", i), make([]byte, 100))
		e.Received = at(i)
		if err := s.Append(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	oldest := func(want time.Time) {
		t.Helper()
		if got := s.Stats().Oldest; !got.Equal(want) {
			t.Errorf("got the oldest of %v, want %v", got, want)
		}
	}
	oldest(at(0))
	items := drain(t, s)
	s.Acknowledge(items[1]) // out of order
	oldest(at(0))
	s.Acknowledge(items[0])
	oldest(at(2))
	s.Return(items[2])
	oldest(at(2))
	for _, item := range items[2 : n-2] {
		s.Acknowledge(item)
	}
	oldest(at(n - 2))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, d, Options{})
	oldest(at(n - 2))
	for _, item := range drain(t, s) {
		s.Acknowledge(item)
	}
	oldest(time.Time{})
	e := envelope("later", nil)
	e.Received = at(n)
	if err := s.Append(e, nil); err != nil {
		t.Fatal(err)
	}
	oldest(at(n))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDeadLettersAreCountedAgain has an operator remove one of two.
func TestDeadLettersAreCountedAgain(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, folder(dir), Options{})
	defer s.Close()
	for i := range 2 {
		if err := s.Append(envelope(fmt.Sprint("id", i), nil), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, item := range drain(t, s) {
		if err := s.Bury(item, "no"); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "dead", "*.json"))
	if err != nil || len(files) != 2 || s.Stats().Dead != 2 {
		t.Fatalf("got %v, %v, %+v", files, err, s.Stats())
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	left, err := os.Stat(files[1]) // their lengths may differ by the digits of a time
	if err != nil {
		t.Fatal(err)
	}
	s.dead.recount(time.Now().Add(recountInterval))
	if got := s.Stats(); got.Dead != 1 || got.DeadBytes != left.Size() {
		t.Errorf("got %+v of one letter of %d octets", got, left.Size())
	}
}

func TestStatsTellOfADiskThatFails(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{})
	defer s.Close()
	told := func(failing bool, failures uint64) {
		t.Helper()
		if got := s.Stats(); got.Failing != failing || got.Failures != failures {
			t.Errorf("got failing %v after %d failures, want %v after %d", got.Failing, got.Failures, failing, failures)
		}
	}
	told(false, 0)
	d.failSync = true
	if err := s.Append(envelope("a", nil), nil); err == nil {
		t.Fatal("a disk that fails has taken an envelope")
	}
	told(true, 1)
	if err := s.Check(); err == nil {
		t.Fatal("a disk that fails has taken a record")
	}
	told(true, 2)
	d.failSync = false
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	told(false, 2)
}
