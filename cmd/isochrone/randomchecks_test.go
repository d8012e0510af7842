package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// mostDelay is how late a follower may be told of an override, on a machine that is busy with much else.
const mostDelay = 15 * time.Second

// agree waits until all nodes have in force what stands in the store, and returns that.
func (w *torn) agree() *topology.Snapshot {
	w.Helper()
	var end *topology.Snapshot
	eventually(w.T, "all to have the same in force", func() error {
		var err error
		if end, err = w.store.Read(w.Context()); err != nil {
			return err
		}
		if len(end.Faults) > 0 {
			return fmt.Errorf("the topology is invalid: %v", end.Faults)
		}
		nodes, err := w.store.Nodes(w.Context())
		if err != nil {
			return err
		}
		kinds := map[string]int{}
		for name, n := range nodes {
			if kinds[n.Kind]++; n.Hash != end.Hash {
				return fmt.Errorf("%s has %s of revision %d, want %s", name, n.Hash, n.Revision, end.Hash)
			}
		}
		if kinds["dns"] != 1 || kinds["pop"] != 1 || kinds["control"] != 2 {
			return fmt.Errorf("there are %v", kinds)
		}
		for i, one := range w.followers {
			if last := one.sights(); last[len(last)-1].Hash != end.Hash {
				return fmt.Errorf("follower %d has %s, want %s", i, last[len(last)-1].Hash, end.Hash)
			}
		}
		return nil
	})
	return end
}

// story is what stood in the store at a revision.
type story struct {
	topology  map[string]string // by what follows topology/
	overrides map[string]string // by name
}

// valid returns the topology, if it was valid.
func (s *story) valid() (*topology.Topology, bool) {
	t, faults := s.assembled(nil, 0).Stored()
	return t, len(faults) == 0
}

func (s *story) assembled(good *topology.Topology, revision int64) *topology.Assembler {
	a := topology.NewAssembler(good, revision)
	for name, text := range s.topology {
		a.Put("topology/"+name, []byte(text))
	}
	for name, text := range s.overrides {
		a.Put("overrides/"+name, []byte(text))
	}
	return a
}

// stories reads from etcd's own log what stood in the store at each revision, from the world's first one on up to the end. It knows
// nothing of what Isochrone makes of it.
func (w *torn) stories(end *topology.Snapshot) map[int64]*story {
	w.Helper()
	told, now := map[int64]*story{}, &story{map[string]string{}, map[string]string{}}
	for from := w.began; from <= end.Revision; {
		response := <-w.client.Watch(w.Context(), storeRoot, clientv3.WithPrefix(), clientv3.WithRev(from))
		if err := response.Err(); err != nil {
			w.Fatal(err)
		}
		for _, event := range response.Events {
			at := event.Kv.ModRevision
			for ; from < at; from++ { // the revision before is complete, and so are those in between
				told[from] = &story{maps.Clone(now.topology), maps.Clone(now.overrides)}
			}
			key, of := strings.TrimPrefix(string(event.Kv.Key), storeRoot), map[string]string(nil)
			if name, ok := strings.CutPrefix(key, "topology/"); ok {
				key, of = name, now.topology
			} else if name, ok := strings.CutPrefix(key, "overrides/"); ok {
				key, of = name, now.overrides
			} else {
				continue
			}
			if event.Type == clientv3.EventTypeDelete {
				delete(of, key)
			} else {
				of[key] = string(event.Kv.Value)
			}
		}
		told[from] = &story{maps.Clone(now.topology), maps.Clone(now.overrides)}
		from++
	}
	return told
}

// checkSights holds all that followers were told to what stood in the store.
func (w *torn) checkSights(stories map[int64]*story) {
	w.Helper()
	for i, one := range w.followers {
		sights := one.sights()
		spoilt, faults := 0, 0
		for n, seen := range sights {
			if seen.Revision < w.began { // the world was not there yet
				continue
			}
			if err := seen.check(stories); err != nil {
				if faults++; faults <= 3 {
					w.Errorf("follower %d was told of revision %d: %v", i, seen.Revision, err)
				}
			}
			if len(seen.Faults) > 0 {
				spoilt++
			}
			if n > 0 && (seen.Revision <= sights[n-1].Revision || seen.Good < sights[n-1].Good) {
				w.Errorf("follower %d was told of revision %d (good: %d) after %d (%d)", i, seen.Revision, seen.Good, sights[n-1].Revision, sights[n-1].Good)
			}
		}
		var slowest time.Duration
		inSpite := 0
		for _, o := range w.overrides {
			n, _ := slices.BinarySearchFunc(sights, o.revision, func(s sight, r int64) int { return int(s.Revision - r) })
			if n == len(sights) {
				w.Errorf("follower %d was never told of revision %d, an override", i, o.revision)
				continue
			}
			if slowest = max(slowest, sights[n].at.Sub(o.at)); len(sights[n].Faults) > 0 {
				inSpite++
			}
		}
		if slowest > mostDelay {
			w.Errorf("follower %d was told of an override after %v", i, slowest)
		}
		w.Logf("follower %d: %d snapshots, %d with a topology that is not in force; %d overrides, the slowest after %v, %d while the topology was invalid",
			i, len(sights), spoilt, len(w.overrides), slowest.Round(time.Millisecond), inSpite)
		if spoilt == 0 || inSpite == 0 {
			w.Errorf("follower %d never saw an invalid topology: this run shows too little", i)
		}
	}
}

