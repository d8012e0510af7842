package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

var (
	randomEdits = flag.Int("edits", 160, "edits and overrides of TestRandomEdits; 10000 by hand")
	randomSeed  = flag.Uint64("edits-seed", 0, "seed of TestRandomEdits; 0 stands for a new one")
)

// torn is an etcd that many edit at once, with nodes of all kinds.
type torn struct {
	*testing.T
	client    *clientv3.Client
	store     *store.Store
	dns       *dnsProcess
	followers []*watcher
	began     int64 // the revision at which the world was made …
	writing   int64 // … and one from which on control planes recorded what others edit

	mu        sync.Mutex
	outcomes  map[string]int // of edits, by writer and kind
	overrides []overrideWrite
}

// overrideWrite is an override that was put or deleted.
type overrideWrite struct {
	revision int64
	at       time.Time // when its writer knew
}

// watcher is a node that only follows, and notes what it was told.
type watcher struct {
	mu   sync.Mutex
	seen []sight
}

type sight struct {
	*topology.Snapshot
	at time.Time
}

func (w *watcher) sights() []sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// startTorn starts two control planes, a DNS node at etcd, a PoP behind a relay and some that only follow.
func startTorn(t *testing.T) (w *torn, writers []*writer) {
	t.Helper()
	etcd, client := startEtcd(t)
	w = &torn{T: t, client: client, store: store.New(client, storeRoot), outcomes: map[string]int{}}
	document, err := os.ReadFile(exampleDocument(t))
	if err != nil {
		t.Fatal(err)
	}
	example, err := topology.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	at := ownAddr(t)
	example.PoPs["sin1"].Addresses, example.PoPs["sin1"].Port = []netip.Addr{at.Addr()}, at.Port()
	put, pops := map[topology.Ref]topology.Object{}, map[string]string{}
	for _, r := range example.Refs() {
		put[r] = example.Object(r)
	}
	for name, p := range example.PoPs {
		pops[name] = netip.AddrPortFrom(p.Addresses[0], p.Port).String()
	}
	if w.began, err = w.store.Apply(t.Context(), store.Change{Put: put, Author: "test"}); err != nil {
		t.Fatal(err)
	}

	var tokens []string // many, since each may write only so often
	for i := range 2 + *randomEdits/50 {
		made, err := controlplane.NewTokens(client, storeRoot).Create(t.Context(), controlplane.TokenRequest{Name: fmt.Sprint("w", i), Role: controlplane.Operator}, "test")
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, made.Secret)
	}
	for _, name := range []string{"c1", "c2"} {
		_, url := startControl(t, "--etcd", etcd.Endpoint(), "--dir", t.TempDir(), "--probe=false", "--name", name)
		var asked atomic.Int64
		api, err := controlplane.NewClient(controlplane.ClientConfig{URL: url, Token: func() (string, error) {
			return tokens[int(asked.Add(1))%len(tokens)], nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(api.Close)
		writers = append(writers, apiWriter(name, api))
	}
	writers = append(writers, storeWriter(w.store), plainWriter(client))

	i := newIssuer(t)
	url, _ := i.startRelay(t, client, "127.0.0.1:0")
	dir := t.TempDir()
	i.join(t, dir, "pop:sin1", url)
	start(t, "PoP sin1 serves", "pop", "sin1", "--dir", dir)
	w.dns = startDNSIn(t, &running{Up: statedir.Up{PoPs: pops}}, t.TempDir(), "--etcd", etcd.Endpoint(), "--probe=false")
	w.follow(etcd.Endpoint(), 3)
	return w, writers
}

// follow has some follow the store, each by a client of its own.
func (w *torn) follow(endpoint string, n int) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	w.Cleanup(func() {
		cancel()
		following.Wait()
	})
	for range n {
		client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{endpoint}})
		if err != nil {
			w.Fatal(err)
		}
		w.Cleanup(func() { client.Close() })
		one := new(watcher)
		w.followers = append(w.followers, one)
		following.Go(func() {
			_ = store.New(client, storeRoot).Follow(ctx, nil, func(snap *topology.Snapshot) { // until the end
				one.mu.Lock()
				defer one.mu.Unlock()
				one.seen = append(one.seen, sight{snap, time.Now()})
			})
		})
	}
	for i, one := range w.followers { // before anything is spoilt: who has never seen a valid topology has none in force
		eventually(w.T, fmt.Sprintf("follower %d to begin", i), func() error {
			one.mu.Lock()
			defer one.mu.Unlock()
			if len(one.seen) == 0 {
				return errors.New("it has seen nothing")
			}
			return nil
		})
	}
}

// write makes edits and overrides. Each writer makes as many: else he that nobody checks would make nearly all.
func (w *torn) write(by *writer, random *rand.Rand) {
	for n := range *randomEdits / 4 {
		ctx, cancel := context.WithTimeout(w.Context(), patience)
		kind, err := w.step(ctx, by, random, n)
		cancel()
		outcome := "made"
		switch {
		case errors.Is(err, store.ErrConflict):
			outcome = "refused: conflict"
		case errors.Is(err, controlplane.ErrLimited):
			outcome = "refused: too often"
		case errors.As(err, new(*topology.InvalidError)):
			outcome = "refused: invalid"
		case errors.Is(err, store.ErrNotFound), errors.Is(err, controlplane.ErrNotFound):
			outcome = "refused: not there"
		case err != nil:
			w.Errorf("%s: %s: %v", by.name, kind, err)
			outcome = "failed"
		}
		w.mu.Lock()
		w.outcomes[by.name+" "+kind+" "+outcome]++
		w.mu.Unlock()
	}
}

