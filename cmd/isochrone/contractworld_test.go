package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// The contract of the intake, by a client and a cluster that know nothing of our code: what docs/intake.md says, over HTTP/3, HTTP/2 and
// HTTP/1.1, against the program as it is installed.

const (
	contractHost    = "intake.isochrone.test"
	contractPath    = "/api/v1/ingest"
	contractPayload = `{"hash":"0xab","sender":"0x01","amount":"1"}`
	contractMax     = 65536 // max_body_bytes of the example world
)

// contract is a world with one PoP of interest, sin1, and a cluster of the test's own.
type contract struct {
	*running
	at     string // address of sin1
	key    string // with a large quota
	roots  *x509.CertPool
	region *region
	wires  []wire

	pop *process // sin1, if it is a process of its own
	*monitored
}

// wire is a client of one version of HTTP.
type wire struct {
	name string // as an answer has it
	http.RoundTripper
}

// region is the test's cluster: it keeps what it is sent.
type region struct {
	token string
	mu    sync.Mutex
	took  map[string]delivered // by request id
	again int                  // envelopes that had come before
}

// delivered is an envelope as it reached the cluster.
type delivered struct {
	header http.Header
	body   string
}

// ServeHTTP implements http.Handler.
func (c *region) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method+r.URL.Path != "POST/api/v1/envelopes" {
		return // a probe
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Authorization") != "Bearer "+c.token {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := r.Header.Get("X-Request-Id")
	if _, known := c.took[id]; known {
		c.again++
	}
	c.took[id] = delivered{r.Header.Clone(), string(body)}
	w.WriteHeader(http.StatusAccepted)
}

// await returns the envelope with a request id.
func (c *region) await(t *testing.T, id string) (d delivered) {
	t.Helper()
	eventually(t, "envelope "+id, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		known := false
		if d, known = c.took[id]; !known {
			return fmt.Errorf("%d others have come", len(c.took))
		}
		return nil
	})
	return d
}

// startContract starts a world; with alone, sin1 is a process of its own, which is given flags.
func startContract(t *testing.T, alone bool, flags ...string) *contract {
	t.Helper()
	c := &contract{region: &region{token: "token-of-a-test", took: map[string]delivered{}}}
	dir := t.TempDir()
	token := filepath.Join(dir, "clusters", "ap", "token")
	if err := os.MkdirAll(filepath.Dir(token), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte(c.region.token), 0o600); err != nil {
		t.Fatal(err)
	}
	without := "ap,eu,us"
	if alone {
		without += ",sin1"
	}
	c.running = startUp(t, dir, "--without", without)
	server := httptest.NewServer(c.region)
	t.Cleanup(server.Close)
	c.edit(t, c.Clusters["ap"], server.URL)
	var err error
	c.at, c.key = c.PoPs["sin1"], strings.TrimSpace(c.run(t, "key", "create", "--quota", "100000000"))
	if c.roots, err = readRoots(c.CA); err != nil {
		t.Fatal(err)
	}
	if alone {
		c.pop = start(t, "PoP sin1 serves", append([]string{"pop", "sin1", "--dir", dir, "--http", "127.0.0.1:0"}, flags...)...)
		c.monitored = &monitored{regexp.MustCompile(`\((http://.*)\)`).FindStringSubmatch(c.pop.output.String())[1]}
	}
	var end func()
	c.wires, end = c.clients()
	t.Cleanup(end)
	eventually(t, "the key to be known", func() error {
		got, err := c.try(t.Context(), c.wires[0], call{})
		if err == nil && got.status != 202 {
			err = fmt.Errorf("got %d: %s", got.status, got.body)
		}
		return err
	})
	return c
}

func (c *contract) tls(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: c.roots, ServerName: contractHost, NextProtos: protocols, MinVersion: tls.VersionTLS13}
}

// edit replaces a text in the topology.
func (c *contract) edit(t *testing.T, from, to string) {
	t.Helper()
	document := filepath.Join(t.TempDir(), "topology.yaml")
	before := c.run(t, "topology", "get")
	after := strings.Replace(before, from, to, 1)
	if after == before {
		t.Fatalf("the topology does not have %q:\n%s", from, before)
	}
	if err := os.WriteFile(document, []byte(after), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, "topology", "apply", "--yes", "-f", document)
}

// clients makes a client of each version of HTTP, and what closes them.
func (c *contract) clients() (wires []wire, end func()) {
	h3 := &http3.Transport{
		TLSClientConfig: c.tls(),
		Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, c.at, config, settings)
		},
	}
	tcp := func(h2 bool) *http.Transport {
		return &http.Transport{
			TLSClientConfig: c.tls(), ForceAttemptHTTP2: h2, DisableCompression: true, ExpectContinueTimeout: 30 * time.Second,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, c.at)
			},
		}
	}
	h2, h1 := tcp(true), tcp(false)
	return []wire{{"HTTP/3.0", h3}, {"HTTP/2.0", h2}, {"HTTP/1.1", h1}}, func() {
		h3.Close()
		h2.CloseIdleConnections()
		h1.CloseIdleConnections()
	}
}

