package forward

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology"
)

// TestRequest looks at one request, over HTTP/1.1 and 2.
func TestRequest(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/1.1 with TLS", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			ap := newStore(t, "ap")
			server := httptest.NewUnstartedServer(ap)
			config := func(*Config) {}
			if protocol == "HTTP/1.1" {
				server.Start()
			} else {
				server.EnableHTTP2 = protocol == "HTTP/2.0"
				server.StartTLS()
				config = func(c *Config) { c.Roots = rootsOf(server) }
			}
			t.Cleanup(server.Close)
			w := newWorld(t, map[string]string{"ap": server.URL}, nil, config)
			w.run(t)
			body := "{ \"a\": \"\u00e9\\n\" }\n"
			e := w.post(t, body, func(e *spool.Envelope) {
				e.ContentType, e.Traceparent = "application/json; charset=utf-8", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			})
			odd := w.post(t, strings.Repeat("long", 50_000), func(e *spool.Envelope) { e.ContentType = "text/plain\r\nX-Evil: 1" })
			empty := w.post(t, "", nil)
			settled := w.settles(t, 3)
			if !settled[e.ID].Acknowledged || settled[e.ID].Cluster != "ap" || ap.bodies[e.ID] != body || len(ap.bodies[odd.ID]) != 200_000 || !settled[empty.ID].Acknowledged {
				t.Errorf("got %+v, and %d envelopes", settled, len(ap.bodies))
			}
			for _, h := range ap.heads {
				if h.Get("X-Evil") != "" {
					t.Error("a header field came in by the content type")
				}
				if h.Get("X-Request-Id") != e.ID {
					continue
				}
				for name, want := range map[string]string{
					"X-Request-Hash": hex.EncodeToString(e.SHA256[:]), "X-Edge-Validated": "1", "X-Isochrone-Window": "7", "User-Agent": "isochrone",
					"Content-Type": e.ContentType, "Authorization": "Bearer token-ap", "Content-Length": fmt.Sprint(len(body)),
				} {
					if got := h.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				if parent := h.Get("Traceparent"); len(parent) != 55 || parent[:36] != e.Traceparent[:36] || parent == e.Traceparent || parent[52:] != "-01" {
					t.Errorf("got traceparent %q of %q, want a span of its own in the same trace", parent, e.Traceparent)
				}
			}
		})
	}
}

// scripted is a server whose connections each run a script.
func scripted(t *testing.T, script func(n int, c net.Conn, r *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	serving.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			serving.Go(func() {
				defer c.Close()
				script(n, c, bufio.NewReader(c))
			})
		}
	})
	return "http://" + l.Addr().String()
}

