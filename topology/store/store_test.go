package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// open starts an etcd and returns a store in it with the example world, and the client.
func open(t *testing.T) (*Store, *clientv3.Client) {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s := New(client, "/isochrone")
	apply(t, s, Change{Put: objects(example())})
	return s, client
}

func example() *topology.Topology {
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), 8443)
	}
	for i, name := range topology.ExampleClusters {
		clusters[name] = fmt.Sprintf("http://127.0.2.%d:8090", i+1)
	}
	return topology.Example(netip.MustParseAddr("127.0.0.1"), pops, clusters)
}

func objects(x *topology.Topology) map[topology.Ref]topology.Object {
	all := map[topology.Ref]topology.Object{}
	for _, r := range x.Refs() {
		all[r] = x.Object(r)
	}
	return all
}

func apply(t *testing.T, s *Store, change Change) int64 {
	t.Helper()
	revision, err := s.Apply(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func ref(text string) topology.Ref {
	r, err := topology.ParseRef(text)
	if err != nil {
		panic(err)
	}
	return r
}

// pop returns a changed copy of a PoP of the example world, under its name.
func pop(name string, change func(*topology.PoP)) map[topology.Ref]topology.Object {
	p := *example().PoPs[name]
	change(&p)
	return map[topology.Ref]topology.Object{ref("pops/" + name): &p}
}

func draining(p *topology.PoP) { p.State = topology.Draining }

// follower collects the snapshots that Follow publishes.
type follower struct {
	t         *testing.T
	snapshots chan *topology.Snapshot
}

func follow(t *testing.T, s *Store) *follower {
	f := &follower{t, make(chan *topology.Snapshot, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Follow(ctx, nil, func(snap *topology.Snapshot) { f.snapshots <- snap }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow returned %v, want the context's error", err)
		}
	})
	return f
}

// until waits for a snapshot that is as wanted.
func (f *follower) until(what string, wanted func(*topology.Snapshot) bool) *topology.Snapshot {
	f.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case snap := <-f.snapshots:
			if wanted(snap) {
				return snap
			}
		case <-timeout:
			f.t.Fatalf("no snapshot with %s", what)
		}
	}
}

func TestApplyIsSeenByFollowers(t *testing.T) {
	s, _ := open(t)
	f := follow(t, s)
	first := f.until("the example world", func(snap *topology.Snapshot) bool { return len(snap.Topology.PoPs) == 6 })
	revision := apply(t, s, Change{Put: pop("sin1", draining), Delete: []topology.Ref{ref("pops/jnb1")}, Author: "test"})
	snap := f.until("both edits", func(snap *topology.Snapshot) bool { return snap.Revision > first.Revision })
	if snap.Good != revision || snap.Topology.PoPs["sin1"].State != topology.Draining || snap.Topology.PoPs["jnb1"] != nil {
		t.Errorf("got revision %d with %v, want all of revision %d at once", snap.Good, snap.Topology.PoPs, revision)
	}
}

func TestLargeApplyIsAtomic(t *testing.T) {
	s, _ := open(t)
	f := follow(t, s)
	f.until("the example world", func(snap *topology.Snapshot) bool { return len(snap.Topology.PoPs) == 6 })
	change := Change{Put: map[topology.Ref]topology.Object{}}
	for i := range 250 {
		p := *example().PoPs["sin1"]
		p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
		change.Put[ref(fmt.Sprintf("pops/p%d", i))] = &p
	}
	apply(t, s, change)
	for size := 6; size < 256; {
		snap := f.until("any change", func(*topology.Snapshot) bool { return true })
		if size = len(snap.Topology.PoPs); size != 6 && size != 256 {
			t.Fatalf("a snapshot has %d PoPs: an apply became visible in parts", size)
		}
	}
	for r := range change.Put {
		change.Delete = append(change.Delete, r)
	}
	change.Put = nil
	apply(t, s, change)
	f.until("the PoPs gone", func(snap *topology.Snapshot) bool { return len(snap.Topology.PoPs) == 6 })
}

