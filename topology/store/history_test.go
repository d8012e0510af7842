package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// capacity returns sin1 with a capacity, which tells edits apart.
func capacity(n int) map[topology.Ref]topology.Object {
	return pop("sin1", func(p *topology.PoP) { p.CapacityRPS = n })
}

// put writes a value by other means than the store.
func put(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	response, err := client.Put(t.Context(), "/isochrone/"+key, value)
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.Revision
}

func remove(t *testing.T, client *clientv3.Client, key string) int64 {
	t.Helper()
	response, err := client.Delete(t.Context(), "/isochrone/"+key)
	if err != nil || response.Deleted != 1 {
		t.Fatal(response, err)
	}
	return response.Header.Revision
}

// background runs something until the test or the function that it returns ends it.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for %s", what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func history(t *testing.T, s *Store, before int64, limit int) []*Entry {
	t.Helper()
	entries, err := s.History(t.Context(), before, limit)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func at(t *testing.T, s *Store, revision int64) *Past {
	t.Helper()
	past, err := s.At(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	return past
}

func TestHistoryInPages(t *testing.T) {
	t.Parallel()
	s, client := open(t)
	want := []int64{2} // the example world
	for i := range 60 {
		want = append(want, apply(t, s, Change{Put: capacity(i + 1), Author: "ops", Message: fmt.Sprint(i)}))
		for range i % 7 * 5 {
			put(t, client, "reports/x", "1") // revisions that are nobody's edits
		}
	}
	slices.Reverse(want)
	for _, limit := range []int{1, 7, 1000} {
		var got []int64
		for before := int64(0); ; {
			page := history(t, s, before, limit)
			for _, e := range page {
				got = append(got, e.Revision)
			}
			if len(page) < limit {
				break
			}
			before = page[limit-1].Revision
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: got %v, want %v", limit, got, want)
		}
	}
	newest := history(t, s, 0, 1)[0]
	if newest.Action != Applied || newest.Author != "ops" || newest.Message != "59" || newest.Invalid {
		t.Errorf("got %+v", newest)
	}
	changes := newest.Changes()
	if len(changes) != 1 || changes[0].Object != "pops/sin1" || len(changes[0].Fields) != 1 || string(changes[0].Fields[0].To) != "60" {
		t.Errorf("got changes %+v", changes)
	}
}

// TestTailReadsLittle holds the reading of a long history to what is asked for, wherever the keys lie.
func TestTailReadsLittle(t *testing.T) {
	s, client := open(t)
	numbers := []int64{1, 2, 3, 1_000_000, 1_000_001}
	for i := range int64(600) { // close together, far from others
		numbers = append(numbers, 5_000_000_000+i)
	}
	for group := range slices.Chunk(numbers, 100) {
		var ops []clientv3.Op
		for _, n := range group {
			ops = append(ops, clientv3.OpPut(s.number("audit/", n), "x"))
		}
		if _, err := client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []int64{10_000_000_000, 5_000_000_300, 4_000_000, 3, 1, 0} {
		there := slices.IndexFunc(numbers, func(n int64) bool { return n >= end })
		if there < 0 {
			there = len(numbers)
		}
		for _, want := range []int{1, 20} {
			kvs, err := s.tail(t.Context(), "audit/", end, want, 10)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(kvs); n < min(want, there) || n > 2*want+misplaced {
				t.Errorf("before %d: got %d values, want at least %d and not many more", end, n, want)
			}
			for i, kv := range kvs {
				if wantKey := s.number("audit/", numbers[there-1-i]); string(kv.Key) != wantKey {
					t.Fatalf("before %d: got %s, want %s", end, kv.Key, wantKey)
				}
			}
		}
	}
}

func TestPastBeyondCompaction(t *testing.T) {
	s, client := open(t)
	stop := background(t, s.RecordOutside)
	recordedFrom(t, s)
	states := map[int64]map[string]string{}
	note := func(revision int64) int64 { // remembers what is stored
		states[revision] = at(t, s, revision).Values
		return revision
	}
	note(2) // of before anything was recorded
	note(apply(t, s, Change{Put: capacity(1)}))
	removed := note(apply(t, s, Change{Delete: []topology.Ref{ref("pops/jnb1")}}))
	note(put(t, client, "topology/pops/nrt1", "schema: 1\nstate: asleep\n"))
	note(remove(t, client, "topology/pops/nrt1"))
	last := note(apply(t, s, Change{Put: capacity(2)}))
	eventually(t, "all entries", func() bool { return len(history(t, s, 0, 10)) == 6 })
	stop()
	if _, err := client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	for revision, want := range states {
		past := at(t, s, revision)
		if difference := cmp.Diff(want, past.Values); difference != "" || len(past.Doubts) > 0 || past.Made != revision {
			t.Errorf("revision %d: made at %d, doubts %q: %s", revision, past.Made, past.Doubts, difference)
		}
	}
	if past := at(t, s, removed); past.Topology.PoPs["jnb1"] != nil || past.Topology.PoPs["sin1"].CapacityRPS != 1 || len(past.Faults) > 0 {
		t.Errorf("got %+v", past.Topology)
	}
	if _, err := s.At(t.Context(), last+1000); !errors.Is(err, ErrNotFound) {
		t.Errorf("the future: got %v, want ErrNotFound", err)
	}
	if err := s.advance(t.Context(), func(p *recording) { p.Trimmed = removed }); err != nil {
		t.Fatal(err)
	}
	var trimmed *TrimmedError
	if _, err := s.At(t.Context(), removed-1); !errors.As(err, &trimmed) || trimmed.Oldest != removed {
		t.Errorf("what was trimmed: got %v, want a TrimmedError with %d", err, removed)
	}
}

// recordedFrom waits until outside edits are recorded.
func recordedFrom(t *testing.T, s *Store) {
	t.Helper()
	eventually(t, "the recorder", func() bool {
		p, _, err := s.recording(t.Context())
		return err == nil && p.Since != 0
	})
}

// TestPastWithAGap has an outside edit that nobody recorded.
func TestPastWithAGap(t *testing.T) {
	s, client := open(t)
	first := apply(t, s, Change{Put: capacity(1)})
	gap := put(t, client, "topology/pops/sin1", strings.Replace(string(topology.MarshalValue(example().PoPs["sin1"])), "state: active", "state: draining", 1))
	last := apply(t, s, Change{Put: capacity(2)})
	if _, err := client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if err := s.advance(t.Context(), func(p *recording) { p.Since = 1 }); err != nil {
		t.Fatal(err)
	}
	for _, revision := range []int64{first, gap} { // after the entry before the gap, one cannot tell them apart
		if past := at(t, s, revision); len(past.Doubts) != 1 || !strings.Contains(past.Doubts[0], "pops/sin1") {
			t.Errorf("revision %d: got doubts %q, want one about pops/sin1", revision, past.Doubts)
		}
		if _, err := s.Rollback(t.Context(), revision, 0, "a", ""); !errors.Is(err, ErrUncertain) {
			t.Errorf("a rollback to revision %d: got %v, want ErrUncertain", revision, err)
		}
	}
	if past := at(t, s, first-1); len(past.Doubts) > 0 || past.Topology.PoPs["sin1"].CapacityRPS == 1 {
		t.Errorf("before the entry: got %v, doubts %q", past.Topology.PoPs["sin1"], past.Doubts)
	}
}

func TestRollback(t *testing.T) {
	s, client := open(t)
	good := apply(t, s, Change{Put: capacity(1)})
	want := at(t, s, good).Values
	apply(t, s, Change{Put: capacity(2), Delete: []topology.Ref{ref("pops/jnb1")}})
	bad := put(t, client, "topology/typo", "x")
	put(t, client, "topology/pops/fra1", "nonsense")

	planned, err := s.PlanRollback(t.Context(), good, 0)
	if err != nil || len(planned.Changes) != 4 {
		t.Fatalf("got %+v, %v, want 4 changes", planned, err)
	}
	if _, err := s.Rollback(t.Context(), bad, 0, "a", ""); !errors.Is(err, topology.ErrInvalid) {
		t.Errorf("to what was invalid: got %v", err)
	}
	if _, err := s.Rollback(t.Context(), good, good, "a", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("on an old base: got %v, want a conflict", err)
	}
	revision, err := s.Rollback(t.Context(), good, 0, "a", "back to what worked")
	if err != nil {
		t.Fatal(err)
	}
	if difference := cmp.Diff(want, at(t, s, 0).Values); difference != "" {
		t.Error(difference)
	}
	if e := history(t, s, 0, 1)[0]; e.Revision != revision || e.Action != RolledBack || e.Message != "back to what worked" || len(e.Objects()) != 4 {
		t.Errorf("got %+v", e)
	}
	if again, err := s.Rollback(t.Context(), good, 0, "a", ""); err != nil || again != revision {
		t.Errorf("a second time: got %d, %v, want nothing done at %d", again, err, revision)
	}
}

func TestPlanWritesNothing(t *testing.T) {
	s, _ := open(t)
	planned, err := s.Plan(t.Context(), Change{Put: capacity(7), Delete: []topology.Ref{ref("pops/jnb1")}})
	if err != nil {
		t.Fatal(err)
	}
	if planned.Before.PoPs["jnb1"] == nil || planned.After.PoPs["jnb1"] != nil || planned.After.PoPs["sin1"].CapacityRPS != 7 || len(planned.Changes) != 2 {
		t.Errorf("got %+v", planned)
	}
	if revision, err := s.Revision(t.Context()); err != nil || revision != planned.Revision {
		t.Errorf("planning moved the store from %d to %d", planned.Revision, revision)
	}
	if _, err := s.Plan(t.Context(), Change{Put: pop("sin1", func(p *topology.PoP) { p.Location.LatDeg = 135 })}); !errors.Is(err, topology.ErrInvalid) {
		t.Errorf("got %v, want what Apply says", err)
	}
}

func TestConflictNamesWhoAndWhen(t *testing.T) {
	s, client := open(t)
	base := apply(t, s, Change{Put: capacity(1)})
	theirs := apply(t, s, Change{Put: pop("fra1", draining), Author: "alice", Message: "fibre cut"})
	remove(t, client, "topology/pops/jnb1")
	_, err := s.Apply(t.Context(), Change{Put: capacity(2), Base: base})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || !slices.Equal(conflict.Objects, []string{"pops/fra1", "pops/jnb1"}) {
		t.Fatalf("got %v, want a conflict about both", err)
	}
	for _, want := range []string{"alice", "fibre cut", fmt.Sprintf("revision %d", theirs), "pops/jnb1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: has no %q", err, want)
		}
	}
	if _, err := s.Apply(t.Context(), Change{Put: capacity(2), Base: 1 << 40}); !errors.Is(err, ErrConflict) {
		t.Errorf("a base to come: got %v", err)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ compact, record bool }{
		"recorded": {record: true}, "by nobody recorded": {}, "recorded after a compaction": {compact: true, record: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := open(t)
			if d, err := s.Doctor(t.Context()); err != nil || len(d.Faults) > 0 || d.LastGood != d.Revision || d.Topology == nil {
				t.Fatalf("of a valid topology: got %+v, %v", d, err)
			}
			good := apply(t, s, Change{Put: capacity(10), Author: "ops"})
			want := at(t, s, 0).Values
			harmless := put(t, client, "topology/pops/fra1", string(topology.MarshalValue(pop("fra1", draining)[ref("pops/fra1")])))
			first := put(t, client, "topology/pops/sin1", "schema: 1\nlocation: {lat: 135, lon: 0, country: SG}\n")
			second := put(t, client, "topology/typo", "x")
			if test.compact {
				if _, err := client.Compact(t.Context(), second); err != nil {
					t.Fatal(err)
				}
			}
			if test.record {
				stop := background(t, s.RecordOutside)
				eventually(t, "the entries", func() bool {
					p, _, err := s.recording(t.Context())
					return err == nil && p.Through >= second
				})
				stop()
			}
			d, err := s.Doctor(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.compact { // in one summary: nobody knows their order
				if len(d.Culprits) != 1 || len(d.Culprits[0].Objects()) != 3 || !d.Culprits[0].Invalid {
					t.Fatalf("got %+v, want one summary", d.Culprits)
				}
			} else if d.LastGood != first-1 || len(d.Culprits) != 2 || d.Culprits[0].Revision != first || d.Culprits[1].Revision != second {
				t.Fatalf("got last good %d and %v, want %d and revisions %d and %d", d.LastGood, d.Culprits, first-1, first, second)
			}
			_, err = s.Apply(t.Context(), Change{Put: pop("nrt1", draining)})
			if !errors.Is(err, topology.ErrInvalid) || !strings.Contains(err.Error(), "--revert-invalid") || !strings.Contains(err.Error(), "outside changed") {
				t.Errorf("an edit on it: got %v, want the culprits and the way out", err)
			}
			planned, err := s.Plan(t.Context(), Change{Put: pop("nrt1", draining), RevertInvalid: true})
			if err != nil || len(planned.Reverted) != len(d.Culprits) {
				t.Fatalf("got %+v, %v, want %d edits taken back", planned, err, len(d.Culprits))
			}
			apply(t, s, Change{Put: pop("nrt1", draining), RevertInvalid: true, Author: "ops"})
			now := at(t, s, 0)
			if len(now.Faults) > 0 || now.Topology.PoPs["nrt1"].State != topology.Draining || now.Values["pops/sin1"] != want["pops/sin1"] {
				t.Errorf("got faults %v and %+v", now.Faults, now.Values)
			}
			if kept := now.Values["pops/fra1"] != want["pops/fra1"]; kept == test.compact {
				t.Errorf("the harmless edit of revision %d is kept: %v", harmless, kept)
			}
			if e := history(t, s, 0, 1)[0]; e.Action != Reverted {
				t.Errorf("got %+v", e)
			}
			if _, err := s.Rollback(t.Context(), good, 0, "ops", ""); (err != nil) != test.compact { // what was is not certain
				t.Fatal(err)
			}
		})
	}
}

