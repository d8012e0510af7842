package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is the CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	a.cert, a.key = a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// client returns the configuration of who has a certificate of a name, or none.
func (a *authority) client(t *testing.T, name string) *tls.Config {
	t.Helper()
	config := &tls.Config{RootCAs: a.pool}
	if name != "" {
		config.Certificates = []tls.Certificate{*a.until(t, name, time.Time{})}
	}
	return config
}

// until returns a client's certificate that ends at a time; zero stands for an hour from now.
func (a *authority) until(t *testing.T, name string, end time.Time) *tls.Certificate {
	t.Helper()
	cert, key := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: end,
	})
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// source is a store that a test writes, and its feed.
type source struct {
	mu       sync.Mutex
	revision int64
	values   map[string]string
	news     chan struct{}
	fails    error
	feeds    int
}

func newSource() *source {
	return &source{revision: 1, values: map[string]string{"topology/a": "1", "keys/k": "k"}, news: make(chan struct{})}
}

// edit changes values; an empty one is a deletion.
func (s *source) edit(fails error, keysAndValues ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	s.fails = fails
	for i := 0; i < len(keysAndValues); i += 2 {
		if s.values[keysAndValues[i]] = keysAndValues[i+1]; keysAndValues[i+1] == "" {
			delete(s.values, keysAndValues[i])
		}
	}
	close(s.news)
	s.news = make(chan struct{})
}

func (s *source) read() (u store.Update, news chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u = store.Update{Revision: s.revision, Whole: true, Put: map[string][]byte{}}
	for key, value := range s.values {
		u.Put[key] = []byte(value)
	}
	return u, s.news, s.fails
}

func (s *source) feed(ctx context.Context, _ store.Sum, take func(store.Update) error) error {
	s.mu.Lock()
	s.feeds++
	s.mu.Unlock()
	for {
		u, news, err := s.read()
		if err == nil {
			err = take(u)
		}
		if err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// of returns what a kind of node should have.
func (s *source) of(k kind) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.values)
	maps.DeleteFunc(all, func(key, _ string) bool { return !store.SectionsOf(string(k)).Have(key) })
	return all
}

// served is a hub behind a server.
type served struct {
	*Hub
	url  string
	stop func()
}

// serve runs a hub at an address, such as 127.0.0.1:0, until stop or the test's end.
func (a *authority) serve(t *testing.T, at string, c Config) *served {
	t.Helper()
	cert, key := a.issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	var l net.Listener
	var err error
	for deadline := time.Now().Add(5 * time.Second); ; { // a port may be in use for a moment more
		if l, err = net.Listen("tcp", at); err == nil || time.Now().After(deadline) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 20 * time.Millisecond
	}
	hub := NewHub(c)
	server := &http.Server{
		Handler: hub, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
			ClientCAs:    a.pool, ClientAuth: tls.VerifyClientCertIfGiven,
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hub.Run(ctx) })
	running.Go(func() { _ = server.ServeTLS(l, "", "") })
	s := &served{hub, "https://" + l.Addr().String(), sync.OnceFunc(func() {
		cancel()
		server.Close()
		running.Wait()
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-time.After(time.Millisecond) {
			if hub.mu.Lock(); hub.streams == 0 {
				hub.mu.Unlock()
				return
			}
			hub.mu.Unlock()
		}
		t.Error("streams outlive the hub")
	})}
	t.Cleanup(s.stop)
	return s
}

// begins waits until the hub has read what is stored.
func (s *served) begins(t *testing.T) {
	t.Helper()
	until(t, "the hub has begun", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.values == nil {
			return errors.New("it has not")
		}
		return nil
	})
}

// follower is a node that follows relays.
type follower struct {
	t      *testing.T
	kind   kind
	client *Client
	end    func()

	mu     sync.Mutex
	values map[string]string
	puts   int // how many it was told
	wholes int
	failed []string
}

func (a *authority) follow(t *testing.T, name string, urls ...string) *follower {
	t.Helper()
	before, _, _ := strings.Cut(name, ":")
	return a.followAs(t, kind(before), NewClient(urls, a.client(t, name)))
}

func (a *authority) followAs(t *testing.T, k kind, client *Client) *follower {
	t.Helper()
	f := &follower{t: t, kind: k, client: client, values: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	tail := store.Tail{
		Feed: func(ctx context.Context, has store.Sum, take func(store.Update) error) error {
			return f.client.Feed(ctx, has, func(u store.Update) error {
				f.mu.Lock()
				if f.puts += len(u.Put); u.Whole {
					f.wholes++
				}
				f.mu.Unlock()
				return take(u)
			})
		},
		Take: func(u store.Update) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for key, value := range u.Put {
				f.values[key] = string(value)
			}
			for _, key := range u.Delete {
				delete(f.values, key)
			}
		},
		Contact: func(err error) {
			if err != nil {
				f.mu.Lock()
				f.failed = append(f.failed, err.Error())
				f.mu.Unlock()
			}
		},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tail.Run(ctx)
	}()
	f.end = sync.OnceFunc(func() { cancel(); <-done; f.client.Close() })
	t.Cleanup(f.end)
	return f
}