func TestApplyRefuses(t *testing.T) {
	s, client := open(t)
	before, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	base := before.Revision
	for _, test := range []struct {
		name   string
		change Change
		want   error
		text   string
	}{
		{"an invalid object", Change{Put: pop("sin1", func(p *topology.PoP) { p.Location.LatDeg = 135 })}, topology.ErrInvalid, "pops.sin1.location.lat: 135 is not in -90..90"},
		{"an invalid whole", Change{Put: pop("sin1", func(p *topology.PoP) { p.Addresses = example().PoPs["fra1"].Addresses })}, topology.ErrInvalid, "is used by pops.fra1"},
		{"a deletion of nothing", Change{Delete: []topology.Ref{ref("pops/moon")}}, ErrNotFound, "pops/moon"},
		{"what does not fit", Change{Put: pop("sin1", func(p *topology.PoP) { p.Location.City = noise(900_000) })}, ErrTooLarge, "in parts"},
	} {
		if _, err := s.Apply(t.Context(), test.change); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: got %v, want %v and %q", test.name, err, test.want, test.text)
		}
	}
	if after, err := s.Read(t.Context()); err != nil || after.Revision != base {
		t.Errorf("refused changes moved the revision from %d to %d (%v)", base, after.Revision, err)
	}

	apply(t, s, Change{Put: pop("fra1", draining)})
	if _, err := s.Apply(t.Context(), Change{Put: pop("sin1", draining), Base: base}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "pops/fra1") {
		t.Errorf("an edit on an old revision: got %v, want a conflict that names pops/fra1", err)
	}
	_ = client
}

// noise is text that does not compress well.
func noise(n int) string {
	random, text := rand.New(rand.NewPCG(1, 2)), make([]byte, n)
	for i := range text {
		text[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _"[random.IntN(64)]
	}
	return string(text)
}

// TestEditsOfOthersConflict lets others write between the reading and the writing of an edit.
func TestEditsOfOthersConflict(t *testing.T) {
	for name, other := range map[string]func(*Store, *clientv3.Client) error{
		"a plain put": func(_ *Store, client *clientv3.Client) error {
			_, err := client.Put(t.Context(), "/isochrone/topology/pops/new", "x")
			return err
		},
		"a deletion by an edit": func(s *Store, _ *clientv3.Client) error {
			_, err := s.Apply(t.Context(), Change{Delete: []topology.Ref{ref("pops/jnb1")}})
			return err
		},
	} {
		s, client := open(t)
		snap, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := other(s, client); err != nil {
			t.Fatal(err)
		}
		mine := []clientv3.Op{clientv3.OpPut("/isochrone/topology/pops/sin1", "mine")}
		if _, err := s.commit(t.Context(), s.unchanged(snap.Revision), mine); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: got %v, want a conflict", name, err)
		}
	}
}