// TestRecordOutside goes through what etcdctl can do, an end of the recorder, and compaction while there is none.
func TestRecordOutside(t *testing.T) {
	s, client := open(t)
	stop := background(t, s.RecordOutside)
	recordedFrom(t, s)
	var want []int64
	record := func(revision int64) int64 { want = append(want, revision); return revision }
	recorded := func() bool {
		var got []int64
		for _, e := range history(t, s, 0, 100) {
			if e.Author == OutsideAuthor && e.Since == 0 {
				got = append(got, e.Revision)
			}
		}
		slices.Reverse(got)
		return slices.Equal(got, want)
	}
	both, err := client.Txn(t.Context()).Then(clientv3.OpDelete("/isochrone/topology/pops/jnb1"),
		clientv3.OpPut("/isochrone/topology/pops/sin1", "schema: 1\nstate: asleep\n")).Commit()
	if err != nil {
		t.Fatal(err)
	}
	record(both.Header.Revision)
	eventually(t, "the first entry", recorded)
	e := history(t, s, 0, 1)[0]
	if e.Before["pops/jnb1"] == "" || e.After["pops/jnb1"] != "" || e.After["pops/sin1"] != "schema: 1\nstate: asleep\n" || !e.Invalid || e.Action != Outside {
		t.Errorf("got %+v", e)
	}
	audits, err := s.Audit(t.Context(), "", 1)
	if err != nil || len(audits) != 1 || audits[0].Author != OutsideAuthor || len(audits[0].Objects) != 2 {
		t.Errorf("audit: got %+v, %v", audits, err)
	}
	stop()

	record(put(t, client, "topology/pops/binary", "\xff\x00"))
	record(remove(t, client, "topology/pops/binary"))
	apply(t, s, Change{Put: capacity(3)})
	first, second := background(t, s.RecordOutside), background(t, s.RecordOutside) // two leaders for a moment
	eventually(t, "what was done meanwhile", recorded)
	record(put(t, client, "topology/pops/sin1", string(topology.MarshalValue(example().PoPs["sin1"]))))
	eventually(t, "one entry from two recorders", recorded)
	eventually(t, "both recorders", func() bool {
		p, _, err := s.recording(t.Context())
		return err == nil && p.Through >= want[len(want)-1]
	})
	first()
	second()
	outside := 0
	if audits, err = s.Audit(t.Context(), "", 100); err != nil {
		t.Fatal(err)
	}
	for _, a := range audits {
		if a.Author == OutsideAuthor {
			outside++
		}
	}
	if !recorded() || outside != len(want) {
		t.Errorf("%d edits were recorded %d times", len(want), outside)
	}

	put(t, client, "topology/pops/sin1", "x")
	remove(t, client, "topology/pops/nrt1")
	last := put(t, client, "topology/pops/sin1", "y")
	if _, err := client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	stop = background(t, s.RecordOutside)
	eventually(t, "a summary", func() bool { return history(t, s, 0, 1)[0].Since != 0 })
	e = history(t, s, 0, 1)[0]
	if !slices.Equal(e.Objects(), []string{"pops/nrt1", "pops/sin1"}) || e.After["pops/sin1"] != "y" || e.Before["pops/nrt1"] == "" || !e.Invalid {
		t.Errorf("the summary: got %+v", e)
	}
	stop()
}

