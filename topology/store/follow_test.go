package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// drain returns an override of a PoP of the example world.
func drain(pop string) string {
	return string(topology.MarshalValue(&topology.Override{
		Schema: 1, Kind: topology.Drain, PoP: pop, Reason: "r", Author: "a", Created: time.Now().UTC(), Expires: time.Now().UTC().Add(time.Hour),
	}))
}

// TestFollowAcrossSections writes topology and overrides in one transaction, often: no snapshot shows one without the other.
func TestFollowAcrossSections(t *testing.T) {
	s, client := open(t)
	f := follow(t, s)
	f.until("the example world", func(snap *topology.Snapshot) bool { return len(snap.Topology.PoPs) == 6 })
	const edits = 200
	for i := range edits {
		p := *example().PoPs["sin1"]
		p.CapacityRPS = i + 1
		note := strings.Replace(drain("sin1"), "reason: r", fmt.Sprintf("reason: r%d", i+1), 1)
		if _, err := client.Txn(t.Context()).Then(
			clientv3.OpPut("/isochrone/topology/pops/sin1", string(topology.MarshalValue(&p))), clientv3.OpPut("/isochrone/overrides/o", note),
		).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	f.until("the last edit", func(snap *topology.Snapshot) bool {
		want, got := fmt.Sprintf("r%d", snap.Topology.PoPs["sin1"].CapacityRPS), "r0"
		if o := snap.Overrides["o"]; o != nil {
			got = o.Reason
		}
		if got != want {
			t.Fatalf("a snapshot of revision %d has the topology of edit %s and the override of %s", snap.Revision, want, got)
		}
		return snap.Topology.PoPs["sin1"].CapacityRPS == edits
	})
}

// TestFollowBurst has a slow reader: of many edits it gets few snapshots, and the last of them has all.
func TestFollowBurst(t *testing.T) {
	s, client := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, goOn, seen := make(chan struct{}), make(chan struct{}), 0
	var last *topology.Snapshot
	go func() {
		defer close(goOn)
		<-started
		for i := range 300 {
			if _, err := client.Put(ctx, fmt.Sprintf("/isochrone/overrides/o%d", i), drain("sin1")); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	err := s.Follow(ctx, nil, func(snap *topology.Snapshot) {
		if seen++; seen == 1 {
			close(started)
			<-goOn
		}
		if last = snap; len(snap.Overrides) == 300 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(last.Overrides) != 300 || seen > 30 {
		t.Errorf("got %v after %d snapshots, the last with %d overrides: want few", err, seen, len(last.Overrides))
	}
}

// broken is a feed whose watch begins at a revision of the test's choice.
func broken(s *Store, revision int64) Feed {
	once := sync.OnceFunc(func() { revision = 0 })
	return func(ctx context.Context, has Sum, take func(Update) error) error {
		if revision == 0 {
			return s.Feed(sections)(ctx, has, take)
		}
		defer once()
		return s.watch(ctx, sections, revision, take)
	}
}

// TestFollowAfterCompaction begins to watch at a revision that is gone.
func TestFollowAfterCompaction(t *testing.T) {
	s, client := open(t)
	revision := apply(t, s, Change{Put: pop("sin1", draining)})
	if _, err := client.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var failed error
	var got *topology.Snapshot
	f := Follower{Feed: broken(s, 1), Contact: func(err error) { failed = errors.Join(failed, err) }, Publish: func(snap *topology.Snapshot) {
		got = snap
		cancel()
	}}
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) || got.Topology.PoPs["sin1"].State != topology.Draining || failed != nil {
		t.Errorf("got %v and %+v; told of %v", err, got, failed)
	}
}

// TestFollowRestored follows an etcd that has gone back: what it has is read anew. One that has no topology is not followed.
func TestFollowRestored(t *testing.T) {
	t.Parallel()
	s, client := open(t)
	now, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	future := now.Revision + 1_000_000
	run := func(last *topology.Snapshot, feed Feed) (snap *topology.Snapshot, told error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		f := Follower{Feed: feed, Last: last, Contact: func(err error) {
			if told = errors.Join(told, err); errors.Is(err, ErrForgotten) {
				cancel()
			}
		}, Publish: func(read *topology.Snapshot) { snap = read; cancel() }}
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the test's end", err)
		}
		return snap, told
	}
	old := &topology.Snapshot{Revision: future, Good: future, Topology: example()}
	snap, told := run(old, broken(s, future))
	if !errors.Is(told, errWentBack) || snap == nil || snap.Revision != now.Revision || len(snap.Topology.PoPs) != 6 {
		t.Errorf("got %+v, told of %v", snap, told)
	}
	if _, err := client.Delete(t.Context(), "/isochrone/topology/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	for _, revision := range []int64{future, 1} { // others have written a lot since it was emptied, or nobody
		old := &topology.Snapshot{Revision: revision, Good: revision, Topology: example()}
		if snap, told := run(old, s.Feed(sections)); !errors.Is(told, ErrForgotten) || snap != nil {
			t.Errorf("an empty etcd, after revision %d: got %+v, told of %v", revision, snap, told)
		}
	}
}

// TestFollowDeletion deletes all objects while they are watched, which takes effect; what is stored then is read anew like anything else.
func TestFollowDeletion(t *testing.T) {
	s, client := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	again, breaks := make(chan struct{}), errors.New("broken off")
	var times int
	feed := func(ctx context.Context, has Sum, take func(Update) error) error {
		times++
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		if times == 1 {
			go func() {
				select {
				case <-again:
					cancel(breaks)
				case <-ctx.Done():
				}
			}()
		}
		return s.Feed(sections)(ctx, has, take)
	}
	var told error
	f := Follower{Feed: feed, Last: &topology.Snapshot{Good: 1, Topology: example()}, Contact: func(err error) { told = errors.Join(told, err) }}
	f.Publish = func(snap *topology.Snapshot) {
		switch {
		case len(snap.Overrides) == 1:
			cancel()
		case len(snap.Topology.PoPs) == 6:
			if _, err := client.Delete(t.Context(), "/isochrone/topology/", clientv3.WithPrefix()); err != nil {
				t.Error(err)
			}
		default:
			close(again)
			if _, err := client.Put(t.Context(), "/isochrone/overrides/o", drain("sin1")); err != nil {
				t.Error(err)
			}
		}
	}
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) || errors.Is(told, ErrForgotten) {
		t.Errorf("got %v, told of %v", err, told)
	}
}

// TestSections follows what DNS nodes do: keys stay away.
func TestSections(t *testing.T) {
	s, client := open(t)
	for _, key := range []string{"keys/k", "secrets/s"} {
		if _, err := client.Put(t.Context(), "/isochrone/"+key, "x"); err != nil {
			t.Fatal(err)
		}
	}
	for kind, want := range map[string]string{"dns": "secrets", "pop": "keys secrets", "control": "keys secrets"} {
		seen := map[string]bool{}
		stop := errors.New("enough")
		err := s.Feed(SectionsOf(kind))(t.Context(), Sum{}, func(u Update) error {
			for key := range u.Put {
				if !SectionsOf(kind).Have(key) {
					t.Errorf("%s gets %s", kind, key)
				}
				section, _, _ := strings.Cut(key, "/")
				seen[section] = true
			}
			return stop
		})
		delete(seen, "topology")
		if got := strings.Join(slices.Sorted(maps.Keys(seen)), " "); got != want || !errors.Is(err, stop) {
			t.Errorf("%s gets %s, %v, want topology and %s", kind, got, err, want)
		}
	}
}

func event(section, key, value string, revision int64) told {
	e := &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte("/r/" + section + "/" + key), Value: []byte(value), ModRevision: revision}}
	if value == "" {
		e.Type = clientv3.EventTypeDelete
	}
	return told{section: map[string]int{"a": 0, "b": 1}[section], open: true, response: clientv3.WatchResponse{Events: []*clientv3.Event{e}}}
}