// step does something.
func (w *torn) step(ctx context.Context, by *writer, random *rand.Rand, n int) (kind string, err error) {
	switch dice := random.IntN(100); {
	case dice < 30:
		return w.override(ctx, by, random, fmt.Sprintf("%s %d", by.name, n))
	case dice < 35:
		return "rollback", by.rollback(ctx, w.began+random.Int64N(max(1, w.newest()-w.began)))
	}
	e := randomEdit(random, by.name, n)
	if random.IntN(4) == 0 {
		e.base = w.newest()
	}
	err = by.apply(ctx, e)
	if errors.As(err, new(*topology.InvalidError)) && random.IntN(3) > 0 { // perhaps the stored topology is invalid
		e.revert = true
		return e.kind + " with --revert-invalid", by.apply(ctx, e)
	}
	return e.kind, err
}

// newest is a revision that was the newest a moment ago.
func (w *torn) newest() int64 {
	one := w.followers[0]
	one.mu.Lock()
	defer one.mu.Unlock()
	if len(one.seen) == 0 {
		return w.began
	}
	return one.seen[len(one.seen)-1].Revision
}

// override puts an override or ends one. Some names are one writer's, some are everybody's.
func (w *torn) override(ctx context.Context, by *writer, random *rand.Rand, reason string) (kind string, err error) {
	name := fmt.Sprintf("%s-%d", []string{by.name, "shared"}[random.IntN(2)], random.IntN(3))
	var revision int64
	if random.IntN(3) == 0 {
		kind = "override ended"
		revision, err = by.deleteOverride(ctx, name)
	} else {
		now := time.Now().UTC().Truncate(time.Second)
		o := &topology.Override{Schema: topology.FirstSchema, Reason: reason, Author: by.name, Created: now, Expires: now.Add(time.Hour)}
		o.PoP = append(slices.Clone(topology.ExamplePoPs[1:]), "x1", "nowhere")[random.IntN(7)]
		switch share := random.Float64(); random.IntN(3) {
		case 0:
			o.Kind = topology.Drain
		case 1:
			o.Kind, o.Verdict = topology.Force, topology.ForceDown
		default:
			o.Kind, o.Share = topology.Pin, &share
		}
		kind = "override put"
		revision, err = by.putOverride(ctx, name, o)
	}
	if err == nil {
		w.mu.Lock()
		w.overrides = append(w.overrides, overrideWrite{revision, time.Now()})
		w.mu.Unlock()
	}
	return kind, err
}

// TestRandomEdits has four writers edit at random: by the API of two control planes, by the store, and by plain puts and deletes as
// etcdctl does them; what they write is valid and invalid, and overrides go on all the time. Whoever follows must have been told
// nothing but what was stored and valid, and all must have the same in the end.
func TestRandomEdits(t *testing.T) {
	t.Parallel()
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-edits-seed %d", seed)
	w, writers := startTorn(t)
	eventually(t, "a control plane to record", func() (err error) {
		recorded, err := w.client.Get(t.Context(), storeRoot+"leader/recorded")
		if w.writing = recorded.Header.GetRevision(); err == nil && len(recorded.Kvs) == 0 {
			err = errors.New("nobody does")
		}
		return err
	})
	began := time.Now()
	var writing sync.WaitGroup
	for i, by := range writers {
		writing.Go(func() { w.write(by, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	writing.Wait()
	took := time.Since(began)
	w.drainsInSpite()
	eventually(t, "an edit that takes back what is invalid", func() error {
		_, err := w.store.Apply(t.Context(), store.Change{RevertInvalid: true, Author: "test"})
		return err
	})
	end := w.agree()
	stories := w.stories(end)
	w.checkSights(stories)
	w.checkHistory(stories, end)
	var lines []string
	for what, n := range w.outcomes {
		lines = append(lines, fmt.Sprintf("%5d %s", n, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[6:], b[6:]) })
	t.Logf("%d edits in %v, up to revision %d:\n%s", *randomEdits, took.Round(time.Second), end.Revision, strings.Join(lines, "\n"))
}

// drainsInSpite drains a PoP while the stored topology is invalid: the DNS node must stop to answer it.
func (w *torn) drainsInSpite() {
	w.Helper()
	ctx := w.Context()
	if _, err := w.client.Delete(ctx, storeRoot+"overrides/", clientv3.WithPrefix()); err != nil {
		w.Fatal(err)
	}
	for _, put := range [][2]string{
		{"topology/pops/gru1", "schema: 1\nlocation: {lat: 135}\n"},
		{"overrides/gru1", string(topology.MarshalValue(&topology.Override{
			Schema: 1, Kind: topology.Drain, PoP: "gru1", Reason: "r", Author: "a", Created: time.Now().UTC(), Expires: time.Now().Add(time.Hour).UTC(),
		}))},
	} {
		if _, err := w.client.Put(ctx, storeRoot+put[0], put[1]); err != nil {
			w.Fatal(err)
		}
	}
	eventually(w.T, "the drain of gru1 while the topology is invalid", func() error {
		got, err := w.dns.pop(sendPlaces["sao-paulo"])
		if err == nil && got == "gru1" {
			err = errors.New("gru1 is still answered")
		} else if err != nil && strings.Contains(err.Error(), "PoPs are at") { // one of those that the edits made
			err = nil
		}
		return err
	})
	eventually(w.T, "/ready to tell of it", func() error {
		if _, body, err := w.dns.get("/ready"); err != nil || !strings.Contains(body, "the last good one is in force") {
			return fmt.Errorf("it says %s, %v", body, err)
		}
		return nil
	})
}