// takeOne reads a request, and checks its hash.
func takeOne(t *testing.T, r *bufio.Reader) (id string, ok bool) {
	request, err := http.ReadRequest(r)
	if err != nil {
		return "", false
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return "", false
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != request.Header.Get("X-Request-Hash") {
		t.Errorf("%s came with other bytes", request.Header.Get("X-Request-Id"))
	}
	return request.Header.Get("X-Request-Id"), true
}

const yes = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok"

// TestServersThatMisbehave has a cluster whose server breaks connections in many ways, and another that is well: all is delivered, each
// envelope that was only half answered is sent again, and what follows a malformed answer is never believed.
func TestServersThatMisbehave(t *testing.T) {
	answerTo := func(answer string) func(*testing.T, int, net.Conn, *bufio.Reader) {
		return func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) {
			for {
				if _, ok := takeOne(t, r); !ok {
					return
				}
				if _, err := io.WriteString(c, answer); err != nil {
					return
				}
			}
		}
	}
	for _, test := range []struct {
		name   string
		script func(*testing.T, int, net.Conn, *bufio.Reader)
		all    bool // the first cluster gets all of them in the end
	}{
		{"good", answerTo(yes), true},
		{"chunked with trailers and an interim answer",
			answerTo("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"), true},
		{"closes after each answer, and says so", func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) {
			if _, ok := takeOne(t, r); ok {
				io.WriteString(c, "HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			}
		}, true},
		{"HTTP/1.0", func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) {
			if _, ok := takeOne(t, r); ok {
				io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nuntil the end")
			}
		}, true},
		{"closes in the middle of pipelines", func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) {
			for range 5 {
				if _, ok := takeOne(t, r); !ok {
					return
				}
				io.WriteString(c, yes)
			}
		}, true},
		{"closes before it answers", func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) { takeOne(t, r) }, false},
		{"half an answer", func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) {
			takeOne(t, r)
			io.WriteString(c, yes[:30])
		}, false},
		{"two answers for one", answerTo("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), false},
		{"two lengths", answerTo("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"), false},
		{"length and chunks", answerTo("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), false},
		{"garbage", answerTo(strings.Repeat("\x00\xff", 20_000)), false},
		{"endless head", answerTo("HTTP/1.1 202 Accepted\r\n" + strings.Repeat("A: b\r\n", 5000) + "\r\n"), false},
		{"bare line feeds", answerTo("HTTP/1.1 202 Accepted\nContent-Length: 0\n\n"), false},
		{"switches protocols", answerTo("HTTP/1.1 101 Switching Protocols\r\n\r\n"), false},
		{"speaks first", func(t *testing.T, _ int, c net.Conn, r *bufio.Reader) {
			io.WriteString(c, yes+yes)
			takeOne(t, r)
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			good := newStore(t, "eu")
			bad := scripted(t, func(n int, c net.Conn, r *bufio.Reader) { test.script(t, n, c, r) })
			w := newWorld(t, map[string]string{"ap": bad, "eu": good.serve(t).URL}, nil, nil)
			w.run(t)
			const n = 200
			w.postAll(t, n, func(i int) string { return fmt.Sprint("body ", i) }, nil)
			for id, s := range w.settles(t, n) {
				if !s.Acknowledged || test.all && s.Cluster != "ap" {
					if test.all && s.Acknowledged && strings.Contains(test.name, "close") {
						continue // some went to eu while connections were opened
					}
					t.Fatalf("%s: got %+v", id, s)
				}
				if !test.all && s.Cluster == "ap" && test.name != "two answers for one" && test.name != "speaks first" {
					t.Errorf("%s was believed to be with a cluster that did not answer", id)
				}
			}
		})
	}
}

// TestSlowClusterHoldsNobodyUp has the cluster of one service hang; the envelopes of another, which come later, are delivered.
func TestSlowClusterHoldsNobodyUp(t *testing.T) {
	hangs := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	good := newStore(t, "eu")
	w := newWorld(t, map[string]string{"ap": hangs, "eu": good.serve(t).URL}, func(x *topology.Topology) {
		other := *x.Services[service]
		other.Clusters = []string{"eu"}
		x.Services["other.test"] = &other
		x.Services[service].Clusters = []string{"ap"}
	}, nil)
	w.run(t)
	w.postAll(t, 2000, func(int) string { return "slow" }, nil)
	w.postAll(t, 100, func(int) string { return "quick" }, func(e *spool.Envelope) { e.Service = "other.test" })
	w.settles(t, 100)
	if got := good.count(); got != 100 {
		t.Errorf("got %d, want the 100 of the other service", got)
	}
	if l := w.Load(); l.InFlight == 0 || l.Waiting == 0 || l.Oldest <= 0 {
		t.Errorf("got %+v", l)
	}
}

// TestStatuses has answers of each kind.
func TestStatuses(t *testing.T) {
	for status, want := range map[int]string{
		200: "acknowledged", 204: "acknowledged", 409: "acknowledged", 400: "dead", 404: "dead", 413: "dead", 422: "dead",
		301: "again", 401: "again", 403: "again", 407: "again", 408: "again", 421: "again", 425: "again", 429: "again", 500: "again", 503: "again", 504: "again",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			ap, eu := newStore(t, "ap"), newStore(t, "eu")
			ap.status.Store(int64(status))
			w := newWorld(t, map[string]string{"ap": ap.serve(t).URL, "eu": eu.serve(t).URL}, nil, nil)
			w.run(t)
			e := w.post(t, "body", nil)
			got := w.settles(t, 1)[e.ID]
			told := "dead"
			if got.Acknowledged {
				told = map[string]string{"ap": "acknowledged", "eu": "again"}[got.Cluster]
			} else if !strings.HasPrefix(got.Reason, fmt.Sprintf("cluster ap answered %d ", status)) {
				t.Errorf("got reason %q", got.Reason)
			}
			if told != want {
				t.Errorf("got %s (%+v), want %s", told, got, want)
			}
		})
	}
}