// until polls.
func until(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(2 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// has waits until a follower has what is stored.
func (f *follower) has(s *source) {
	f.t.Helper()
	until(f.t, "what "+string(f.kind)+" has and should", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if want := s.of(f.kind); !maps.Equal(f.values, want) {
			return fmt.Errorf("%d values, want %d: it failed with %q", len(f.values), len(want), f.failed)
		}
		return nil
	})
}

func (f *follower) counts() (puts, wholes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.puts, f.wholes
}

// saw waits for a failure.
func (f *follower) saw(text string) {
	f.t.Helper()
	until(f.t, "failure "+text, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if all := strings.Join(f.failed, "\n"); !strings.Contains(all, text) {
			return fmt.Errorf("it failed with %s", all)
		}
		return nil
	})
}

// TestRelay follows edits, by kind of node, through restarts of the hub, and resumes with what has changed alone.
func TestRelay(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, sockettest.Free(t).String(), Config{Feed: s.feed})
	pop, dns := a.follow(t, "pop:sin1", hub.url), a.follow(t, "dns:ns1", hub.url)
	pop.has(s)
	dns.has(s)
	s.edit(nil, "topology/a", "2", "topology/z", "stays", "overrides/o", "x", "dnssec/z", "y")
	pop.has(s)
	dns.has(s)
	s.edit(nil, "topology/a", "", "keys/k", "")
	pop.has(s)
	dns.has(s)

	at := strings.TrimPrefix(hub.url, "https://")
	hub.stop()
	pop.saw("connection refused")
	hub = a.serve(t, at, Config{Feed: s.feed}) // which has another ring, and the same contents
	hub.begins(t)
	puts, wholes := pop.counts()
	s.edit(nil, "topology/b", "3")
	pop.has(s)
	dns.has(s)
	if nowPuts, nowWholes := pop.counts(); nowPuts != puts+1 || nowWholes != wholes {
		t.Errorf("after a restart of the hub the node was told %d puts and %d wholes, want one change", nowPuts-puts, nowWholes-wholes)
	}
	hub.stop()
	s.edit(nil, "topology/c", "while nobody relays")
	a.serve(t, at, Config{Feed: s.feed})
	pop.has(s)
	if s.mu.Lock(); s.feeds != 3 {
		t.Errorf("three hubs follow the store %d times", s.feeds)
	}
	s.mu.Unlock()
}

// TestResume comes back to a hub whose ring leads on from what it has, and to one whose ring does not.
func TestResume(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, RingChanges: 4})
	watch := func(has store.Sum) (first store.Update, last store.Sum) {
		t.Helper()
		client := NewClient([]string{hub.url}, a.client(t, "pop:sin1"))
		defer client.Close()
		enough := errors.New("enough")
		puts := map[string][]byte{}
		err := client.Feed(t.Context(), has, func(u store.Update) error {
			maps.Copy(puts, u.Put)
			if first.Whole = first.Whole || u.Whole; len(u.Put)+len(u.Delete) > 0 {
				return nil
			}
			last = *u.Sum // of a heartbeat
			return enough
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		first.Put = puts
		return first, last
	}
	var old store.Sum
	hub.begins(t)
	u, old := watch(store.Sum{9})
	if !u.Whole || len(u.Put) != 2 {
		t.Errorf("who has something else is told %+v", u)
	}
	edit := func(i int) {
		s.edit(nil, "topology/a", fmt.Sprint("edit ", i))
		until(t, "an edit is relayed", func() error {
			if hub.mu.Lock(); string(hub.values["topology/a"]) != fmt.Sprint("edit ", i) {
				hub.mu.Unlock()
				return errors.New("it is not")
			}
			hub.mu.Unlock()
			return nil
		})
	}
	for i := range 3 {
		edit(i)
	}
	if u, _ := watch(old); u.Whole || len(u.Put) != 1 || string(u.Put["topology/a"]) != "edit 2" {
		t.Errorf("who comes back is told %+v, want what has changed", u)
	}
	_, newest := watch(old)
	if u, same := watch(newest); u.Whole || len(u.Put) != 0 || same != newest {
		t.Errorf("who has all is told %+v", u)
	}
	edit(3)
	edit(4)
	if u, _ := watch(old); !u.Whole || len(u.Put) != 2 {
		t.Errorf("who was away too long is told %+v, want all there is", u)
	}
	if u, _ := watch(newest); u.Whole || len(u.Put) != 1 {
		t.Errorf("who was away for a while is told %+v, want what has changed", u)
	}
}

// TestEtcdAway has the hub lose etcd: nodes keep what they have, are told so after a while, and go on when it is back.
func TestEtcdAway(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, Patience: 200 * time.Millisecond})
	pop := a.follow(t, "pop:sin1", hub.url)
	pop.has(s)
	_, wholes := pop.counts()
	want := s.of("pop")
	s.edit(errors.New("no quorum"))
	pop.saw("etcd cannot be read: no quorum")
	pop.mu.Lock()
	if diff := cmp.Diff(pop.values, want); diff != "" {
		t.Errorf("the node has lost what it had: %s", diff)
	}
	pop.mu.Unlock()
	s.edit(nil, "topology/a", "back again")
	pop.has(s)
	if _, now := pop.counts(); now != wholes {
		t.Errorf("it was told all there is again, want what has changed")
	}

	never := newSource()
	never.fails = errors.New("refused")
	other := a.serve(t, "127.0.0.1:0", Config{Feed: never.feed})
	both := a.follow(t, "dns:ns1", other.url, hub.url) // the first relay is of no use
	both.saw("etcd cannot be read")
	both.has(s)
}

