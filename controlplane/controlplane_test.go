package controlplane

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// networks is a geo database that knows a network in Singapore, one in Japan and one in Germany.
type networks struct{}

func (networks) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for _, n := range []struct {
			prefix, country, continent string
			lat, lon                   float64
		}{{"192.0.2.0/24", "SG", "AS", 1.29, 103.85}, {"198.51.100.0/24", "JP", "AS", 35.7, 139.7}, {"203.0.113.0/24", "DE", "EU", 50.1, 8.7}} {
			place := router.Place{Location: topology.Location{LatDeg: n.lat, LonDeg: n.lon, Country: n.country}, Continent: n.continent}
			if !yield(netip.MustParsePrefix(n.prefix), &place) {
				return
			}
		}
	}
}

// world is a control plane of the example world, at an etcd of its own.
type world struct {
	t       *testing.T
	etcd    *clientv3.Client
	live    *router.Live
	service *Service
	url     string
	tokens  map[Role]string
}

// example is the example world at addresses of documentation.
func example() *topology.Topology {
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 8443)
	}
	for _, name := range topology.ExampleClusters {
		clusters[name] = "http://" + name + ".example"
	}
	return topology.Example(netip.MustParseAddr("203.0.113.53"), pops, clusters)
}

// begin starts a control plane; all it starts ends with the test. The settings may be nil.
func begin(t *testing.T, settings *HandlerConfig) *world {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, etcd: client, live: router.NewLive(atlas), tokens: map[Role]string{}}
	st := store.New(client, "/isochrone/")
	var newest struct {
		sync.Mutex
		*topology.Snapshot
	}
	w.service = &Service{
		View: w.live.View, Now: time.Now, Store: st, Auth: NewTokens(client, "/isochrone/"),
		Geo:      func() GeoStatus { return GeoStatus{Type: "test"} },
		Activity: func() Activity { return Activity{DNS: Counts{"udp": 3}} },
		Snapshot: func() *topology.Snapshot { newest.Lock(); defer newest.Unlock(); return newest.Snapshot },
	}
	put := map[topology.Ref]topology.Object{}
	for _, r := range example().Refs() {
		put[r] = example().Object(r)
	}
	if _, err := st.Apply(t.Context(), store.Change{Put: put, Author: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		made, err := w.service.Auth.Create(t.Context(), TokenRequest{Name: "some " + string(role), Role: role}, "test")
		if err != nil {
			t.Fatal(err)
		}
		w.tokens[role] = made.Secret
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = st.Follow(ctx, nil, func(snap *topology.Snapshot) {
			if err := w.live.Topology(snap, time.Now()); err != nil {
				t.Error(err)
			}
			newest.Lock()
			newest.Snapshot = snap
			newest.Unlock()
		})
	})
	running.Go(func() { _ = w.service.Auth.Follow(ctx, nil) })
	if settings == nil {
		settings = &HandlerConfig{}
	}
	server := httptest.NewServer(NewHandler(w.service, *settings))
	w.url = server.URL
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		running.Wait()
		client.Close()
		etcd.Close()
	})
	w.eventually("a view and tokens", func() bool {
		return w.live.View() != nil && w.service.Snapshot() != nil && w.service.Auth.known.Load() != nil
	})
	return w
}

// eventually waits until something is so.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	deadline, look := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

// client asks over HTTP with the token of a role.
func (w *world) client(role Role) *Client {
	w.t.Helper()
	c, err := NewClient(ClientConfig{URL: w.url, Token: func() (string, error) { return w.tokens[role], nil }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// answer is what came of a request.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// ask sends a request with the token of a role, or with none.
func (w *world) ask(role Role, method, path, body string, header ...string) answer {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if role != "" {
		request.Header.Set("Authorization", "Bearer "+w.tokens[role])
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, text}
}

// problem returns the problem document of a code.
func (a answer) problem(t *testing.T, code int) (document struct {
	problem.Document
	Faults  []topology.Fault
	Changed []string
}) {
	t.Helper()
	if a.code != code || a.header.Get("Content-Type") != problem.ContentType {
		t.Fatalf("got %d %s: %s, want a problem document of %d", a.code, a.header.Get("Content-Type"), a.body, code)
	}
	if err := json.Unmarshal(a.body, &document); err != nil || document.Status != code {
		t.Fatalf("got %s, %v", a.body, err)
	}
	return document
}

// down makes a PoP down.
func (w *world) down(pop string) {
	w.live.Verdicts(health.Verdicts{{Kind: health.PoP, Name: pop}: {Status: health.Down, Reason: "timeout", Since: time.Now()}}, time.Now())
}

// drain puts a drain and waits until it is in force.
func (w *world) drain(pop string) {
	w.t.Helper()
	o := &topology.Override{Kind: topology.Drain, PoP: pop, Reason: "trying", Expires: time.Now().Add(time.Hour)}
	if _, err := w.client(Operator).PutOverride(w.t.Context(), "drain-"+pop, o); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the drain", func() bool { return w.service.Snapshot().Overrides["drain-"+pop] != nil })
}
