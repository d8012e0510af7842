package quota

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"github.com/isochrone/isochrone/topology/store/embedded"
)

var start = time.Unix(1_900_000_020, 0) // the beginning of a window

// memory is a Store that can fail, also after it has granted.
type memory struct {
	mu      sync.Mutex
	granted map[string]int64
	fail    func() (before, after bool)
}

var errAway = errors.New("etcd is away")

func (m *memory) Grant(_ context.Context, key string, window, limit, want int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, after := false, false
	if m.fail != nil {
		before, after = m.fail()
	}
	if before {
		return 0, errAway
	}
	record := fmt.Sprint(key, "/", window)
	granted := min(want, limit-m.granted[record])
	m.granted[record] += granted
	if after {
		return 0, errAway
	}
	return granted, nil
}

func TestOnePoPGetsTheWholeQuota(t *testing.T) {
	for _, limit := range []int64{1, 7, 10, 1000} {
		l := NewLedger(&memory{granted: map[string]int64{}})
		for window := range 2 {
			now := start.Add(time.Duration(window)*Window + 15*time.Second)
			var admitted int64
			for range limit + 50 {
				d, err := l.Admit(t.Context(), "key", limit, now)
				if err != nil {
					t.Fatal(err)
				}
				if d.Admitted {
					admitted++
				} else if d.RetryAfter != 45*time.Second {
					t.Errorf("retry after %v, want 45s", d.RetryAfter)
				}
			}
			if admitted != limit {
				t.Errorf("window %d: admitted %d of a quota of %d", window, admitted, limit)
			}
		}
	}
}

// TestNeverOver runs PoPs with clocks of their own, restarts and a store that fails: in no numbered window is more admitted
// than the quota.
func TestNeverOver(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		limit := rapid.Int64Range(1, 40).Draw(r, "quota")
		store := &memory{granted: map[string]int64{}, fail: func() (bool, bool) {
			return rapid.IntRange(0, 9).Draw(r, "fails before") == 0, rapid.IntRange(0, 9).Draw(r, "fails after") == 0
		}}
		pops := make([]*Ledger, rapid.IntRange(1, 4).Draw(r, "PoPs"))
		clocks := make([]time.Time, len(pops))
		for i := range pops {
			pops[i], clocks[i] = NewLedger(store), start
		}
		admitted := map[int64]int64{}
		for range rapid.IntRange(1, 300).Draw(r, "steps") {
			i := rapid.IntRange(0, len(pops)-1).Draw(r, "PoP")
			switch rapid.IntRange(0, 19).Draw(r, "event") {
			case 0:
				pops[i] = NewLedger(store)
			case 1:
				clocks[i] = clocks[i].Add(time.Duration(rapid.IntRange(-70, 70).Draw(r, "seconds")) * time.Second)
			default:
				d, err := pops[i].Admit(context.Background(), "key", limit, clocks[i])
				if err == nil && d.Admitted {
					window := clocks[i].Unix() / 60
					if admitted[window]++; admitted[window] > limit {
						r.Fatalf("admitted %d of %d in window %d", admitted[window], limit, window)
					}
				}
			}
		}
	})
}

func TestStoreAway(t *testing.T) {
	away := true
	l := NewLedger(&memory{granted: map[string]int64{}, fail: func() (bool, bool) { return away, false }})
	if _, err := l.Admit(t.Context(), "key", 10, start); !errors.Is(err, errAway) {
		t.Errorf("got %v, want the store's error", err)
	}
	away = false
	if d, err := l.Admit(t.Context(), "key", 10, start); err != nil || !d.Admitted {
		t.Errorf("got %v, %v after the store came back", d, err)
	}
}

// TestEtcd has three PoPs with a client each compete for one key.
func TestEtcd(t *testing.T) {
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	const limit = 137
	var clients []*clientv3.Client
	for range 3 {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		clients = append(clients, client)
	}
	if _, err := clients[0].Put(t.Context(), "/isochrone/keys/key", "schema: 1"); err != nil {
		t.Fatal(err)
	}
	for window := range 3 {
		var admitted atomic.Int64
		var workers sync.WaitGroup
		for _, client := range clients {
			l := NewLedger(NewEtcdStore(client, "/isochrone/"))
			for range 4 {
				workers.Go(func() {
					for range 50 {
						d, err := l.Admit(t.Context(), "key", limit, start.Add(time.Duration(window)*Window))
						if err != nil {
							t.Error(err)
						} else if d.Admitted {
							admitted.Add(1)
						}
					}
				})
			}
		}
		workers.Wait()
		if got := admitted.Load(); got > limit || got < limit-3*(limit/grants) {
			t.Errorf("window %d: admitted %d of %d", window, got, limit)
		}
	}
	store := NewEtcdStore(clients[0], "/isochrone/")
	if granted, err := store.Grant(t.Context(), "key", start.Unix()/60, limit, 1); granted != 0 || err != nil {
		t.Errorf("granted %d (%v) in a window whose record is removed", granted, err)
	}
	records, err := clients[0].Get(t.Context(), "/isochrone/quota/", clientv3.WithPrefix())
	if err != nil || len(records.Kvs) > 2 {
		t.Errorf("%d records of windows are left (%v), want 2 at most", len(records.Kvs), err)
	}
}

// TestNothingIsGrantedTwice asks an etcd that has lost its data: before the backup is restored it has no keys, and then the window of the
// restoring is closed.
func TestNothingIsGrantedTwice(t *testing.T) {
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	window := start.Unix() / 60
	expect := func(when string, window, want int64) {
		t.Helper()
		if got, err := NewEtcdStore(client, "/isochrone/").Grant(t.Context(), "key", window, 10, 1); got != want || err != nil {
			t.Errorf("%s: granted %d, %v, want %d", when, got, err, want)
		}
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), "/isochrone/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	expect("without keys", window, 0)
	put("quota/closed", start.Add(30*time.Second).Format(time.RFC3339))
	put("keys/key", "schema: 1")
	expect("in the window of the restoring", window, 0)
	expect("in the window before", window-1, 0)
	expect("in the next window", window+1, 1)
	put("quota/closed", "soon")
	if got, err := NewEtcdStore(client, "/isochrone/").Grant(t.Context(), "key", window+2, 10, 1); got != 0 || err == nil {
		t.Errorf("with what is no time: granted %d, %v", got, err)
	}
}

func BenchmarkAdmit(b *testing.B) {
	l := NewLedger(&memory{granted: map[string]int64{}})
	b.ReportAllocs()
	for b.Loop() {
		if d, err := l.Admit(b.Context(), "key", 1<<60, start); err != nil || !d.Admitted {
			b.Fatal(d, err)
		}
	}
}