// quotaKey is the record of a key.
func quotaKey(t *testing.T, limit int64) string {
	t.Helper()
	_, _, key, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key.QuotaPerMinute = limit
	return string(topology.MarshalKey(key))
}

// TestIdentity has everybody ask for what is not theirs.
func TestIdentity(t *testing.T) {
	a, s := newAuthority(t), newSource()
	granted := atomic.Int64{}
	s.values["keys/k"], s.values["keys/broken"] = quotaKey(t, 8), quotaKey(t, 8)
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, Quota: func(_ context.Context, q Quota) (QuotaAnswer, error) {
		answer := QuotaAnswer{Window: 7}
		for _, ask := range q.Asks {
			if ask.Key == "broken" {
				return QuotaAnswer{}, errors.New("etcd is away")
			}
			if q.PoP != "sin1" || q.Open != 6 {
				return QuotaAnswer{}, fmt.Errorf("got %+v", q)
			}
			granted.Add(min(ask.Want, ask.Limit))
			answer.Grants = append(answer.Grants, QuotaGranted{Granted: min(ask.Want, ask.Limit)})
		}
		return answer, nil
	}})
	for _, name := range []string{"", "operator:alice", "pop:", "pop", "pop:a/b", "control:c1", "sin1"} {
		client := NewClient([]string{hub.url}, a.client(t, name))
		if err := client.Feed(t.Context(), store.Sum{}, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%q: got %v, want a refusal", name, err)
		}
		client.Close()
	}
	stranger := newAuthority(t)
	config := stranger.client(t, "pop:sin1")
	config.RootCAs = a.pool
	client := NewClient([]string{hub.url}, config)
	if err := client.Feed(t.Context(), store.Sum{}, nil); err == nil { // the server ends the connection, before or after it has said why
		t.Errorf("a certificate of another CA is accepted")
	}
	client.Close()

	hub.begins(t)
	pop, dns := NewClient([]string{hub.url}, a.client(t, "pop:sin1")), NewClient([]string{hub.url}, a.client(t, "dns:ns1"))
	defer pop.Close()
	defer dns.Close()
	// The quota that counts is that of the relay, which knows no other key.
	got, err := pop.Quota(t.Context(), Quota{Open: 6, Asks: []QuotaAsk{{"other", 7, 100, 10}, {"k", 7, 100, 10}}})
	if want := (QuotaAnswer{Window: 7, Grants: []QuotaGranted{{Closed: true}, {Granted: 8}}}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("grants: got %+v, %v, want %+v", got, err, want)
	}
	ask := func(c *Client, asks ...QuotaAsk) error {
		_, err := c.Quota(t.Context(), Quota{Asks: asks})
		return err
	}
	for name, err := range map[string]error{
		"only PoPs": ask(dns, QuotaAsk{"k", 7, 100, 10}),
		"the id of": ask(pop, QuotaAsk{"../nodes/x", 7, 100, 10}),
		"twice":     ask(pop, QuotaAsk{"k", 7, 100, 10}, QuotaAsk{"k", 7, 100, 1}),
		"at most":   ask(pop, make([]QuotaAsk, maxAsks+1)...),
		"etcd is":   ask(pop, QuotaAsk{"broken", 7, 100, 10}),
		"a stream":  pop.Post(t.Context(), reportPath, store.Node{Kind: "pop"}, nil),
		"another":   pop.Post(t.Context(), reportPath, store.Node{Kind: "dns"}, nil),
		"too large": pop.Post(t.Context(), reportPath, strings.Repeat("x", maxBody), nil),
		"404":       pop.Post(t.Context(), Path+"other", 1, nil),
		"want GET":  pop.Post(t.Context(), watchPath, 1, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want a refusal with %q", err, name)
		}
	}
	if granted.Load() != 8 {
		t.Errorf("%d were granted", granted.Load())
	}
}