func TestOutsideEditsAndDrain(t *testing.T) {
	s, client := open(t)
	f := follow(t, s)
	f.until("the example world", func(snap *topology.Snapshot) bool { return len(snap.Topology.PoPs) == 6 })
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/isochrone/topology/pops/sin1", "schema: 1\nlocation: {lat: 135, lon: 0, country: SG}\n")
	bad := f.until("faults", func(snap *topology.Snapshot) bool { return len(snap.Faults) > 0 })
	if bad.Topology.PoPs["sin1"].Location.LatDeg == 135 || len(bad.Topology.PoPs) != 6 {
		t.Errorf("an invalid topology took effect: %+v", bad.Topology.PoPs["sin1"])
	}
	if _, err := s.Apply(t.Context(), Change{Put: pop("fra1", draining)}); !errors.Is(err, topology.ErrInvalid) {
		t.Errorf("an edit that leaves the topology invalid: got %v", err)
	}
	drain := &topology.Override{Schema: 1, Kind: topology.Drain, PoP: "fra1", Reason: "r", Author: "a", Expires: time.Now().Add(time.Hour)}
	if _, err := s.PutOverride(t.Context(), "drain-fra1", drain); err != nil {
		t.Fatal(err)
	}
	f.until("the drain", func(snap *topology.Snapshot) bool { return snap.Overrides["drain-fra1"] != nil && len(snap.Faults) > 0 })
	apply(t, s, Change{Put: pop("sin1", draining)})
	f.until("the mended topology", func(snap *topology.Snapshot) bool {
		return len(snap.Faults) == 0 && snap.Topology.PoPs["sin1"].State == topology.Draining && snap.Overrides["drain-fra1"] != nil
	})
	if _, err := s.DeleteOverride(t.Context(), "drain-fra1", "a"); err != nil {
		t.Error(err)
	}
	if _, err := s.DeleteOverride(t.Context(), "drain-fra1", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	f.until("no drain", func(snap *topology.Snapshot) bool { return len(snap.Overrides) == 0 })
}

func TestHistoryHasWhatWasBefore(t *testing.T) {
	s, client := open(t)
	apply(t, s, Change{Put: pop("sin1", draining), Author: "ops@example", Message: "maintenance"})
	got, err := client.Get(t.Context(), "/isochrone/history/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1))
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	entry := string(got.Kvs[0].Value)
	for _, want := range []string{"author: ops@example", "message: maintenance", "state: active", "state: draining"} {
		if !strings.Contains(entry, want) {
			t.Errorf("the history has no %q:\n%s", want, entry)
		}
	}
}

func TestKeys(t *testing.T) {
	s, _ := open(t)
	id, _, key, err := topology.NewKey(strings.NewReader(strings.Repeat("x", 25)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutKey(t.Context(), id, key, "a"); err != nil {
		t.Fatal(err)
	}
	noted := func(k *topology.Key) (*topology.Key, error) {
		other := *k
		other.Note = "changed"
		return &other, nil
	}
	if _, err := s.ChangeKey(t.Context(), id, "a", noted); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Read(t.Context())
	if err != nil || snap.Keys.Lookup(id) == nil || snap.Keys.Lookup(id).SHA256 != key.SHA256 || snap.Keys.Lookup(id).Note != "changed" {
		t.Errorf("got %v, %v", snap.Keys, err)
	}
	_, err = s.ChangeKey(t.Context(), id, "a", func(k *topology.Key) (*topology.Key, error) {
		if _, err := s.DeleteKey(t.Context(), id, "a"); err != nil { // at the same moment
			t.Error(err)
		}
		return noted(k)
	})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("a key that is revoked meanwhile: got %v, want ErrConflict", err)
	}
	if snap, err := s.Read(t.Context()); err != nil || snap.Keys.Lookup(id) != nil {
		t.Errorf("the revoked key is there again: %v", err)
	}
	if _, err := s.ChangeKey(t.Context(), id, "a", noted); !errors.Is(err, ErrNotFound) {
		t.Errorf("a key that is not there: got %v, want ErrNotFound", err)
	}
}

// TestFull ends a drain and revokes a key in an etcd that is full. Edits fail, and say why.
func TestFull(t *testing.T) {
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Quota: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s := New(client, "/isochrone")
	now := time.Now().UTC()
	o := &topology.Override{Schema: 1, Kind: topology.Drain, PoP: "sin1", Reason: "r", Author: "a", Created: now, Expires: now.Add(time.Hour)}
	if _, err := s.PutOverride(t.Context(), "drain-sin1", o); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = client.Put(t.Context(), "/junk", strings.Repeat("x", 1<<20))
	}
	if !errors.Is(err, etcdclient.ErrFull) {
		t.Fatal(err)
	}
	if _, err := s.PutOverride(t.Context(), "drain-fra1", o); !errors.Is(err, etcdclient.ErrFull) || !strings.Contains(err.Error(), "docs/operations.md") {
		t.Errorf("a drain: got %v, want ErrFull", err)
	}
	if _, err := s.DeleteOverride(t.Context(), "drain-sin1", "a"); err != nil {
		t.Errorf("the end of a drain: got %v", err)
	}
	if _, err := s.DeleteOverride(t.Context(), "drain-sin1", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: got %v, want ErrNotFound", err)
	}
}

// TestLastGoodOutlivesARestart follows an invalid topology from the start, with what was saved before.
func TestLastGoodOutlivesARestart(t *testing.T) {
	s, client := open(t)
	path := filepath.Join(t.TempDir(), "state", "last-good.yaml")
	if empty, err := Load(path); err != nil || len(empty.Topology.PoPs) != 0 || empty.Keys.Len() != 0 {
		t.Errorf("without a file: %+v, %v", empty, err)
	}
	apply(t, s, Change{Put: objects(example()), Author: "test"})
	override := &topology.Override{
		Schema: 1, Kind: topology.Drain, PoP: "sin1", Reason: "r", Author: "a", Created: time.Now().UTC(), Expires: time.Now().UTC().Add(time.Hour),
	}
	if _, err := s.PutOverride(t.Context(), "drain-sin1", override); err != nil {
		t.Fatal(err)
	}
	good, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(path, good); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "/isochrone/topology/pops/sin1", "schema: 1\nstate: asleep\n"); err != nil {
		t.Fatal(err)
	}
	last, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if last.Good != good.Good || last.Overrides["drain-sin1"] == nil {
		t.Errorf("got %+v, want what was saved", last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first *topology.Snapshot
	_ = s.Follow(ctx, last, func(snap *topology.Snapshot) { first = snap; cancel() })
	if first == nil || len(first.Faults) == 0 || first.Topology.PoPs["sin1"] == nil || first.Good != good.Good {
		t.Errorf("got %+v, want the saved topology in force and the faults of the stored one", first)
	}
}