// TestRetryAfter has a cluster ask for a pause: it gets nothing before.
func TestRetryAfter(t *testing.T) {
	var came atomic.Int64
	ap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		came.Add(1)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	}))
	t.Cleanup(ap.Close)
	eu := newStore(t, "eu")
	w := newWorld(t, map[string]string{"ap": ap.URL, "eu": eu.serve(t).URL}, nil, nil)
	w.run(t)
	w.post(t, "first", nil)
	w.settles(t, 1)
	for range 50 {
		w.post(t, "later", nil)
	}
	w.settles(t, 51)
	if came.Load() != 1 || eu.count() != 51 {
		t.Errorf("ap was asked %d times, eu has %d", came.Load(), eu.count())
	}
}

// TestOutageSpendsTheBudget has all clusters fail for a while: what is sent is bounded by what is new, the budget and the breakers; when
// they are well again all is delivered.
func TestOutageSpendsTheBudget(t *testing.T) {
	stores, urls := map[string]*store{}, map[string]string{}
	for _, name := range []string{"ap", "eu", "us"} {
		stores[name] = newStore(t, name)
		stores[name].status.Store(500)
		urls[name] = stores[name].serve(t).URL
	}
	w := newWorld(t, urls, nil, nil)
	w.run(t)
	const n = 500
	w.postAll(t, n, func(i int) string { return fmt.Sprint(i) }, nil)
	eventually(t, "all breakers are open", func() bool {
		for _, standing := range w.Standings() {
			if standing != Failing {
				return false
			}
		}
		return true
	})
	came := 0
	for _, s := range stores {
		s.mu.Lock()
		came += s.came
		s.mu.Unlock()
	}
	// At most what was on the way when each breaker opened, and retries of the budget.
	if bound := 3*firstLimit + budgetBurst + budgetShare*n + 100; came > int(bound) {
		t.Errorf("%d requests in an outage, want at most %v", came, bound)
	}
	for _, s := range stores {
		s.status.Store(202)
	}
	for id, s := range w.settles(t, n) {
		if !s.Acknowledged {
			t.Errorf("%s: %+v", id, s)
		}
	}
}

// TestKills kills and restarts clusters under load: every envelope is delivered at least once, with its bytes.
func TestKills(t *testing.T) {
	names := []string{"ap", "eu", "us"}
	stores, urls, addresses := map[string]*store{}, map[string]string{}, map[string]string{}
	servers := map[string]*http.Server{}
	var serving sync.WaitGroup
	start := func(name string) {
		l, err := net.Listen("tcp", addresses[name])
		if err != nil {
			t.Error(err)
			return
		}
		addresses[name] = l.Addr().String()
		server := &http.Server{Handler: stores[name]}
		servers[name] = server
		serving.Go(func() { _ = server.Serve(l) })
	}
	for _, name := range names {
		stores[name] = newStore(t, name)
		addresses[name] = sockettest.Free(t).String()
		start(name)
		urls[name] = "http://" + addresses[name]
	}
	defer serving.Wait()
	defer func() {
		for _, s := range servers {
			s.Close()
		}
	}()
	w := newWorld(t, urls, nil, nil)
	w.run(t)
	const n, part = 4000, 100
	sent := map[string]string{}
	for done := 0; done < n; done += part {
		maps.Copy(sent, w.postAll(t, part, func(i int) string {
			return fmt.Sprintf(`{"n":%d,"pad":%q}`, done+i, strings.Repeat("é", rand.IntN(300)))
		}, nil))
		name := names[done/500%len(names)]
		switch done % 500 { // one is away at a time, in turn, while requests are on the way to it
		case 100:
			servers[name].Close()
		case 300:
			start(name)
		}
	}
	settled := w.settles(t, n)
	for id, body := range sent {
		s := settled[id]
		if !s.Acknowledged || stores[s.Cluster].bodies[id] != body {
			t.Errorf("%s: %+v, of which the cluster has %.40q", id, s, stores[s.Cluster].bodies[id])
		}
	}
}

// TestDeadAfter has no cluster take an envelope until it is too old.
func TestDeadAfter(t *testing.T) {
	ap := newStore(t, "ap")
	ap.status.Store(500)
	w := newWorld(t, map[string]string{"ap": ap.serve(t).URL}, func(x *topology.Topology) {
		x.Services[service].Intake.DeadAfter = topology.Duration(time.Minute)
	}, nil)
	w.run(t)
	e := w.post(t, "old", func(e *spool.Envelope) { e.Received = time.Now().Add(-time.Minute + 300*time.Millisecond) })
	got := w.settles(t, 1)[e.ID]
	if got.Acknowledged || !strings.HasPrefix(got.Reason, "no cluster has taken it in 1m0s; the last failure: cluster ap answered 500") {
		t.Errorf("got %+v", got)
	}
	eventually(t, "it to be counted", func() bool { return w.Stats().Dead["expired"] == 1 })
	ap.status.Store(202)
	e = w.post(t, "put back", func(e *spool.Envelope) { e.Received, e.Replayed = time.Now().Add(-time.Hour), time.Now() })
	if got := w.settles(t, 2)[e.ID]; !got.Acknowledged {
		t.Errorf("a dead letter that was put back: got %+v", got)
	}
}