// TestReports has a node tell of itself for as long as it has a stream.
func TestReports(t *testing.T) {
	a, s := newAuthority(t), newSource()
	var mu sync.Mutex
	registered := map[string]store.Presence{}
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, Register: func(ctx context.Context, name string, p store.Presence) error {
		mu.Lock()
		registered[name] = p
		mu.Unlock()
		<-ctx.Done()
		mu.Lock()
		delete(registered, name)
		mu.Unlock()
		return ctx.Err()
	}})
	pop := a.follow(t, "pop:sin1", hub.url)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var report atomic.Pointer[string]
	changed := make(chan struct{}, 1)
	running.Go(func() {
		_ = pop.client.Register(ctx, store.Presence{
			Node: func() store.Node { return store.Node{Kind: "pop", Good: 7} }, Changed: changed, Report: func() []byte {
				if text := report.Load(); text != nil {
					return []byte(*text)
				}
				return nil
			},
		})
	})
	is := func(want int) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(registered) != want || want > 0 && registered["pop:sin1"].Node().Good != 7 {
				return fmt.Errorf("got %d nodes", len(registered))
			}
			return nil
		}
	}
	until(t, "the node is registered", is(1))
	text := "all is \xff well"
	report.Store(&text)
	changed <- struct{}{}
	until(t, "its report is there", func() error {
		mu.Lock()
		defer mu.Unlock()
		if got := string(registered["pop:sin1"].Report()); got != text {
			return fmt.Errorf("got %q", got)
		}
		select {
		case <-registered["pop:sin1"].Changed:
			return nil
		default:
			return errors.New("nobody says that it has changed")
		}
	})
	pop.end()
	until(t, "the node is gone", is(0))
}

// TestSlowReader does not read: it is cut off, and nobody else waits for it.
func TestSlowReader(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, RingBytes: 1 << 20})
	quick := a.follow(t, "pop:sin1", hub.url)
	quick.has(s)
	config := a.client(t, "pop:slow")
	client := NewClient([]string{hub.url}, config)
	defer client.Close()
	var waits sync.Once
	goOn := make(chan struct{})
	failed := make(chan error, 1)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		failed <- client.Feed(t.Context(), store.Sum{}, func(store.Update) error {
			waits.Do(func() { <-goOn })
			return nil
		})
	})
	for i := range 40 { // far more than a stream's window and the ring
		s.edit(nil, "topology/large", strings.Repeat(fmt.Sprint(i%10), 500_000))
		quick.has(s)
	}
	close(goOn)
	if err := <-failed; err == nil {
		t.Error("a reader that lost changes was not told")
	}
	quick.has(s)
}

// TestManyNodes follows with 300 nodes at once.
func TestManyNodes(t *testing.T) {
	a, s := newAuthority(t), newSource()
	for i := range 100 {
		s.values[fmt.Sprint("topology/pops/p", i)] = strings.Repeat("x", 500)
	}
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, MaxStreams: 300})
	config := a.client(t, "pop:sin1")
	nodes := make([]*follower, 300)
	for i := range nodes {
		f := &follower{t: t, kind: "pop", client: NewClient([]string{hub.url}, config), values: map[string]string{}}
		nodes[i] = f
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = (&store.Tail{Feed: f.client.Feed, Take: func(u store.Update) {
				f.mu.Lock()
				defer f.mu.Unlock()
				for key, value := range u.Put {
					f.values[key] = string(value)
				}
			}}).Run(ctx)
		}()
		t.Cleanup(func() { cancel(); <-done; f.client.Close() })
	}
	for _, f := range nodes {
		f.has(s)
	}
	for i := range 20 {
		s.edit(nil, "topology/a", fmt.Sprint(i))
	}
	for _, f := range nodes {
		f.has(s)
	}
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if hub.streams != len(nodes) || len(hub.nodes) != 1 {
		t.Errorf("%d streams of %d nodes", hub.streams, len(hub.nodes))
	}
}

// TestSilence follows a relay that accepts and says nothing.
func TestSilence(t *testing.T) {
	a, s := newAuthority(t), newSource()
	hub := a.serve(t, "127.0.0.1:0", Config{Feed: s.feed, Heartbeat: time.Hour})
	client := NewClient([]string{hub.url}, a.client(t, "pop:sin1"))
	defer client.Close()
	client.silence = 300 * time.Millisecond
	until(t, "silence is noticed", func() error {
		err := client.Feed(t.Context(), store.Sum{}, func(store.Update) error { return nil })
		if !errors.Is(err, errSilent) {
			return err
		}
		return nil
	})
}
