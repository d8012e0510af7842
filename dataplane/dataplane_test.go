package dataplane

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host     = topology.ExampleService
	aPayload = `{"hash":"0xab","sender":"0x01","amount": 1}`
)

// grants is a quota store in memory, which can fail.
type grants struct {
	*quota.Memory
	fail atomic.Bool
}

func (g *grants) Exchange(ctx context.Context, r quota.Request) (quota.Answer, error) {
	if g.fail.Load() {
		return quota.Answer{}, io.ErrUnexpectedEOF
	}
	return g.Memory.Exchange(ctx, r)
}

// runQuota returns a ledger that runs until the test ends.
func runQuota(t testing.TB, store quota.Store) *quota.Ledger {
	ledger := quota.New(quota.Config{PoP: "sin1", Store: store})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = ledger.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return ledger
}

// regional is a cluster that a test commands.
type regional struct {
	*httptest.Server
	status   atomic.Int64 // to answer; 0 hangs until the test ends
	mu       sync.Mutex
	received []*http.Request
	bodies   []string
}

func newRegional(t testing.TB) *regional {
	c := &regional{}
	c.status.Store(http.StatusAccepted)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.received, c.bodies = append(c.received, r), append(c.bodies, string(body))
		c.mu.Unlock()
		if c.status.Load() == 0 {
			<-t.Context().Done()
		}
		w.WriteHeader(int(c.status.Load()))
	}))
	t.Cleanup(c.Close)
	return c
}

// world is a PoP in Singapore with three clusters.
type world struct {
	*PoP
	dir      string
	snap     *topology.Snapshot // the first
	newer    atomic.Pointer[topology.Snapshot]
	hold     atomic.Pointer[func()] // called for every request
	verdicts atomic.Pointer[health.Verdicts]
	clusters map[string]*regional
	grants   *grants
	key      string
	probe    string
	acks     chan string // clusters that acknowledged
}

func newWorld(t testing.TB, change func(*topology.Topology)) *world {
	t.Helper()
	return newWorldOn(t, spool.Options{}, change)
}

// newWorldOn is newWorld with a spool that has options.
func newWorldOn(t testing.TB, options spool.Options, change func(*topology.Topology)) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), clusters: map[string]*regional{}, grants: &grants{Memory: quota.NewMemory(1)}, acks: make(chan string, 1000)}
	pops, urls := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 8443)
	}
	for _, name := range topology.ExampleClusters {
		w.clusters[name] = newRegional(t)
		urls[name] = w.clusters[name].URL
	}
	w.snap = &topology.Snapshot{Topology: topology.Example(netip.MustParseAddr("203.0.113.53"), pops, urls)}
	if change != nil {
		change(w.snap.Topology)
	}
	keys := map[string]*topology.Key{}
	for _, of := range []struct {
		text  *string
		probe bool
	}{{&w.key, false}, {&w.probe, true}} {
		id, text, key, err := topology.NewKey(bytes.NewReader(bytes.Repeat([]byte{byte(len(keys))}, 25)), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key.Probe, key.QuotaPerMinute = of.probe, 100
		*of.text, keys[id] = text, key
	}
	w.snap.Keys = topology.NewKeySet(keys)
	queue, err := spool.Open(filepath.Join(w.dir, "spool"), options)
	if err != nil {
		t.Fatal(err)
	}
	w.PoP = New(Config{
		Name: "sin1", Snapshot: w.snapshot, Verdicts: func() health.Verdicts {
			if v := w.verdicts.Load(); v != nil {
				return *v
			}
			return nil
		},
		Model: rtt.Default(), Spool: queue, Quota: runQuota(t, w.grants), Secret: func(string) []byte { return []byte("secret") },
		ClusterToken: func(cluster string) string { return "token-" + cluster }, Log: slog.New(slog.DiscardHandler),
		Acknowledged: func(_ *spool.Envelope, cluster string) { w.acks <- cluster },
	})
	return w
}

func (w *world) snapshot() *topology.Snapshot {
	if hold := w.hold.Load(); hold != nil {
		(*hold)()
	}
	if newer := w.newer.Load(); newer != nil {
		return newer
	}
	return w.snap
}