// TestOrder has operators and health decide about ap, the nearest cluster; without them the order is ap, then the others.
func TestOrder(t *testing.T) {
	now := time.Now()
	override := func(kind topology.OverrideKind, verdict topology.ForcedVerdict, expires time.Duration) *topology.Override {
		return &topology.Override{Kind: kind, Cluster: "ap", Verdict: verdict, Created: now, Expires: now.Add(expires)}
	}
	apDead := health.Verdicts{{Kind: health.Cluster, Name: "ap"}: {Status: health.Down}}
	w := newWorld(t, map[string]string{"ap": "http://127.0.0.1:1", "eu": "http://127.0.0.1:1", "us": "http://127.0.0.1:1"}, nil, nil)
	first := w.snap.Load()
	for _, test := range []struct {
		name      string
		verdicts  health.Verdicts
		overrides []*topology.Override
		want      int // ap's place in the order; -1 for none
		standing  string
	}{
		{"none", nil, nil, 0, Well},
		{"dead", apDead, nil, 2, Down},
		{"forced up", apDead, []*topology.Override{override(topology.Force, topology.ForceUp, time.Hour)}, 0, Well},
		{"forced down", nil, []*topology.Override{override(topology.Force, topology.ForceDown, time.Hour)}, 2, Down},
		{"over", nil, []*topology.Override{override(topology.Force, topology.ForceDown, 0)}, 0, Well},
		{"drained", nil, []*topology.Override{override(topology.Drain, "", time.Hour)}, -1, Draining},
		{"drained and forced up", nil, []*topology.Override{override(topology.Force, topology.ForceUp, time.Hour), override(topology.Drain, "", time.Hour)}, -1, Draining},
	} {
		t.Run(test.name, func(t *testing.T) {
			snap := &topology.Snapshot{Topology: first.Topology, Overrides: map[string]*topology.Override{}}
			for i, o := range test.overrides {
				snap.Overrides[fmt.Sprint(i)] = o
			}
			w.snap.Store(snap)
			w.verdicts.Store(&test.verdicts)
			if got := w.Standings()["ap"]; got != test.standing {
				t.Errorf("ap stands %s, want %s", got, test.standing)
			}
			order := w.services[service].order
			if got := slices.IndexFunc(order, func(c *cluster) bool { return c.name == "ap" }); got != test.want {
				t.Errorf("ap is number %d of %d, want %d", got, len(order), test.want)
			}
			if next := w.Next(service); (next == "ap") != (test.want == 0) {
				t.Errorf("next is %s", next)
			}
		})
	}
	if allocated := testing.AllocsPerRun(100, func() { w.Next(service) }); allocated > 0 {
		t.Errorf("Next allocates %v times", allocated)
	}
}

// TestMeasuredOrder has measured RTTs overrule the model, but only by so much that the order does not flap.
func TestMeasuredOrder(t *testing.T) {
	w := newWorld(t, map[string]string{"ap": "http://127.0.0.1:1", "eu": "http://127.0.0.1:1"}, nil, nil)
	w.Standings()
	for _, test := range []struct {
		ap, eu time.Duration
		want   string
	}{
		{0, 5 * time.Millisecond, "ap"}, // of ap nothing is known but the prediction
		{50 * time.Millisecond, 48 * time.Millisecond, "ap"},
		{50 * time.Millisecond, 30 * time.Millisecond, "eu"},
		{28 * time.Millisecond, 30 * time.Millisecond, "eu"},
		{20 * time.Millisecond, 30 * time.Millisecond, "ap"},
	} {
		w.clusters["ap"].endpoints[0].rtt, w.clusters["eu"].endpoints[0].rtt = test.ap, test.eu
		w.Standings()
		if got := w.Next(service); got != test.want {
			t.Errorf("ap %s, eu %s: got %s, want %s", test.ap, test.eu, got, test.want)
		}
	}
}