// call is a request that differs from a good one in what is given.
type call struct {
	method, path, host string
	header             map[string]string // "" leaves a header out
	body               string
	stream             bool // without a Content-Length
	announced          int64
}

// with returns a copy with another header.
func (r call) with(name, value string) call {
	header := map[string]string{name: value}
	for n, v := range r.header {
		if n != name {
			header[n] = v
		}
	}
	r.header = header
	return r
}

// answered is an answer.
type answered struct {
	status   int
	protocol string
	header   http.Header
	body     string
}

// send sends a request over one version of HTTP.
func (c *contract) send(t *testing.T, over wire, r call) answered {
	t.Helper()
	got, err := c.try(t.Context(), over, r)
	if err != nil {
		t.Fatalf("%s: %+.300v: %v", over.name, r, err)
	}
	return got
}

// tooBusy are the details of those answers 503 by which a PoP, or etcd, on a machine that is slow says that it has not looked at a request.
var tooBusy = regexp.MustCompile("this PoP has more requests than it can do|the quota cannot be checked now")

func (c *contract) try(ctx context.Context, over wire, r call) (answered, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		got, err := c.once(ctx, over, r)
		if err != nil || got.status != http.StatusServiceUnavailable || !tooBusy.MatchString(got.body) {
			return got, err
		}
		rest(ctx, 100*time.Millisecond)
	}
}

func (c *contract) once(ctx context.Context, over wire, r call) (answered, error) {
	method := cmp.Or(r.method, http.MethodPost)
	var body io.Reader
	if method != http.MethodHead && method != http.MethodGet {
		body = strings.NewReader(cmp.Or(r.body, contractPayload))
		if r.stream {
			body = struct{ io.Reader }{body}
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "https://"+contractHost+cmp.Or(r.path, contractPath), body)
	if err != nil {
		return answered{}, err
	}
	request.Host = cmp.Or(r.host, contractHost)
	if r.announced > 0 {
		request.ContentLength, request.Body = r.announced, io.NopCloser(io.MultiReader(strings.NewReader(r.body), zeros(r.announced-int64(len(r.body)))))
	}
	request.Header.Set("X-API-Key", c.key)
	request.Header.Set("Content-Type", "application/json")
	for name, value := range r.header {
		if request.Header.Del(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := over.RoundTrip(request)
	if err != nil {
		return answered{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answered{response.StatusCode, response.Proto, response.Header, string(text)}, err
}

// zeros are n octets that are no JSON.
func zeros(n int64) io.Reader { return io.LimitReader(endless{}, max(0, n)) }

type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// problem holds a refusal to RFC 9457 and to what all answers have.
func (a answered) problem(t *testing.T, what string, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: got %d, want %d: %.300s", what, a.status, status, a.body)
		return
	}
	var document struct {
		Type, Title, Detail string
		Status              int
	}
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("%s: a %d has the type %s", what, status, kind)
	}
	if err := json.Unmarshal([]byte(a.body), &document); err != nil || document.Status != status || document.Title != http.StatusText(status) ||
		document.Type != "about:blank" || document.Detail == "" {
		t.Errorf("%s: a %d has the body %s", what, status, a.body)
	}
	if a.header.Get("X-Isochrone-Pop") != "sin1" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: a %d has the header %v", what, status, a.header)
	}
	if retry := a.header.Get("Retry-After"); (retry != "") != (status == 429 || status == 503) {
		t.Errorf("%s: a %d has Retry-After %q", what, status, retry)
	}
}

var (
	requestID = regexp.MustCompile(`^sin1\.[a-z2-7]{20,}$`)
)

// accepted holds a 202, and what reaches the cluster, to the contract. It returns the request id.
func (c *contract) accepted(t *testing.T, what string, a answered, sent, contentType string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(sent))
	hash := hex.EncodeToString(sum[:])
	var told struct{ Status, ID, SHA256 string }
	if err := json.Unmarshal([]byte(a.body), &told); err != nil || a.status != 202 || told.Status != "accepted" || !requestID.MatchString(told.ID) ||
		told.SHA256 != hash || a.header.Get("Content-Type") != "application/json" || a.header.Get("X-Isochrone-Pop") != "sin1" {
		t.Errorf("%s: got %d, %v, %s, want a 202 with the hash %s", what, a.status, a.header, a.body, hash)
		return ""
	}
	got := c.region.await(t, told.ID)
	if got.body != sent {
		t.Errorf("%s: sent %.300q, the cluster has %.300q", what, sent, got.body)
	}
	for name, want := range map[string]string{"X-Request-Hash": hash, "X-Edge-Validated": "1", "Content-Type": contentType} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s: the cluster has %s %q, want %q", what, name, value, want)
		}
	}
	for _, name := range []string{"X-Api-Key", "Cookie"} {
		if got.header.Values(name) != nil {
			t.Errorf("%s: the cluster has the client's %s", what, name)
		}
	}
	return told.ID
}
