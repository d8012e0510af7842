package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func envelope(id string, body []byte) *Envelope {
	return &Envelope{
		ID: id, SHA256: sha256.Sum256(body), KeyID: "key", Service: "intake.isochrone.test", ContentType: "application/json",
		Received: time.Unix(0, 1_900_000_000_123_456_789), Body: body,
	}
}

func mustOpen(t *testing.T, d disk, o Options) *Spool {
	t.Helper()
	s, err := open(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// drain takes and returns everything that is in the queue now.
func drain(t *testing.T, s *Spool) []*Item {
	t.Helper()
	return s.take(1<<30, nil)
}

func TestOrderAndContentOutliveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "spool")
	s := mustOpen(t, folder(dir), Options{})
	for i := range 10 {
		if err := s.Append(envelope(fmt.Sprint("id", i), bytes.Repeat([]byte{byte(i)}, i*100)), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, item := range drain(t, s)[:4] {
		s.Acknowledge(item)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(envelope("late", nil), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: got %v, want ErrClosed", err)
	}
	s = mustOpen(t, folder(dir), Options{})
	items := drain(t, s)
	if len(items) != 6 || s.Stats().Pending != 6 {
		t.Fatalf("got %d items, want 6", len(items))
	}
	for i, item := range items {
		want := envelope(fmt.Sprint("id", i+4), bytes.Repeat([]byte{byte(i + 4)}, (i+4)*100))
		if item.ID != want.ID || !bytes.Equal(item.Body, want.Body) || item.SHA256 != want.SHA256 || !item.Received.Equal(want.Received) ||
			item.KeyID != want.KeyID || item.Service != want.Service || item.ContentType != want.ContentType {
			t.Errorf("item %d: got %+v", i, item)
		}
		s.Acknowledge(item)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBounds(t *testing.T) {
	body := make([]byte, 1000)
	for name, o := range map[string]Options{"octets": {MaxBytes: 5700}, "envelopes": {MaxEnvelopes: 5}} {
		s := mustOpen(t, newCrashDisk(1), o)
		for i := range 5 {
			if err := s.Append(envelope(fmt.Sprint(i), body), nil); err != nil {
				t.Fatal(name, err)
			}
		}
		if err := s.Append(envelope("more", body), nil); !errors.Is(err, ErrFull) {
			t.Errorf("%s: got %v, want ErrFull", name, err)
		}
		s.Acknowledge(drain(t, s)[0])
		if err := s.Append(envelope("more", body), nil); err != nil {
			t.Errorf("%s: room was made, but: %v", name, err)
		}
		s.Close()
	}
}

func TestSettlementIsTold(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, folder(dir), Options{})
	defer s.Close()
	var told []Settlement
	for _, id := range []string{"good", "bad"} {
		if err := s.Append(envelope(id, []byte(id)), func(how Settlement) { told = append(told, how) }); err != nil {
			t.Fatal(err)
		}
	}
	items := drain(t, s)
	s.Acknowledge(items[0])
	if err := s.Bury(items[1], "the cluster answered 422"); err != nil {
		t.Fatal(err)
	}
	if want := []Settlement{{Acknowledged: true}, {Reason: "the cluster answered 422"}}; !slices.Equal(told, want) {
		t.Errorf("got %v, want %v", told, want)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "dead", "bad.*.json"))
	if len(files) != 1 {
		t.Fatalf("got dead letters %q, want one", files)
	}
	text, _ := os.ReadFile(files[0])
	var letter DeadLetter
	if err := json.Unmarshal(text, &letter); err != nil || string(letter.Body) != "bad" || letter.Reason == "" {
		t.Errorf("got %+v, %v", letter, err)
	}
	again, err := openDeadLetters(folder(dir).Sub("dead"), s.options.Log)
	if err != nil || again.count() != 1 || again.size() != int64(len(text)) {
		t.Errorf("after a restart: got %+v, %v", again, err)
	}
}

// TestReturn gives an item back, behind the others.
func TestReturn(t *testing.T) {
	s := mustOpen(t, newCrashDisk(1), Options{})
	defer s.Close()
	for _, id := range []string{"a", "b"} {
		if err := s.Append(envelope(id, nil), nil); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := s.Next(context.Background())
	s.Return(first)
	second, _ := s.Next(context.Background())
	third, _ := s.Next(context.Background())
	if second.ID != "b" || third.ID != "a" || third.Attempts != 1 {
		t.Errorf("got %s, %s after %d attempts", second.ID, third.ID, third.Attempts)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v from an empty queue and an ended context", err)
	}
}

// TestFailingDisk has writes and syncs fail: nothing is accepted then, and everything is well when the disk is.
func TestFailingDisk(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{})
	defer s.Close()
	if err := s.Append(envelope("before", []byte("1")), nil); err != nil {
		t.Fatal(err)
	}
	for _, broken := range []*bool{&d.failSync, &d.failWrite} {
		*broken = true
		for range 100 {
			if s.Append(envelope("lost", []byte("2")), nil) == nil || s.Check() == nil {
				t.Fatal("accepted on a broken disk")
			}
		}
		*broken = false
	}
	if n := d.count(".segment"); n > 2 {
		t.Errorf("a broken disk filled with %d files", n)
	}
	if err := s.Append(envelope("after", []byte("3")), nil); err != nil {
		t.Fatal(err)
	}
	if items := drain(t, s); len(items) != 2 || items[0].ID != "before" || items[1].ID != "after" {
		t.Errorf("got %v", items)
	}
}

// TestDiskSpaceIsBounded has one old envelope stay pending while many come and go.
func TestDiskSpaceIsBounded(t *testing.T) {
	d := newCrashDisk(1)
	s := mustOpen(t, d, Options{SegmentBytes: 10_000})
	old := []byte("old and alone")
	if err := s.Append(envelope("old", old), nil); err != nil {
		t.Fatal(err)
	}
	first := s.take(1, nil)[0]
	for i := range 1000 {
		if err := s.Append(envelope(fmt.Sprint(i), make([]byte, 1000)), nil); err != nil {
			t.Fatal(err)
		}
		s.Acknowledge(s.take(1, nil)[0])
		s.tick()
		if n := d.count(".segment"); n > 7 {
			t.Fatalf("%d segments of 10,000 octets for one envelope", n)
		}
	}
	s.Close()
	d.crash(anything)
	s = mustOpen(t, d, Options{SegmentBytes: 10_000})
	defer s.Close()
	if items := drain(t, s); len(items) != 1 || !bytes.Equal(items[0].Body, old) || first.ID != items[0].ID {
		t.Errorf("got %v", items)
	}
}

// TestCrashes runs a spool through random appends, settlements, disk failures and crashes, each of which loses an arbitrary
// part of what was not synced. What was accepted and not settled is always found again, with its very bytes.
func TestCrashes(t *testing.T) {
	marker := binary.BigEndian.AppendUint32(nil, recordMarker)
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 0))
		d := newCrashDisk(seed)
		options := Options{SegmentBytes: int64(500 + rng.IntN(5000))}
		bodies, owed, offered := map[string][]byte{}, map[string]bool{}, map[string]bool{}
		for life := range 15 {
			s := mustOpen(t, d, options)
			items := drain(t, s)
			found := map[string]bool{}
			for _, item := range items {
				if body, known := bodies[item.ID]; !known || !bytes.Equal(item.Body, body) || sha256.Sum256(body) != item.SHA256 {
					t.Fatalf("seed %d, life %d: %s came back with other bytes", seed, life, item.ID)
				}
				found[item.ID] = true
			}
			for id := range owed {
				if !found[id] {
					t.Fatalf("seed %d, life %d: accepted envelope %s is lost", seed, life, id)
				}
			}
			var mu sync.Mutex
			for range 10 {
				d.failSync, d.failWrite = rng.IntN(8) == 0, rng.IntN(8) == 0
				var clients sync.WaitGroup
				for range 1 + rng.IntN(8) {
					id := fmt.Sprintf("%d-%d", life, len(bodies))
					body := make([]byte, rng.IntN(300))
					for i := range body { // bytes that look like records, to mislead the search in damaged segments
						body[i] = marker[i%4]
					}
					mu.Lock()
					bodies[id], offered[id] = body, true
					mu.Unlock()
					clients.Go(func() {
						if s.Append(envelope(id, body), nil) == nil {
							mu.Lock()
							owed[id] = true
							mu.Unlock()
						}
					})
				}
				clients.Wait()
				items = append(items, drain(t, s)...)
				for range rng.IntN(8) {
					if len(items) > 0 {
						s.Acknowledge(items[0])
						delete(owed, items[0].ID)
						items = items[1:]
					}
				}
			}
			d.failSync, d.failWrite = false, false
			if rng.IntN(3) == 0 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			d.crash(anything)
		}
	}
}