// run serves the PoP on loopback until the test ends, and returns its endpoint and roots.
func (w *world) run(t *testing.T) (intakeclient.Endpoint, intakeclient.Config) {
	t.Helper()
	tcp, udp := sockettest.Both(t)
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, Listeners{UDP: udp, TCP: tcp, TLS: &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Certificate(host, time.Now()) },
		}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return intakeclient.Endpoint{Target: "sin1." + host, Addr: at}, intakeclient.Config{Roots: ca.Pool()}
}

func request(key, body string) *http.Request {
	r := httptest.NewRequest("POST", "https://"+host+Path, strings.NewReader(body))
	r.Header.Set("X-API-Key", key)
	r.Header.Set("Content-Type", "application/json")
	return r
}

func TestChecks(t *testing.T) {
	w := newWorld(t, func(x *topology.Topology) { x.Services[host].Intake.MaxBodyBytes = 100 })
	defer w.config.Spool.Close()
	long := `{"hash":"","sender":"","amount":"` + strings.Repeat("x", 100) + `"}`
	for _, test := range []struct {
		name   string
		change func(*http.Request) *http.Request
		want   int
		detail string
	}{
		{name: "accepted", change: func(r *http.Request) *http.Request { return r }, want: 202},
		{name: "charset", change: header("Content-Type", "application/json; charset=UTF-8"), want: 202},
		{name: "structured suffix", change: header("Content-Type", "application/vnd.chain+json"), want: 202},
		{name: "other path", change: func(r *http.Request) *http.Request { r.URL.Path = "/"; r.Method = "GET"; return r }, want: 404, detail: Path},
		{name: "other method", change: func(r *http.Request) *http.Request { r.Method = "PUT"; return r }, want: 405},
		{name: "other host", change: func(r *http.Request) *http.Request { r.Host = "example.com"; return r }, want: 421, detail: "example.com"},
		{name: "another PoP's host", change: func(r *http.Request) *http.Request { r.Host = "fra1." + host; return r }, want: 421},
		{name: "its own host", change: func(r *http.Request) *http.Request { r.Host = "sin1." + host; return r }, want: 202},
		{name: "address", change: func(r *http.Request) *http.Request { r.Host = "203.0.113.1:8443"; return r }, want: 202},
		{name: "IPv6 address", change: func(r *http.Request) *http.Request { r.Host = "[2001:db8::1]"; return r }, want: 202},
		{name: "host with a port and capitals", change: func(r *http.Request) *http.Request { r.Host = "INTAKE.isochrone.test:8443"; return r }, want: 202},
		{name: "too long by its length, though without a key", change: func(*http.Request) *http.Request { return request("", long) }, want: 413, detail: "100"},
		{name: "no key", change: header("X-API-Key", ""), want: 401, detail: "X-API-Key"},
		{name: "no such key", change: header("X-API-Key", "iso_x_y"), want: 401},
		{name: "key of the right id", change: func(r *http.Request) *http.Request { r.Header.Set("X-API-Key", w.key+"a"); return r }, want: 401},
		{name: "probe's key for no probe", change: func(r *http.Request) *http.Request { r.Header.Set("X-API-Key", w.probe); return r }, want: 401},
		{name: "probe without its key", change: header("X-Isochrone-Probe", "1"), want: 401},
		{name: "wrong type", change: header("Content-Type", "text/plain"), want: 415},
		{name: "no type", change: header("Content-Type", ""), want: 415},
		{name: "encoded", change: header("Content-Encoding", "gzip"), want: 415},
		{name: "too long without a length", change: func(*http.Request) *http.Request {
			r := request(w.key, long)
			r.ContentLength = -1
			return r
		}, want: 413},
		{name: "cut short", change: func(r *http.Request) *http.Request { r.ContentLength = 90; return r }, want: 400, detail: "whole"},
		{name: "no JSON", change: body(`{"hash":`), want: 400, detail: "octet 8"},
		{name: "two values", change: body(aPayload + aPayload), want: 400},
		{name: "an array", change: body(`[1]`), want: 400, detail: "not an object"},
		{name: "null", change: body(`null`), want: 400, detail: "not an object"},
		{name: "empty", change: body(``), want: 400},
		{name: "not UTF-8", change: body("{\"hash\":\"\xff\",\"sender\":1,\"amount\":1}"), want: 400, detail: "UTF-8"},
		{name: "fields missing", change: body(`{"hash":"a","amount":null}`), want: 400, detail: "lacks sender, amount"},
		{name: "Idempotency-Key too long", change: header("Idempotency-Key", strings.Repeat("k", 256)), want: 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			exchange.Serve(w.PoP).ServeHTTP(recorder, test.change(request(w.key, aPayload)))
			if recorder.Code != test.want {
				t.Fatalf("got %d, want %d: %s", recorder.Code, test.want, recorder.Body)
			}
			if test.want == 202 {
				var accepted Accepted
				sum := sha256.Sum256([]byte(aPayload))
				if err := json.Unmarshal(recorder.Body.Bytes(), &accepted); err != nil || accepted.Status != "accepted" ||
					!strings.HasPrefix(accepted.ID, "sin1.") || accepted.SHA256 != hex.EncodeToString(sum[:]) {
					t.Errorf("got %s", recorder.Body)
				}
				return
			}
			var told problem.Document
			if err := json.Unmarshal(recorder.Body.Bytes(), &told); err != nil || told.Status != test.want || !strings.Contains(told.Detail, test.detail) {
				t.Errorf("got %s, want a problem with %q", recorder.Body, test.detail)
			}
		})
	}
	if got := w.Stats(); got["accepted"] != 7 || got["refused_401"] != 5 || got["pending"] != 7 {
		t.Errorf("got %v", got)
	}
}