func toldProgress(section int, revision int64) told {
	return told{section: section, open: true, response: clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{Revision: revision}}}
}

// TestMerger has two watches tell parts of transactions in many orders.
func TestMerger(t *testing.T) {
	for _, test := range []struct {
		name  string
		tells []told
		want  []Update
	}{
		{"one section alone waits for the other", []told{event("a", "x", "1", 11), toldProgress(1, 11)}, []Update{
			{Revision: 10, Put: map[string][]byte{}}, {Revision: 11, Put: map[string][]byte{"a/x": []byte("1")}},
		}},
		{"both sections of a transaction", []told{event("a", "x", "1", 11), event("b", "y", "2", 11)}, []Update{
			{Revision: 10, Put: map[string][]byte{}}, {Revision: 11, Put: map[string][]byte{"a/x": []byte("1"), "b/y": []byte("2")}},
		}},
		{"one section ahead", []told{event("a", "x", "1", 11), event("a", "x", "2", 12), event("b", "y", "3", 11), toldProgress(1, 12)}, []Update{
			{Revision: 10, Put: map[string][]byte{}}, {Revision: 10, Put: map[string][]byte{}},
			{Revision: 11, Put: map[string][]byte{"a/x": []byte("1"), "b/y": []byte("3")}}, {Revision: 12, Put: map[string][]byte{"a/x": []byte("2")}},
		}},
		{"put and deleted", []told{event("a", "x", "1", 11), event("a", "x", "", 12), toldProgress(1, 12)}, []Update{
			{Revision: 10, Put: map[string][]byte{}}, {Revision: 10, Put: map[string][]byte{}},
			{Revision: 12, Put: map[string][]byte{}, Delete: []string{"a/x"}},
		}},
	} {
		m, got := newMerger(2, 10), []Update(nil)
		for _, tell := range test.tells {
			if err := m.note(tell); err != nil {
				t.Fatal(err)
			}
			got = append(got, m.update("/r/"))
		}
		if diff := cmp.Diff(got, test.want); diff != "" {
			t.Errorf("%s: got and want:\n%s", test.name, diff)
		}
	}
}