// FuzzSegment feeds a damaged segment: whatever is found in it must be a whole record of it.
func FuzzSegment(f *testing.F) {
	salt := []byte("saltsalt")
	valid := append([]byte(segmentMagic), salt...)
	valid = appendRecord(valid, salt, kindEnvelope, 1, envelope("id", []byte(`{"a":1}`)).appendTo)
	valid = appendRecord(valid, salt, kindSettled, 1, nil)
	valid = appendSettled(valid, salt, []settlement{{1, Delivered, 5}, {7, DeadLettered, 6}})
	outcome := Outcome{ID: "pop.core", State: Delivered, Accepted: time.Unix(1, 0), Settled: time.Unix(2, 0), Cluster: "eu"}
	valid = appendRecord(valid, salt, kindOutcome, 0, outcome.appendTo)
	f.Add(valid)
	f.Add(append([]byte(segmentMagic1), valid[len(segmentMagic1):]...))
	f.Add(valid[:len(valid)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < segmentHeader {
			return
		}
		end := segmentHeader
		format := formatOf(data)
		lost, err := format.scan(bytes.NewReader(data), int64(len(data)), func(offset int64, content []byte) {
			if offset < int64(end) {
				t.Fatalf("records overlap at %d", offset)
			}
			end = int(offset) + recordHeader + len(content)
			if content[0] == kindEnvelope {
				e, err := format.parseEnvelope(content[contentHeader:])
				if err == nil && format.version == 2 && !bytes.Equal(e.appendTo(nil), content[contentHeader:]) {
					t.Errorf("an envelope is not what it was read from")
				}
			}
			parseOutcome(content[contentHeader:])
		})
		if lost < 0 || lost > int64(len(data)) || err != nil {
			t.Errorf("lost %d of %d, %v", lost, len(data), err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := make([]byte, 1000)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Append(envelope("id", body), nil); err != nil {
				b.Error(err)
				return
			}
			for _, item := range s.take(1, nil) {
				s.Acknowledge(item)
			}
		}
	})
}