func header(name, value string) func(*http.Request) *http.Request {
	return func(r *http.Request) *http.Request {
		r.Header.Set(name, value)
		return r
	}
}

func body(text string) func(*http.Request) *http.Request {
	return func(r *http.Request) *http.Request {
		changed := request(r.Header.Get("X-API-Key"), text)
		return changed
	}
}

func (w *world) post(r *http.Request) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	exchange.Serve(w.PoP).ServeHTTP(recorder, r)
	return recorder
}

func TestQuota(t *testing.T) {
	w := newWorld(t, nil)
	defer w.config.Spool.Close()
	codes := map[int]int{}
	for range 250 { // more than two windows' quota, in case a minute ends meanwhile
		answer := w.post(request(w.key, aPayload))
		codes[answer.Code]++
		if answer.Code == 429 && answer.Header().Get("Retry-After") == "" {
			t.Fatal("429 without Retry-After")
		}
	}
	if codes[202] != 100 && codes[202] != 200 || codes[202]+codes[429] != 250 {
		t.Errorf("got %v, want 100 accepted in a window", codes)
	}
	probe := request(w.probe, aPayload)
	probe.Header.Set("X-Isochrone-Probe", "1")
	if answer := w.post(probe); answer.Code != 202 {
		t.Errorf("a probe got %d, want 202: it has no quota", answer.Code)
	}
	if got := w.Stats(); got["probes"] != 1 || got["pending"] != uint64(codes[202]) {
		t.Errorf("got %v, want a probe that is not queued", got)
	}
	w.grants.fail.Store(true)
	other := *w.snap.Keys.Lookup("aeaqcaib") // the quota of a key that has no grant yet cannot be asked for
	other.Probe = false
	keys := maps.Collect(w.snap.Keys.All())
	keys["aeaqcaib"] = &other
	w.snap.Keys = topology.NewKeySet(keys)
	if answer := w.post(request(w.probe, aPayload)); answer.Code != 503 || answer.Header().Get("Retry-After") == "" {
		t.Errorf("got %d while the quota cannot be checked, want 503", answer.Code)
	}
}

func TestIdempotencyKeyMakesTheID(t *testing.T) {
	id := func(pop, secret, key, idempotency string) string {
		_, core, _ := strings.Cut(requestID(pop, []byte(secret), key, idempotency), ".")
		return core
	}
	first := id("sin1", "s", "k", "once")
	if len(first) != 26 || id("fra1", "s", "k", "once") != first {
		t.Errorf("got %q, which another PoP does not make", first)
	}
	for _, other := range []string{id("sin1", "s", "k", "twice"), id("sin1", "s", "other", "once"), id("sin1", "t", "k", "once"), id("sin1", "s", "k", "")} {
		if other == first {
			t.Errorf("%q for another request", other)
		}
	}
	if random := id("sin1", "s", "k", ""); random == id("sin1", "s", "k", "") {
		t.Error("the same id for two requests without a key")
	}
}