// TestLargeZone changes a zone of more than a third of what one transaction can carry: what is stored, and an entry with what was before
// and after, would not fit it as they are.
func TestLargeZone(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	zone := *example().Zones["isochrone.test"]
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 1_050 { // few and long: reading many takes long where races are looked for
		text := fmt.Sprintf("contract %08x, %s", random.Uint64(), noise(64)+strings.Repeat("isochrone ", 14))
		zone.Records = append(zone.Records, fmt.Sprintf("host-%d.customers 300 TXT %q %q", i, text, text))
	}
	big := map[topology.Ref]topology.Object{ref("zones/isochrone.test"): &zone}
	revision := apply(t, s, Change{Put: big})
	edited := zone
	edited.Records = slices.Clone(zone.Records)
	edited.Records[100] = "www 300 A 192.0.2.1"
	edited.Records[1000] = "www 300 A 192.0.2.2"
	apply(t, s, Change{Put: map[topology.Ref]topology.Object{ref("zones/isochrone.test"): &edited}})
	e := history(t, s, 0, 1)[0]
	if size := len(e.After["zones/isochrone.test"]); 3*size < maxChangeBytes {
		t.Fatalf("the zone has %d bytes", size)
	}
	if e.Before["zones/isochrone.test"] != string(topology.MarshalValue(&zone)) || e.After["zones/isochrone.test"] != string(topology.MarshalValue(&edited)) {
		t.Error("the history does not have the values")
	}
	if changes := e.Changes(); len(changes) != 1 || len(changes[0].Fields) != 4 {
		t.Errorf("got %+v, want two lines removed and two added", changes)
	}
	if _, err := s.Rollback(t.Context(), revision, 0, "a", ""); err != nil {
		t.Error(err)
	}
}

