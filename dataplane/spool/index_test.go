package spool

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestOutcomesAreForgotten keeps the last ones, and those on disk do not grow without bound.
func TestOutcomesAreForgotten(t *testing.T) {
	d := newCrashDisk(1)
	options := Options{Outcomes: 100, OutcomeAge: time.Hour}
	s := mustOpen(t, d, options)
	for i := range 1000 {
		e := envelope(fmt.Sprintf("pop.%d", i), []byte{byte(i)})
		if err := s.Append(e, nil); err != nil {
			t.Fatal(err)
		}
		s.Delivered(drain(t, s)[0], fmt.Sprint("cluster", i%3))
		s.journal.flush(false)
	}
	check := func(when string) {
		t.Helper()
		for i := range 1000 {
			o, ok := s.Lookup(fmt.Sprintf("pop.%d", i))
			if ok != (i >= 900) || ok && (o.State != Delivered || o.Cluster != fmt.Sprint("cluster", i%3) || o.KeyID != "key" || o.Settled.IsZero()) {
				t.Fatalf("%s, %d: got %+v, %v", when, i, o, ok)
			}
		}
		if n := len(s.index.slots); n != 100 {
			t.Errorf("%s: %d slots are in use for 100", when, n)
		}
	}
	check("before")
	if _, ok := s.Lookup("other.999"); ok {
		t.Error("another PoP's id is known")
	}
	if n := d.count(".outcomes"); n > 10 {
		t.Errorf("%d files for 100 outcomes", n)
	}
	s.Close()
	s = mustOpen(t, d, options)
	check("after a restart")
	s.Close()
	options.OutcomeAge = time.Nanosecond
	s = mustOpen(t, d, options)
	defer s.Close()
	if o, ok := s.Lookup("pop.999"); ok {
		t.Errorf("it is too old, but: %+v", o)
	}
}

// TestLongCores has ids of any form.
func TestLongCores(t *testing.T) {
	x := newIndex(10, time.Hour)
	s := &Spool{index: x}
	for _, id := range []string{"", "pop.", ".", "pop", "pop." + strings.Repeat("x", 32), "pop." + strings.Repeat("x", 33), strings.Repeat("y", 4000), "a.b.c"} {
		x.add(&Envelope{ID: id})
		if o, ok := s.Lookup(id); !ok || o.ID != id {
			t.Errorf("%.50q: got %.50q, %v", id, o.ID, ok)
		}
	}
}

// BenchmarkIndex fills an index with a million outcomes, and tells what one takes in memory.
func BenchmarkIndex(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := newIndex(1_000_000, time.Hour)
		e := envelope("", nil)
		for i := range 1_500_000 {
			e.ID = fmt.Sprintf("pop.%026d", i)
			x.add(e)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "bytes/outcome")
		runtime.KeepAlive(x)
	}
}

// BenchmarkOpen begins with a spool of 300,000 envelopes of 1 KB that wait, and as many outcomes.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, err := open(folder(dir), Options{})
	if err != nil {
		b.Fatal(err)
	}
	const n = 300_000
	batch := make([]*entry, 0, 1000)
	for i := range 2 * n {
		item, err := s.admit(envelope(fmt.Sprintf("pop.%026d", i), make([]byte, 1000)), nil, false, 0)
		if err != nil {
			b.Fatal(err)
		}
		e := new(entry)
		e.encode(item)
		if batch = append(batch, e); len(batch) == cap(batch) {
			if err := s.commit(batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
		if i == n-1 {
			for _, item := range s.take(n, nil) {
				s.Delivered(item, "eu")
			}
			s.tick()
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		s, err := open(folder(dir), Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(s.Stats().Pending), "pending")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