// TestForward goes by the real sockets: HTTP/3 and HTTP/2 in, exact bytes and headers out, to the nearest cluster.
func TestForward(t *testing.T) {
	w := newWorld(t, nil)
	endpoint, config := w.run(t)
	odd := "{ \"amount\":1e3,\n\"hash\":\"\\u00e9\", \"sender\":\"\u00e9\", \"Hash\":\"other\" }\n"
	for _, tcp := range []bool{false, true} {
		config.TCP = tcp
		client := intakeclient.New(config)
		defer client.Close()
		answer, err := client.Post(t.Context(), []intakeclient.Endpoint{endpoint}, &intakeclient.Request{
			Service: host, Path: Path, Body: []byte(odd),
			Header: http.Header{"X-Api-Key": {w.key}, "Content-Type": {"application/json;charset=utf-8"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status != 202 || answer.Protocol != map[bool]string{false: "h3", true: "h2"}[tcp] ||
			answer.Header.Get("X-Isochrone-Pop") != "sin1" || answer.Header.Get("X-Isochrone-Cluster") != "ap" {
			t.Errorf("got %+v", answer)
		}
		if service := fmt.Sprintf(`h3=":%d"; ma=86400`, endpoint.Addr.Port()); tcp && answer.Header.Get("Alt-Svc") != service {
			t.Errorf("got Alt-Svc %q, want %q", answer.Header.Get("Alt-Svc"), service)
		}
		if cluster := <-w.acks; cluster != "ap" {
			t.Errorf("went to %s, want ap", cluster)
		}
		var accepted Accepted
		if err := json.Unmarshal(answer.Body, &accepted); err != nil {
			t.Fatal(err)
		}
		ap := w.clusters["ap"]
		ap.mu.Lock()
		received, body := ap.received[len(ap.received)-1], ap.bodies[len(ap.bodies)-1]
		ap.mu.Unlock()
		for name, want := range map[string]string{
			"X-Request-Id": accepted.ID, "X-Request-Hash": accepted.SHA256, "X-Edge-Validated": "1",
			"Authorization": "Bearer token-ap", "Content-Type": "application/json;charset=utf-8",
		} {
			if got := received.Header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if body != odd {
			t.Errorf("forwarded %q, want the very bytes", body)
		}
	}
}

// TestFailover has clusters refuse, die and come back.
func TestFailover(t *testing.T) {
	w := newWorld(t, nil)
	w.run(t)
	accept := func() {
		t.Helper()
		if answer := w.post(request(w.key, aPayload)); answer.Code != 202 {
			t.Fatalf("got %d: %s", answer.Code, answer.Body)
		}
	}
	w.clusters["ap"].status.Store(503)
	accept()
	if got := <-w.acks; got != "us" && got != "eu" {
		t.Errorf("went to %s while ap answers 503", got)
	}
	for _, c := range w.clusters {
		c.status.Store(500)
	}
	accept()
	w.clusters["eu"].status.Store(409)
	if got := <-w.acks; got != "eu" {
		t.Errorf("went to %s, want eu, which has it already", got)
	}
	w.clusters["ap"].status.Store(202)
	w.clusters["ap"].Close()
	w.verdicts.Store(&health.Verdicts{{Kind: health.Cluster, Name: "ap"}: {Status: health.Down}})
	accept()
	if got := <-w.acks; got != "eu" {
		t.Errorf("went to %s while ap is dead, and us answers 500", got)
	}
	eu := *w.snap.Topology.Clusters["eu"]
	eu.State = topology.Draining
	w.clusters["us"].status.Store(200)
	w.newer.Store(&topology.Snapshot{Keys: w.snap.Keys, Topology: w.snap.Topology.With(map[topology.Ref]topology.Object{
		{Kind: topology.Clusters, Name: "eu"}: &eu,
	}, nil)})
	accept()
	if got := <-w.acks; got != "us" {
		t.Errorf("went to %s while eu is draining, want us", got)
	}
}

// TestDeadLetter has a cluster refuse for good: the envelope is kept in a file.
func TestDeadLetter(t *testing.T) {
	w := newWorld(t, func(x *topology.Topology) { x.Services[host].Intake.Ack = topology.AckCluster })
	w.run(t)
	w.clusters["ap"].status.Store(422)
	answer := w.post(request(w.key, aPayload))
	if answer.Code != 422 || !strings.Contains(answer.Body.String(), "cluster ap answered 422") {
		t.Errorf("got %d: %s", answer.Code, answer.Body)
	}
	letters, err := os.ReadDir(filepath.Join(w.dir, "spool", "dead"))
	if err != nil || len(letters) != 1 {
		t.Errorf("got dead letters %v, %v", letters, err)
	}
	if got := w.Stats(); got["pending"] != 0 || got["dead_letters"] != 1 {
		t.Errorf("got %v", got)
	}
}

// TestAckCluster has the 202 wait for the cluster, and a client that gives up.
func TestAckCluster(t *testing.T) {
	w := newWorld(t, func(x *topology.Topology) { x.Services[host].Intake.Ack = topology.AckCluster })
	w.run(t)
	if answer := w.post(request(w.key, aPayload)); answer.Code != 202 {
		t.Errorf("got %d: %s", answer.Code, answer.Body)
	}
	if len(w.acks) != 1 {
		t.Error("202 before the cluster's acknowledgement")
	}
	for _, c := range w.clusters {
		c.status.Store(500)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if answer := w.post(request(w.key, aPayload).WithContext(impatient)); answer.Code != 503 || !strings.Contains(answer.Body.String(), "stays queued") {
		t.Errorf("got %d: %s", answer.Code, answer.Body)
	}
}

// TestSpoolRefuses closes the spool under the PoP.
func TestSpoolRefuses(t *testing.T) {
	w := newWorld(t, nil)
	w.config.Spool.Close()
	if answer := w.post(request(w.key, aPayload)); answer.Code != 503 || answer.Header().Get("Retry-After") == "" {
		t.Errorf("got %d: %s", answer.Code, answer.Body)
	}
	probe := request(w.probe, aPayload)
	probe.Header.Set("X-Isochrone-Probe", "1")
	if answer := w.post(probe); answer.Code != 503 {
		t.Errorf("a probe got %d, want 503 so that health sees it", answer.Code)
	}
}

// TestShutdownFinishes ends a PoP while a request waits for its body: the request is answered.
func TestShutdownFinishes(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Certificate(host, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, Listeners{UDP: udp, TLS: &tls.Config{Certificates: []tls.Certificate{*certificate}}})
	}()
	client := intakeclient.New(intakeclient.Config{Roots: ca.Pool()})
	defer client.Close()
	endpoint := intakeclient.Endpoint{Target: host, Addr: udp.LocalAddr().(*net.UDPAddr).AddrPort()}
	post := func() (*intakeclient.Answer, error) {
		return client.Post(context.Background(), []intakeclient.Endpoint{endpoint}, &intakeclient.Request{
			Service: host, Path: Path, Body: []byte(aPayload), Header: http.Header{"X-Api-Key": {w.key}, "Content-Type": {"application/json"}},
		})
	}
	if answer, err := post(); err != nil || answer.Status != 202 {
		t.Fatal(answer, err)
	}
	<-w.acks // nothing but the next request reads a snapshot
	slow := make(chan struct{})
	var once sync.Once
	hold := func() { once.Do(func() { close(slow); <-ctx.Done() }) }
	w.hold.Store(&hold)
	answered := make(chan error, 1)
	go func() {
		answer, err := post()
		if err == nil && answer.Status != 202 {
			err = fmt.Errorf("status %d", answer.Status)
		}
		answered <- err
	}()
	<-slow
	cancel()
	if err := <-answered; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func BenchmarkIntake(b *testing.B) {
	queue, err := spool.Open(b.TempDir(), spool.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer queue.Close()
	_, text, key, err := topology.NewKey(bytes.NewReader(make([]byte, 25)), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	key.QuotaPerMinute = 1 << 50
	id, _ := topology.KeyID(text)
	snap := &topology.Snapshot{Topology: topology.Example(netip.MustParseAddr("127.0.0.1"), nil, nil), Keys: topology.NewKeySet(map[string]*topology.Key{id: key})}
	p := New(Config{
		Name: "sin1", Snapshot: func() *topology.Snapshot { return snap }, Verdicts: func() health.Verdicts { return nil },
		Model: rtt.Default(), Spool: queue, Quota: runQuota(b, quota.NewMemory(1)), Log: slog.New(slog.DiscardHandler),
	})
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := httptest.NewRecorder()
			exchange.Serve(p).ServeHTTP(w, request(text, aPayload))
			if w.Code != 202 {
				b.Error(w.Code, w.Body)
				return
			}
		}
	})
}