// TestTailFindsWhatIsMissed has a feed leave out a change.
func TestTailFindsWhatIsMissed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	one, two := SumOf("topology/a", []byte("1")), SumOf("topology/b", []byte("2"))
	both := one
	both.Combine(two)
	var asked []Sum
	got := map[string]string{}
	tail := Tail{
		Feed: func(ctx context.Context, has Sum, take func(Update) error) error {
			if asked = append(asked, has); len(asked) == 1 {
				if err := take(Update{Revision: 1, Whole: true, Put: map[string][]byte{"topology/a": []byte("1")}, Sum: &one}); err != nil {
					return err
				}
				return take(Update{Revision: 3, Sum: &both})
			}
			if err := take(Update{Revision: 3, Whole: true, Put: map[string][]byte{"topology/a": []byte("1"), "topology/b": []byte("2")}, Sum: &both}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
		Take: func(u Update) {
			for key, value := range u.Put {
				got[key] += string(value)
			}
			if len(got) == 2 {
				cancel()
			}
		},
	}
	if err := tail.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if diff := cmp.Diff(got, map[string]string{"topology/a": "1", "topology/b": "2"}); diff != "" || asked[1] == one {
		t.Errorf("got and want, each once:\n%s\nthe second time the feed was asked with %v", diff, asked[1])
	}
}

// TestTailDoesNotInsist has a feed that says all there is, and then breaks: it is asked less and less often, and at once again after it
// has lasted.
func TestTailDoesNotInsist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var (
			mu    sync.Mutex
			asked []time.Time
		)
		times := func() []time.Time {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(asked)
		}
		var lasting atomic.Int64
		tail := Tail{Take: func(Update) {}, Feed: func(ctx context.Context, _ Sum, take func(Update) error) error {
			mu.Lock()
			asked = append(asked, time.Now())
			mu.Unlock()
			if err := take(Update{Revision: 1, Whole: true}); err != nil {
				return err
			}
			select {
			case <-time.After(time.Duration(lasting.Load())):
			case <-ctx.Done():
			}
			return errors.New("no leader")
		}}
		done := make(chan error)
		go func() { done <- tail.Run(ctx) }()
		time.Sleep(10 * time.Second)
		if n := len(times()); n < 6 || n > 12 {
			t.Errorf("asked %d times in 10 s", n)
		}
		lasting.Store(int64(time.Minute))
		time.Sleep(3 * time.Minute)
		all := times()
		last := all[len(all)-1].Sub(all[len(all)-2])
		if last > time.Minute+100*time.Millisecond {
			t.Errorf("after a feed of a minute: asked again after %v", last)
		}
		cancel()
		<-done
	})
}

// TestLoadInPages reads more values than fit a page, at one revision though they change meanwhile.
func TestLoadInPages(t *testing.T) {
	s, client := open(t)
	const keys = 2*pageOfValues + 1
	var ops []clientv3.Op
	for i := range keys {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("/isochrone/keys/k%06d", i), "old"))
	}
	for group := range slices.Chunk(ops, 100) {
		if _, err := client.Txn(t.Context()).Then(group...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	seen, changed := map[string]int{}, false
	revision, err := s.load(t.Context(), sections, func(kv *mvccpb.KeyValue) {
		section, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), s.root), "/")
		if seen[section]++; section == "keys" && !changed {
			changed = true
			if _, err := client.Put(t.Context(), fmt.Sprintf("/isochrone/keys/k%06d", keys-1), "new"); err != nil {
				t.Error(err)
			}
		}
		if string(kv.Value) == "new" {
			t.Error("what is read first is older than what is read last")
		}
	})
	if err != nil || seen["keys"] != keys || seen["topology"] != len(example().Refs()) {
		t.Errorf("got %v at %d, %v", seen, revision, err)
	}
}

// mute is a watcher of an etcd that does not say how far it has come.
type mute struct{ clientv3.Watcher }

func (mute) RequestProgress(context.Context) error { return nil }

// TestFollowMute edits an etcd that never says that all of a change has been told: it takes effect all the same, if late.
func TestFollowMute(t *testing.T) {
	t.Parallel()
	s, client := open(t)
	client.Watcher = mute{client.Watcher}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var told error
	f := Follower{Feed: s.Feed(sections), Contact: func(err error) { told = errors.Join(told, err) }, Publish: func(snap *topology.Snapshot) {
		if len(snap.Overrides) == 1 {
			cancel()
		} else if _, err := client.Put(ctx, "/isochrone/overrides/o", drain("sin1")); err != nil {
			t.Error(err)
		}
	}}
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) || !errors.Is(told, errUnsettled) {
		t.Errorf("got %v, told of %v", err, told)
	}
}
