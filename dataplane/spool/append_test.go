package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestBodiesStayInMemoryUpToABound has more than that wait: all come with their bytes, in order, and again after they were returned.
func TestBodiesStayInMemoryUpToABound(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{MemoryBytes: 10_000, SegmentBytes: 8_000})
	defer s.Close()
	for i := range 50 {
		if err := s.Append(envelope(fmt.Sprint("pop.", i), bytes.Repeat([]byte{byte(i)}, 1000)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if m := s.Stats().Memory; m > 10_000 || m < 5_000 {
		t.Errorf("%d octets are kept in memory, want about 10,000", m)
	}
	for attempt := range 2 {
		items, err := s.Take(context.Background(), 7, nil)
		for err == nil && len(items) < 50 {
			items, err = s.Take(context.Background(), 7, items)
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range items {
			if item.ID != fmt.Sprint("pop.", i) || !bytes.Equal(item.Body, bytes.Repeat([]byte{byte(i)}, 1000)) || item.Attempts != attempt {
				t.Errorf("item %d is %s after %d attempts", i, item.ID, item.Attempts)
			}
			s.Return(item)
			_ = item.ID // still there for who returned it
		}
		if m := s.Stats().Memory; m > 10_000 {
			t.Errorf("%d octets are kept in memory, want about 10,000", m)
		}
	}
	for _, item := range drain(t, s) {
		s.Delivered(item, "eu")
	}
	if got := s.Stats(); got.Memory != 0 || got.Bytes != 0 || got.Pending != 0 {
		t.Errorf("nothing is left, but: %+v", got)
	}
}

// TestReadersOutliveMoves takes what is on disk alone while segments are given up.
func TestReadersOutliveMoves(t *testing.T) {
	s, err := Open(t.TempDir(), Options{MemoryBytes: 1, SegmentBytes: 4_000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var appending sync.WaitGroup
	for a := range 4 {
		appending.Go(func() {
			for i := range 100 {
				id := fmt.Sprintf("pop.%d-%d", a, i)
				if err := s.Append(envelope(id, bytes.Repeat([]byte(id), 20)), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for settled, n := 0, 0; settled < 400; n++ {
		items, err := s.Take(ctx, 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range items {
			if !bytes.Equal(item.Body, bytes.Repeat([]byte(item.ID), 20)) {
				t.Fatalf("%s came with other bytes", item.ID)
			}
			if (i+n)%3 == 0 && item.Attempts < 5 {
				s.Return(item)
				continue
			}
			s.Delivered(item, "eu")
			settled++
		}
	}
	appending.Wait()
}

func TestSealIsCalledBeforeAppendReturns(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{Seal: func(batch []*Envelope) {
		for _, e := range batch {
			e.Receipt = "sealed " + e.ID
		}
	}})
	defer s.Close()
	var appending sync.WaitGroup
	for i := range 20 {
		appending.Go(func() {
			e := envelope(fmt.Sprint("pop.", i), nil)
			if err := s.Append(e, nil); err != nil || e.Receipt != "sealed "+e.ID {
				t.Errorf("got %q, %v", e.Receipt, err)
			}
		})
	}
	appending.Wait()
	early := envelope("pop.early", nil)
	if err := s.AppendEarly(early, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(); err != nil || early.Receipt != "" {
		t.Errorf("got %q for what was answered early, %v", early.Receipt, err)
	}
}

// TestEarly forwards what is not on disk yet, and finds the rest after a restart; the disk fails in between.
func TestEarly(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{EarlyBytes: 3_000})
	for i := range 2 {
		if err := s.AppendEarly(envelope(fmt.Sprint("pop.", i), make([]byte, 1000)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AppendEarly(envelope("pop.more", make([]byte, 1000)), nil); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	first := s.take(1, nil)[0]
	s.Delivered(first, "eu") // before it is on disk
	d.failSync = true
	if err := s.flush(); err == nil {
		t.Fatal("the disk fails, but the flush does not")
	}
	if err := s.AppendEarly(envelope("pop.failing", nil), nil); !errors.Is(err, ErrFull) {
		t.Errorf("got %v while the disk fails, want ErrFull", err)
	}
	d.failSync = false
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.AppendEarly(envelope("pop.2", make([]byte, 1000)), nil); err != nil {
		t.Errorf("all is on disk, but: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.crash(nothing)
	s = mustOpen(t, d, Options{})
	defer s.Close()
	if items := drain(t, s); len(items) != 2 || items[0].ID != "pop.1" || items[1].ID != "pop.2" {
		t.Errorf("got %d items", len(items))
	}
	if got := s.Stats(); got.Pending != 2 {
		t.Errorf("got %+v", got)
	}
}

// TestOnce has many ask for the same at a time: one is stored, the others are told of it.
func TestOnce(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{})
	var asking sync.WaitGroup
	var mu sync.Mutex
	stored := map[string]string{} // hash by core
	told := 0
	for i := range 40 {
		asking.Go(func() {
			core, body := fmt.Sprint("core", i%4), fmt.Sprint("body ", i%8)
			e := envelope("pop."+core, []byte(body))
			earlier, err := s.AppendOnce(e, nil)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
			case earlier == nil && stored[core] != "":
				t.Errorf("%s is stored twice", core)
			case earlier == nil:
				stored[core] = string(e.SHA256[:])
			default:
				told++
				if earlier.ID != e.ID || earlier.KeyID != "key" || earlier.Service != e.Service || earlier.State != Pending {
					t.Errorf("got %+v", earlier)
				}
			}
		})
	}
	asking.Wait()
	if len(stored) != 4 || told != 36 || s.Stats().Pending != 4 {
		t.Errorf("%d are stored, %d were told, %d wait", len(stored), told, s.Stats().Pending)
	}
	d.failWrite = true
	if _, err := s.AppendOnce(envelope("pop.failed", nil), nil); err == nil {
		t.Error("accepted on a broken disk")
	}
	d.failWrite = false
	if earlier, err := s.AppendOnce(envelope("pop.failed", nil), nil); err != nil || earlier != nil {
		t.Errorf("what has failed counts as stored: %v, %v", earlier, err)
	}
	s.Close()
	s = mustOpen(t, d, Options{})
	defer s.Close()
	if earlier, err := s.AppendOnce(envelope("pop.core1", []byte("other")), nil); err != nil || earlier == nil ||
		string(earlier.SHA256[:]) != stored["core1"] {
		t.Errorf("after a restart: got %+v, %v", earlier, err)
	}
}

// TestFormatOfVersion1 reads a segment that the first version has written.
func TestFormatOfVersion1(t *testing.T) {
	d := newCrashDisk(1)
	salt := []byte("saltsalt")
	data := append([]byte(segmentMagic1), salt...)
	for seq, body := range []string{"zero", "one", "two"} {
		want := envelope(fmt.Sprint("pop.", seq), []byte(body))
		content := binary.BigEndian.AppendUint64([]byte{kindEnvelope}, uint64(seq+1))
		content = binary.BigEndian.AppendUint64(content, uint64(want.Received.UnixNano()))
		content = append(content, want.SHA256[:]...)
		for _, text := range []string{want.ID, want.KeyID, want.Service, want.ContentType} {
			content = appendText(content, text)
		}
		data = appendVersion1(data, salt, append(content, body...))
	}
	data = appendVersion1(data, salt, binary.BigEndian.AppendUint64([]byte{kindSettled}, 2))
	f, _ := d.Create("0000000000000007.segment")
	f.Write(data)
	s := mustOpen(t, d, Options{SegmentBytes: 500})
	defer s.Close()
	check := func() {
		t.Helper()
		items := drain(t, s)
		if len(items) < 2 || string(items[0].Body) != "zero" || string(items[1].Body) != "two" || items[1].ID != "pop.2" {
			t.Fatalf("got %d items", len(items))
		}
		for _, item := range items {
			s.Return(item)
		}
	}
	check()
	for i := range 20 { // has them move
		if err := s.Append(envelope(fmt.Sprint("pop.new", i), make([]byte, 400)), nil); err != nil {
			t.Fatal(err)
		}
		for _, item := range drain(t, s) {
			if item.ID == fmt.Sprint("pop.new", i) {
				s.Delivered(item, "eu")
			} else {
				s.Return(item)
			}
		}
		s.tick()
	}
	if d.names["0000000000000007.segment"] != nil {
		t.Error("its envelopes were not moved")
	}
	check()
}

func appendVersion1(data, salt, content []byte) []byte {
	data = binary.BigEndian.AppendUint32(data, recordMarker)
	data = binary.BigEndian.AppendUint32(data, uint32(len(content)))
	data = binary.BigEndian.AppendUint32(data, crc32.Update(crc32.Checksum(salt, castagnoli), castagnoli, content))
	return append(data, content...)
}

// TestNewerFormat leaves a segment of a newer version where it is.
func TestNewerFormat(t *testing.T) {
	d := newCrashDisk(1)
	f, _ := d.Create("0000000000000001.segment")
	f.Write([]byte("isospl\x00\x09saltsaltwhatever"))
	s := mustOpen(t, d, Options{SegmentBytes: 500})
	for i := range 20 {
		if err := s.Append(envelope(fmt.Sprint("pop.", i), make([]byte, 400)), nil); err != nil {
			t.Fatal(err)
		}
		s.Delivered(drain(t, s)[0], "eu")
		s.tick()
	}
	if err := s.Close(); err != nil || d.names["0000000000000001.segment"] == nil {
		t.Errorf("it is gone, or %v", err)
	}
}

// TestReplayAndInspect buries two, looks at them from outside, and has one sent again, by a spool that runs and by one that starts.
func TestReplayAndInspect(t *testing.T) {
	for _, running := range []bool{true, false} {
		dir := t.TempDir()
		s := mustOpen(t, folder(dir), Options{})
		for _, id := range []string{"pop.dead1", "pop.dead2", "pop.waits"} {
			if err := s.Append(envelope(id, []byte("body of "+id)), nil); err != nil {
				t.Fatal(err)
			}
		}
		items := drain(t, s)
		for _, item := range items[:2] {
			if err := s.Bury(item, "answered 422"); err != nil {
				t.Fatal(err)
			}
		}
		s.tick()
		inspect := func(want string) {
			t.Helper()
			contents, err := Inspect(dir, func(int64, int64) {})
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(contents.Faults)
			for _, e := range contents.Entries {
				body, err := e.Body(dir)
				if string(body) != "body of "+e.ID {
					t.Errorf("%s has body %q, %v", e.ID, body, err)
				}
				got += fmt.Sprintf(" %s:%s", e.ID, e.State)
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		inspect("[] pop.waits:pending pop.dead1:dead-lettered pop.dead2:dead-lettered")
		if o, ok := s.Lookup("pop.dead1"); !ok || o.State != DeadLettered || o.Reason != "answered 422" || o.Settled.IsZero() {
			t.Errorf("got %+v", o)
		}
		names, _ := filepath.Glob(filepath.Join(dir, "dead", "pop.dead1.*"))
		if !running {
			s.Close()
		}
		if err := Replay(dir, filepath.Base(names[0])); err != nil {
			t.Fatal(err)
		}
		inspect("[] pop.waits:pending pop.dead1:to be replayed pop.dead2:dead-lettered")
		if !running {
			s = mustOpen(t, folder(dir), Options{})
		}
		s.tick()
		inspect("[] pop.waits:pending pop.dead1:pending pop.dead2:dead-lettered")
		items = drain(t, s)
		last := items[len(items)-1]
		if last.ID != "pop.dead1" || last.Queued().Equal(last.Received) || s.Stats().Dead != 1 {
			t.Errorf("got %s, %+v", last.ID, s.Stats())
		}
		if o, ok := s.Lookup("pop.dead1"); !ok || o.State != Pending {
			t.Errorf("got %+v", o)
		}
		s.Delivered(last, "eu")
		s.Close()
		s = mustOpen(t, folder(dir), Options{})
		if o, ok := s.Lookup("pop.dead1"); !ok || o.State != Delivered || o.Cluster != "eu" {
			t.Errorf("after a restart: %+v", o)
		}
		s.Close()
	}
}