// check holds a snapshot to what stood in the store: it has in force a topology that stood there as a whole and is valid, and the very
// overrides of its revision.
func (s *sight) check(stories map[int64]*story) error {
	now, good := stories[s.Revision], stories[s.Good]
	if now == nil || good == nil {
		return fmt.Errorf("its topology is of revision %d", s.Good)
	}
	if faults := s.Topology.Validate(); len(faults) > 0 {
		return fmt.Errorf("it has an invalid topology in force: %v", faults)
	}
	was, ok := good.valid()
	if !ok || string(was.Marshal()) != string(s.Topology.Marshal()) {
		return fmt.Errorf("its topology is not what stood in the store at revision %d", s.Good)
	}
	if stored, ok := now.valid(); ok != (len(s.Faults) == 0) || ok && string(stored.Marshal()) != string(s.Topology.Marshal()) {
		return fmt.Errorf("what is stored is valid: %v; it has the topology of revision %d in force, with faults %v", ok, s.Good, s.Faults)
	}
	if want := now.assembled(was, s.Good).Snapshot(s.Revision); want.Hash != s.Hash || len(want.Overrides) != len(s.Overrides) {
		return fmt.Errorf("it has overrides %v, want %v", slices.Sorted(maps.Keys(s.Overrides)), slices.Sorted(maps.Keys(want.Overrides)))
	}
	return nil
}

// checkHistory replays the history: after each entry all is stored that stood in etcd at its revision.
func (w *torn) checkHistory(stories map[int64]*story, end *topology.Snapshot) {
	w.Helper()
	var entries []*store.Entry
	eventually(w.T, "the history to have all edits", func() error {
		entries = w.history()
		replayed := map[string]string{}
		for _, e := range entries {
			for _, object := range e.Objects() {
				redo(replayed, e, object)
			}
		}
		if !maps.Equal(replayed, stories[end.Revision].topology) {
			return errors.New("replayed, it gives something else than what is stored")
		}
		return nil
	})
	replayed, faults, by := map[string]string{}, 0, map[store.Action]int{}
	for i, e := range entries {
		by[e.Action]++
		for _, object := range e.Objects() {
			before, was := e.Before[object]
			if stood, stands := replayed[object]; was != stands || before != stood {
				w.Errorf("the entry of revision %d (%s) says that %s was %q, the one before left %q", e.Revision, e.Action, object, before, stood)
			}
			redo(replayed, e, object)
		}
		if at := stories[e.Revision]; at == nil || !maps.Equal(at.topology, replayed) {
			if faults++; faults <= 3 {
				w.Errorf("after entry %d of %d, of revision %d (%s by %s, of %v), the history has something else than what stood there",
					i, len(entries), e.Revision, e.Action, e.Author, e.Objects())
			}
		} else if _, valid := at.valid(); e.Action == store.Outside && valid == e.Invalid {
			w.Errorf("the entry of revision %d says invalid: %v", e.Revision, e.Invalid)
		}
	}
	w.Logf("%d entries of the history: %v", len(entries), by)
	w.checkPast(stories, end, "while etcd knows it")
	if _, err := w.client.Compact(w.Context(), end.Revision); err != nil {
		w.Fatal(err)
	}
	w.checkPast(stories, end, "from the history alone")
}

// redo does to values what an entry did to an object.
func redo(values map[string]string, e *store.Entry, object string) {
	if after, ok := e.After[object]; ok {
		values[object] = after
	} else {
		delete(values, object)
	}
}

// history returns all of it, the oldest first.
func (w *torn) history() []*store.Entry {
	w.Helper()
	var all []*store.Entry
	for before := int64(0); ; before = all[len(all)-1].Revision {
		page, err := w.store.History(w.Context(), before, 500)
		if err != nil {
			w.Fatal(err)
		}
		if all = append(all, page...); len(page) == 0 {
			slices.Reverse(all)
			return all
		}
	}
}

// checkPast asks for the topology of some revisions.
func (w *torn) checkPast(stories map[int64]*story, end *topology.Snapshot, how string) {
	w.Helper()
	for range 30 {
		revision := w.writing + rand.Int64N(end.Revision-w.writing)
		past, err := w.store.At(w.Context(), revision)
		if err != nil || len(past.Doubts) > 0 || !maps.Equal(past.Values, stories[revision].topology) {
			w.Errorf("revision %d %s: not what stood there: %v", revision, how, err)
			if err == nil {
				w.Logf("doubts: %v", past.Doubts)
			}
			continue
		}
		if _, valid := stories[revision].valid(); valid != (len(past.Faults) == 0) {
			w.Errorf("revision %d %s: has faults %v, was valid: %v", revision, how, past.Faults, valid)
		}
	}
}