func TestOldNodesAreAsked(t *testing.T) {
	s, client := open(t)
	value := "schema: 2\n"
	p := &Planned{values: map[string]*string{"pops/sin1": &value, "pops/fra1": nil}}
	if err := s.checkSchemas(t.Context(), p); err != nil {
		t.Errorf("without nodes: got %v", err)
	}
	put(t, client, "nodes/garbage", "{")
	put(t, client, "nodes/new", "name: new\nschema_known: 2\n")
	if err := s.checkSchemas(t.Context(), p); err != nil {
		t.Errorf("with a new node: got %v", err)
	}
	put(t, client, "nodes/old", "name: dns-fra1\nschema_known: 1\n")
	if err := s.checkSchemas(t.Context(), p); !errors.Is(err, topology.ErrInvalid) || !strings.Contains(err.Error(), "dns-fra1") {
		t.Errorf("with an old node: got %v, want its name", err)
	}
}

// TestRandomEdits has several writers edit at once, in both ways, and compares what the history says with what etcd says.
func TestRandomEdits(t *testing.T) {
	t.Parallel()
	s, client := open(t)
	stop := background(t, s.RecordOutside)
	recordedFrom(t, s)
	from, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for writer := range 4 {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(writer)))
			for range 60 {
				if err := randomEdit(t.Context(), s, client, random); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	last := put(t, client, "topology/pops/last", "x")
	eventually(t, "all entries", func() bool { return history(t, s, 0, 1)[0].Revision == last })
	stop()

	now, err := s.values(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	progress, _, err := s.recording(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries, complete, err := s.since(t.Context(), from, 10_000)
	if err != nil || !complete || len(entries) < 100 {
		t.Fatalf("got %d entries, %v", len(entries), err)
	}
	texts, actions := maps.Clone(now.texts), map[Action]int{}
	for i, e := range entries {
		actions[e.Action]++
		want, err := s.values(t.Context(), e.Revision)
		if err != nil {
			t.Fatal(err)
		}
		if difference := cmp.Diff(want.texts, texts); difference != "" {
			t.Fatalf("revision %d: %s", e.Revision, difference)
		}
		_, faults := assemble(want.texts).Stored()
		if e.Invalid != (len(faults) > 0) {
			t.Errorf("revision %d: invalid %v, faults %v", e.Revision, e.Invalid, faults)
		}
		if i%10 == 0 {
			past, err := s.undo(t.Context(), now, e.Revision, progress)
			if err != nil || !maps.Equal(past.Values, want.texts) || len(past.Doubts) > 0 || past.Made != e.Revision {
				t.Fatalf("revision %d: %+v, %v", e.Revision, past, err)
			}
		}
		undoEntry(texts, e)
	}
	t.Logf("%v", actions)
	for _, action := range []Action{Applied, Outside, Reverted, RolledBack} {
		if actions[action] == 0 {
			t.Errorf("no %s among the edits", action)
		}
	}
}

// randomEdit edits in one of the ways; what is refused is no error.
func randomEdit(ctx context.Context, s *Store, client *clientv3.Client, random *rand.Rand) error {
	name := topology.ExamplePoPs[random.IntN(6)]
	change := Change{Put: pop(name, func(p *topology.PoP) { p.CapacityRPS = random.IntN(1000) }), Author: "ops", RevertInvalid: random.IntN(4) == 0}
	var err error
	switch random.IntN(8) {
	case 0:
		_, err = client.Put(ctx, "/isochrone/topology/pops/"+name, string(topology.MarshalValue(change.Put[ref("pops/"+name)])))
	case 1:
		_, err = client.Put(ctx, "/isochrone/topology/pops/"+name, "schema: 1\nstate: asleep\n")
	case 2:
		_, err = client.Delete(ctx, "/isochrone/topology/pops/"+name)
	case 3:
		_, err = s.Apply(ctx, Change{Delete: []topology.Ref{ref("pops/" + name)}, Author: "ops"})
	case 4:
		var revision int64
		if revision, err = s.Revision(ctx); err == nil {
			_, err = s.Rollback(ctx, max(2, revision-random.Int64N(20)), 0, "ops", "")
		}
	default:
		_, err = s.Apply(ctx, change)
	}
	for _, refused := range []error{topology.ErrInvalid, ErrConflict, ErrNotFound, ErrNoneGood} {
		if errors.Is(err, refused) {
			return nil
		}
	}
	return err
}
