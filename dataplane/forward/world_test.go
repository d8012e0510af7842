package forward

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const service = topology.ExampleService

// world is a Forwarder of a PoP in Singapore on a real spool, whose nearest cluster is ap.
type world struct {
	*Forwarder
	snap     atomic.Pointer[topology.Snapshot]
	verdicts atomic.Pointer[health.Verdicts]
	queue    *spool.Spool
	stop     func()
	mu       sync.Mutex
	settled  map[string]spool.Settlement // by id
	changed  chan struct{}
	posted   int
}

// snapshotOf returns the example topology with clusters at URLs.
func snapshotOf(urls map[string]string, change func(*topology.Topology)) *topology.Snapshot {
	pops := map[string]netip.AddrPort{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 8443)
	}
	all := map[string]string{}
	for _, name := range topology.ExampleClusters {
		all[name] = "http://127.0.0.1:1"
	}
	for name, url := range urls {
		all[name] = url
	}
	t := topology.Example(netip.MustParseAddr("203.0.113.53"), pops, all)
	t.Services[service].Clusters = nil
	for name, c := range t.Clusters {
		if urls[name] == "" {
			c.State = topology.Disabled
		}
	}
	if change != nil {
		change(t)
	}
	return &topology.Snapshot{Topology: t}
}

// newWorld makes a world that does not run yet.
func newWorld(t testing.TB, urls map[string]string, change func(*topology.Topology), config func(*Config)) *world {
	t.Helper()
	w := &world{settled: map[string]spool.Settlement{}, changed: make(chan struct{}, 1)}
	w.snap.Store(snapshotOf(urls, change))
	var err error
	if w.queue, err = spool.Open(t.TempDir(), spool.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.queue.Close(); err != nil {
			t.Error(err)
		}
	})
	c := Config{
		Name: "sin1", Snapshot: w.snap.Load, Model: rtt.Default(), Spool: w.queue, ClusterToken: func(name string) string { return "token-" + name },
		Verdicts: func() health.Verdicts {
			if v := w.verdicts.Load(); v != nil {
				return *v
			}
			return nil
		},
		Log: slog.New(slog.DiscardHandler),
	}
	if config != nil {
		config(&c)
	}
	w.Forwarder = New(c)
	return w
}

// run runs the world until the test ends.
func (w *world) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(w.stop)
}

// post puts an envelope into the spool.
func (w *world) post(t testing.TB, body string, change func(*spool.Envelope)) *spool.Envelope {
	t.Helper()
	w.mu.Lock()
	w.posted++
	e := &spool.Envelope{
		ID: fmt.Sprintf("sin1.%06d", w.posted), Service: service, ContentType: "application/json", Received: time.Now(), Window: 7,
		SHA256: sha256.Sum256([]byte(body)), Body: []byte(body), KeyID: "key",
	}
	w.mu.Unlock()
	if change != nil {
		change(e)
	}
	if err := w.queue.Append(e, func(s spool.Settlement) {
		w.mu.Lock()
		w.settled[e.ID] = s
		w.mu.Unlock()
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}); err != nil {
		t.Fatal(err)
	}
	return e
}

// postAll posts many, some at a time, and returns the bodies by id.
func (w *world) postAll(t testing.TB, n int, body func(i int) string, change func(*spool.Envelope)) map[string]string {
	t.Helper()
	var mu sync.Mutex
	var posting sync.WaitGroup
	sent := map[string]string{}
	for worker := range 50 {
		posting.Go(func() {
			for i := worker; i < n; i += 50 {
				text := body(i)
				e := w.post(t, text, change)
				mu.Lock()
				sent[e.ID] = text
				mu.Unlock()
			}
		})
	}
	posting.Wait()
	return sent
}

// settles waits until so many envelopes have left the spool, and returns how.
func (w *world) settles(t testing.TB, n int) map[string]spool.Settlement {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		w.mu.Lock()
		got := len(w.settled)
		w.mu.Unlock()
		if got >= n {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.settled
		}
		select {
		case <-w.changed:
		case <-deadline:
			t.Fatalf("%d of %d have left the spool: %+v", got, n, w.Stats())
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond) // between two looks at a condition
	}
}

// store is a cluster that keeps what it gets and checks it.
type store struct {
	name   string
	mu     sync.Mutex
	bodies map[string]string // by id
	heads  []http.Header
	came   int
	status atomic.Int64
	t      testing.TB
}

func newStore(t testing.TB, name string) *store {
	s := &store{name: name, bodies: map[string]string{}, t: t}
	s.status.Store(http.StatusAccepted)
	return s
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	sum := sha256.Sum256(body)
	if r.Header.Get("X-Request-Hash") != hex.EncodeToString(sum[:]) || r.Method != "POST" || r.URL.Path != "/api/v1/envelopes" ||
		r.Header.Get("Authorization") != "Bearer token-"+s.name {
		s.t.Errorf("%s: got %s %s with %v and a body of %d", s.name, r.Method, r.URL, r.Header, len(body))
	}
	status := int(s.status.Load())
	s.mu.Lock()
	s.came++
	if status < 300 {
		s.bodies[r.Header.Get("X-Request-Id")] = string(body)
	}
	s.heads = append(s.heads, r.Header)
	s.mu.Unlock()
	w.WriteHeader(status)
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

// serve serves a store over HTTP/1.1.
func (s *store) serve(t testing.TB) *httptest.Server {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server
}
