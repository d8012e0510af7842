package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology/store"
)

// sumOf is the sum of what a hub has for a kind of node, reckoned anew.
func (h *Hub) sumOf(k kind) (sum store.Sum) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, value := range h.values {
		if store.SectionsOf(string(k)).Have(key) {
			sum.Combine(store.SumOf(key, value))
		}
	}
	return sum
}

// TestSumOfWhatWasNeverThere has a key come and go while the hub is busy: it is told of the end alone. With a wrong sum no node would ever
// be content again.
func TestSumOfWhatWasNeverThere(t *testing.T) {
	hub := NewHub(Config{})
	hub.take(store.Update{Revision: 1, Whole: true, Put: map[string][]byte{"topology/a": []byte("1"), "keys/k": []byte("2")}})
	hub.take(store.Update{Revision: 3, Put: map[string][]byte{"topology/a": []byte("3")}, Delete: []string{"topology/b", "keys/k"}})
	for _, k := range kinds {
		if got, want := hub.sums[k], hub.sumOf(k); got != want {
			t.Errorf("%s: the sum is %v, that of the values %v", k, got, want)
		}
	}
}

// TestTurnedOut has a node be turned out while it follows: its stream ends, and it gets none until it is let in again.
func TestTurnedOut(t *testing.T) {
	a, s := newAuthority(t), newSource()
	var refuses atomic.Pointer[error]
	unsure := ErrUnsure
	refuses.Store(&unsure)
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, Admit: func(cert *x509.Certificate) error {
		if cert.Subject.CommonName == "pop:sin1" && refuses.Load() != nil {
			return *refuses.Load()
		}
		return nil
	}})
	pop, other := a.follow(t, "pop:sin1", hub.url), a.follow(t, "pop:fra1", hub.url)
	other.has(s)
	pop.saw("503")
	refuses.Store(nil)
	pop.has(s)
	out := errors.New("turned out")
	refuses.Store(&out)
	pop.saw("403 Forbidden: turned out")
	for _, err := range []error{
		pop.client.Post(t.Context(), reportPath, store.Node{Kind: "pop"}, nil),
		func() error { _, err := pop.client.Quota(t.Context(), Quota{}); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "turned out") {
			t.Errorf("a node that was turned out: got %v", err)
		}
	}
	s.edit(nil, "topology/a", "of no concern to it")
	other.has(s)
	pop.mu.Lock()
	if pop.values["topology/a"] != "1" {
		t.Errorf("a node that was turned out has %v", pop.values)
	}
	pop.mu.Unlock()
	refuses.Store(nil)
	pop.has(s)
}

// TestExpires has the certificate of a stream end: the node goes on with the one that it has got meanwhile.
func TestExpires(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed})
	end, config := time.Now().Add(2*time.Second).Truncate(time.Second), a.client(t, "")
	shown := make([]*tls.Certificate, 0, 2)
	for _, until := range []time.Time{end, end.Add(time.Hour)} {
		shown = append(shown, a.until(t, "pop:sin1", until))
	}
	var times atomic.Int64
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		times.Add(1)
		if time.Now().Before(end) {
			return shown[0], nil
		}
		return shown[1], nil
	}
	pop := a.followAs(t, "pop", NewClient([]string{hub.url}, config))
	pop.has(s)
	pop.saw("403 Forbidden: the certificate has expired")
	s.edit(nil, "topology/a", "2")
	pop.has(s)
	if times.Load() != 2 {
		t.Errorf("it has connected %d times, want 2", times.Load())
	}
}

// TestStreamsOfOneNode opens many streams as one node: the newest few stay.
func TestStreamsOfOneNode(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, MaxStreams: 2})
	other := a.follow(t, "pop:fra1", hub.url)
	other.has(s)
	client := NewClient([]string{hub.url}, a.client(t, "pop:sin1"))
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	ended := make(chan int, 5)
	for i := range 5 {
		begun := make(chan struct{})
		running.Go(func() {
			once := sync.OnceFunc(func() { close(begun) })
			_ = client.Feed(ctx, store.Sum{9}, func(store.Update) error { once(); return nil })
			ended <- i
		})
		<-begun
	}
	for i := range 3 {
		if got := <-ended; got > 2 {
			t.Errorf("stream %d has ended, the %d. to do so", got, i+1)
		}
	}
	until(t, "the streams of both nodes", func() error {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		if hub.streams != 3 {
			return fmt.Errorf("%d streams", hub.streams)
		}
		return nil
	})
}

// TestLaggingHub has a node change from one hub to another that is behind: it keeps what it has. A store that has gone back is followed.
func TestLaggingHub(t *testing.T) {
	a, s, late := newAuthority(t), newSource(), newSource()
	revision := func(context.Context) (int64, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.revision, nil }
	ahead := a.serve(t, sockettest.Free(t).String(), Config{Feed: s.feed, Revision: revision})
	behind := a.serve(t, "127.0.0.1:0", Config{Feed: late.feed, Revision: revision})
	behind.begins(t)
	s.edit(nil, "keys/k", "", "topology/a", "2") // revokes a key
	pop := a.follow(t, "pop:sin1", ahead.url, behind.url)
	pop.has(s)
	ahead.stop()
	pop.saw("behind the node")
	pop.mu.Lock()
	if _, there := pop.values["keys/k"]; there {
		t.Error("a key that was revoked is good again")
	}
	pop.mu.Unlock()
	late.edit(nil, "keys/k", "", "topology/a", "2", "topology/b", "3")
	pop.has(late)
	s.mu.Lock()
	s.revision = 1 // of a backup
	s.mu.Unlock()
	restored := a.serve(t, strings.TrimPrefix(ahead.url, "https://"), Config{Feed: s.feed, Revision: revision})
	restored.begins(t)
	behind.stop()
	pop.has(s)
}

// TestChangesOfNoConcern edits keys, of which DNS nodes are told nothing: they are not woken, and however many there are, they do not fall
// behind.
func TestChangesOfNoConcern(t *testing.T) {
	hub := NewHub(Config{RingChanges: 2})
	hub.take(store.Update{Revision: 1, Whole: true, Put: map[string][]byte{"topology/a": []byte("1")}})
	for _, k := range kinds {
		_, at := hub.all(k)
		news, _ := hub.state(k)
		for i := range 5 {
			hub.take(store.Update{Revision: int64(i + 2), Put: map[string][]byte{"keys/k": fmt.Append(nil, k, i)}})
		}
		woken := false
		select {
		case <-news:
			woken = true
		default:
		}
		frames, next, ok := hub.after(k, at)
		if concerns := k == "pop"; woken != concerns || ok == concerns || !concerns && (len(frames) > 0 || hub.heartbeat(k, next) == nil) {
			t.Errorf("%s: woken %v, told %d changes, %v", k, woken, len(frames), ok)
		}
	}
}
