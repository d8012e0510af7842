package quota

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology/store/embedded"
)

// startEtcd starts an etcd and returns clients of it.
func startEtcd(t testing.TB, clients int) []*clientv3.Client {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { etcd.Close() })
	var all []*clientv3.Client
	for range clients {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		all = append(all, client)
	}
	return all
}

func put(t *testing.T, client *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := client.Put(t.Context(), "/isochrone/"+key, value); err != nil {
		t.Fatal(err)
	}
}

// TestEtcd has three PoPs ask for the same keys at the same time, through three windows.
func TestEtcd(t *testing.T) {
	clients := startEtcd(t, 3)
	const limit, keys = 137, 60
	for k := range keys {
		put(t, clients[0], fmt.Sprintf("keys/k%d", k), "schema: 1")
	}
	var first int64
	for n := range int64(3) {
		var granted [keys]atomic.Int64
		var workers sync.WaitGroup
		for i, client := range clients {
			workers.Go(func() {
				store, open := NewEtcdStore(client, "/isochrone/"), int64(0)
				if n > 0 {
					open = first + n - 1
				}
				for range 10 {
					r := Request{PoP: fmt.Sprintf("pop%d", i), Open: open}
					answer, err := store.Exchange(t.Context(), r)
					if err != nil {
						t.Error(err)
						return
					}
					if i == 0 && n == 0 {
						first = answer.Window
					}
					if n > 0 && answer.Window != first+n {
						t.Errorf("window %d, want %d", answer.Window, first+n)
					}
					for k := range keys {
						r.Asks = append(r.Asks, Ask{Key: fmt.Sprintf("k%d", k), Window: answer.Window, Limit: limit, Want: 50})
					}
					if answer, err = store.Exchange(t.Context(), r); err != nil {
						t.Error(err)
						return
					}
					for k, g := range answer.Grants {
						granted[k].Add(g.Granted)
					}
				}
			})
		}
		workers.Wait()
		for k := range keys {
			if got := granted[k].Load(); got > limit || got < limit*9/10 {
				t.Errorf("window %d, key %d: granted %d of %d", n, k, got, limit)
			}
		}
	}
	store := NewEtcdStore(clients[0], "/isochrone/")
	for _, window := range []int64{first, first + 1, first + 2 + ahead + 1} {
		answer, err := store.Exchange(t.Context(), Request{PoP: "late", Asks: []Ask{{"k0", window, 1000, 1}}})
		if err != nil || answer.Grants[0].Granted != 0 {
			t.Errorf("window %d: got %+v, %v: nothing is granted in what is over, or far ahead", window-first, answer, err)
		}
	}
	records, err := clients[0].Get(t.Context(), "/isochrone/quota/g/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || records.Count > 2*keys {
		t.Errorf("%d records are left (%v), want those of two windows at most", records.Count, err)
	}
}

// TestNothingIsGrantedTwice asks an etcd that has lost its data: before the backup is restored it has no keys, and then comes a window in
// which nothing is granted. No number comes twice.
func TestNothingIsGrantedTwice(t *testing.T) {
	client := startEtcd(t, 1)[0]
	store := NewEtcdStore(client, "/isochrone/")
	exchange := func(r Request) Answer {
		t.Helper()
		r.PoP = "sin1"
		answer, err := store.Exchange(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	grant := func(when string, window, want int64) {
		t.Helper()
		if got := exchange(Request{Asks: []Ask{{"key", window, 10, 1}}}).Grants[0].Granted; got != want {
			t.Errorf("%s: granted %d, want %d", when, got, want)
		}
	}
	before := exchange(Request{}).Window
	grant("without keys", before, 0)
	put(t, client, "keys/key", "schema: 1")
	grant("with the key", before, 1)
	put(t, client, "quota/closed", time.Now().Format(time.RFC3339))
	closed := exchange(Request{Open: before})
	if !closed.Rest || closed.Window <= before+ahead {
		t.Errorf("after the restoring: %+v, want a window of rest far above %d", closed, before)
	}
	for n := range int64(3) {
		grant("in the window of the restoring", closed.Window+n, 0)
	}
	grant("in the window before", before, 0)
	next := exchange(Request{Open: closed.Window})
	if next.Rest || next.Window != closed.Window+1 {
		t.Errorf("after that: %+v", next)
	}
	grant("in the next window", next.Window, 1)
	lost := exchange(Request{Lost: next.Window + 40})
	if !lost.Rest || lost.Window <= next.Window+40+ahead {
		t.Errorf("after a PoP has told of a window that is lost: %+v", lost)
	}
	if unbelievable := exchange(Request{Lost: 1 << 39}); unbelievable.Window != lost.Window {
		t.Errorf("after a number that nobody can have seen: %+v", unbelievable)
	}
	put(t, client, "quota/window", "soon")
	if answer, err := store.Exchange(t.Context(), Request{}); err == nil {
		t.Errorf("with what is no number: got %+v", answer)
	}
}

func FuzzRecord(f *testing.F) {
	for _, text := range []string{"0", "120 sin1=100/250 fra1=20/0", "-1 a=1/1", "2199023255551 a=1/0", "1  a", "1 =1/1", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		again, err := parseRecord(r.String())
		if err != nil || again.String() != r.String() {
			t.Fatalf("%q is read as %q, %v", r, again, err)
		}
		sum := r.sum
		g := r.take("sin1", 100, 7)
		if g.Granted < 0 || g.Granted > 7 || r.sum != sum+g.Granted || g.Granted > 0 && r.sum > 100 || after(r).sum != 0 {
			t.Fatalf("%q: %+v makes %q", text, g, r)
		}
	})
}
