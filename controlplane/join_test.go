package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// clock is a time that a test puts forward.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond) // entries of the audit log stand by their times
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newRegistrar(t *testing.T) (*Registrar, *clock) {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	authority, err := ca.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{now: time.Now()}
	return &Registrar{
		Etcd: client, Root: "/isochrone", CA: authority, URLs: []string{"https://c1.test:8443"}, Endpoints: []string{"https://e1.test:2379"}, Now: c.Now,
	}, c
}

// csr makes a request for a certificate of a new key.
func csr(t *testing.T) string {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := ca.EncodeRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// invite returns what a node says that has got the token.
func invite(t *testing.T, r *Registrar, request InviteRequest) JoinRequest {
	t.Helper()
	invitation, err := r.Invite(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	token, err := ParseJoinToken(invitation.Token)
	if err != nil {
		t.Fatal(err)
	}
	if token.CA != ca.Hash(r.CA.Certificate()) || token.URLs[0] != r.URLs[0] || token.ID != invitation.ID {
		t.Errorf("the token says %+v", token)
	}
	return JoinRequest{token.ID, token.Secret, csr(t)}
}

func certificateOf(t *testing.T, joined *Joined) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(joined.Certificate))
	if block == nil {
		t.Fatalf("no certificate in %q", joined.Certificate)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func refuse(t *testing.T, what string, err error, want error, words string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: got %v, want %v with %q", what, err, want, words)
	}
}

func TestJoin(t *testing.T) {
	r, clock := newRegistrar(t)
	ctx := t.Context()
	said := invite(t, r, InviteRequest{Name: "sin1", Author: "alice"})

	stored, err := r.Etcd.Get(ctx, "/isochrone/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range stored.Kvs {
		if strings.Contains(string(kv.Value), said.Secret) {
			t.Errorf("%s has the secret: %s", kv.Key, kv.Value)
		}
	}
	wrong := said
	wrong.Secret = strings.Repeat("a", secretLength)
	_, err = r.Join(ctx, wrong)
	refuse(t, "a wrong secret", err, ErrNotAdmitted, "not known")
	bad := said
	bad.Request = "nonsense"
	_, err = r.Join(ctx, bad)
	refuse(t, "a bad request", err, ErrInvalid, "CERTIFICATE REQUEST")

	joined, err := r.Join(ctx, said) // which the failures have not used up
	if err != nil {
		t.Fatal(err)
	}
	cert := certificateOf(t, joined)
	if cert.Subject.CommonName != "pop:sin1" || r.CA.Verify(cert, clock.Now()) != nil || joined.EtcdPrefix != "/isochrone/" || joined.Relay[0] != r.URLs[0] {
		t.Errorf("joined as %s: %+v", cert.Subject.CommonName, joined)
	}
	_, err = r.Join(ctx, said)
	refuse(t, "again", err, ErrNotAdmitted, "used")

	late := invite(t, r, InviteRequest{Name: "fra1", Kind: "dns", Expires: clock.Now().Add(time.Minute)})
	clock.forward(time.Minute)
	_, err = r.Join(ctx, late)
	refuse(t, "too late", err, ErrNotAdmitted, "expired")
	invite(t, r, InviteRequest{Name: "lhr1"})
	if left, err := r.Etcd.Get(ctx, "/isochrone/tokens/join/"+late.ID); err != nil || left.Count > 0 {
		t.Errorf("an expired invitation stays: %v, %v", left, err)
	}
	for _, bad := range []InviteRequest{
		{}, {Name: "sin1:"}, {Name: "sin1", Kind: "operator"}, {Name: "sin1", Expires: clock.Now().Add(-time.Second)},
		{Name: "sin1", Expires: clock.Now().Add(8 * 24 * time.Hour)},
	} {
		if _, err := r.Invite(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v, want %v", bad, err, ErrInvalid)
		}
	}
	audit, err := r.Etcd.Get(ctx, "/isochrone/audit/", clientv3.WithPrefix())
	if err != nil || len(audit.Kvs) < 2 || !strings.Contains(string(audit.Kvs[0].Value), "alice") || !strings.Contains(string(audit.Kvs[1].Value), "action: join") {
		t.Errorf("audit: %v, %v", audit, err)
	}
}

// TestJoinAtOnce lets many use one token in the same moment: one is let in.
func TestJoinAtOnce(t *testing.T) {
	r, _ := newRegistrar(t)
	said := invite(t, r, InviteRequest{Name: "sin1"})
	var (
		running sync.WaitGroup
		results = make([]error, 8)
	)
	for i := range results {
		request := said
		request.Request = csr(t)
		running.Go(func() { _, results[i] = r.Join(context.Background(), request) })
	}
	running.Wait()
	in := 0
	for _, err := range results {
		if err == nil {
			in++
		} else if !errors.Is(err, ErrNotAdmitted) {
			t.Errorf("got %v", err)
		}
	}
	if in != 1 {
		t.Errorf("%d were let in, want 1", in)
	}
}

// TestRecordsGrantNothing writes into etcd, as an operator can, records by which one would become more than a node.
func TestRecordsGrantNothing(t *testing.T) {
	r, clock := newRegistrar(t)
	ctx := t.Context()
	said := invite(t, r, InviteRequest{Name: "sin1"})
	for _, kind := range []string{"etcd-root", "control", "operator", ""} {
		forged := &invitation{Schema: 1, Kind: kind, Name: "root", SHA256: hashSecret(said.Secret), Expires: clock.Now().Add(time.Hour)}
		if _, err := r.Etcd.Put(ctx, "/isochrone/tokens/join/"+said.ID, string(topology.MarshalValue(forged))); err != nil {
			t.Fatal(err)
		}
		_, err := r.Join(ctx, said)
		refuse(t, "kind "+kind, err, ErrNotAdmitted, "")
	}
	joined, err := r.Join(ctx, invite(t, r, InviteRequest{Name: "sin1"}))
	if err != nil {
		t.Fatal(err)
	}
	cert := certificateOf(t, joined)
	for _, m := range []member{{Kind: "etcd-root", Name: "root"}, {Kind: "pop", Name: "fra1"}, {Kind: "dns", Name: "sin1"}} {
		m.Schema, m.Serial = 1, serialOf(cert)
		if _, err := r.Etcd.Put(ctx, "/isochrone/tokens/node/pop:sin1", string(topology.MarshalValue(m))); err != nil {
			t.Fatal(err)
		}
		_, err = r.Renew(ctx, cert, csr(t))
		refuse(t, "renew as "+m.Kind+":"+m.Name, err, ErrNotAdmitted, "")
	}
}

func TestRenew(t *testing.T) {
	r, clock := newRegistrar(t)
	ctx := t.Context()
	joined, err := r.Join(ctx, invite(t, r, InviteRequest{Name: "sin1"}))
	if err != nil {
		t.Fatal(err)
	}
	first := certificateOf(t, joined)
	renew := func(shown *x509.Certificate) *x509.Certificate {
		t.Helper()
		renewed, err := r.Renew(ctx, shown, csr(t))
		if err != nil {
			t.Fatal(err)
		}
		return certificateOf(t, renewed)
	}
	clock.forward(80 * 24 * time.Hour)
	lost := renew(first) // and the answer does not arrive
	second := renew(first)
	_, err = r.Renew(ctx, lost, csr(t))
	refuse(t, "the lost one", err, ErrNotAdmitted, "newer")
	third := renew(second)
	_, err = r.Renew(ctx, first, csr(t))
	refuse(t, "the first one after two others", err, ErrNotAdmitted, "newer")
	stranger, err := ca.New("other", clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for what, authority := range map[string]*ca.CA{"of another CA": stranger, "of an operator": r.CA} {
		kind := ca.PoP
		if authority == r.CA {
			kind = ca.Operator
		}
		cert, err := authority.Issue(ca.Request{Kind: kind, Name: "sin1", Public: &key.PublicKey}, clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Renew(ctx, cert, csr(t))
		refuse(t, what, err, ErrNotAdmitted, "")
	}
	if err := r.Expel(ctx, "pop", "sin1", "alice"); err != nil {
		t.Fatal(err)
	}
	_, err = r.Renew(ctx, third, csr(t))
	refuse(t, "after it was turned out", err, ErrNotAdmitted, "turned out")
	refuse(t, "turned out again", r.Expel(ctx, "pop", "sin1", "alice"), ErrNotFound, "pop:sin1")
	again, err := r.Join(ctx, invite(t, r, InviteRequest{Name: "sin1"}))
	if err != nil {
		t.Fatal(err)
	}
	clock.forward(91 * 24 * time.Hour)
	_, err = r.Renew(ctx, certificateOf(t, again), csr(t))
	refuse(t, "with one that has expired", err, ErrNotAdmitted, "expired")
}

// TestJoinOverHTTP asks as clients do that mean no good.
func TestJoinOverHTTP(t *testing.T) {
	r, _ := newRegistrar(t)
	var log bytes.Buffer
	server := httptest.NewUnstartedServer(JoinHandler(r, slog.New(slog.NewTextHandler(&log, nil))))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	said := invite(t, r, InviteRequest{Name: "sin1"})
	body, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) (int, string) {
		t.Helper()
		response, err := server.Client().Post(server.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	for _, test := range []struct {
		path, body string
		want       int
	}{
		{"/v1/join", "", 400},
		{"/v1/join", "{}", 400},
		{"/v1/join", `{"id":"` + strings.Repeat("a", maxJoinBody) + `"}`, 400},
		{"/v1/join", strings.Replace(string(body), said.Secret, strings.Repeat("a", secretLength), 1), 403},
		{"/v1/renew", `{"request":` + string(mustJSON(t, said.Request)) + `}`, 403},
		{"/v1/join", string(body), 200},
		{"/v1/join", string(body), 403},
	} {
		if got, text := post(test.path, test.body); got != test.want || strings.Contains(text, said.Secret) {
			t.Errorf("%s %.60s: got %d %s, want %d", test.path, test.body, got, text, test.want)
		}
	}
	limited := false
	for range joinBurst + 20 {
		if got, _ := post("/v1/join", "{}"); got == http.StatusTooManyRequests {
			limited = true
			break
		}
	}
	if !limited {
		t.Error("nobody stops a flood")
	}
	if got := renewOverHTTP(t, r, server); got != http.StatusOK {
		t.Errorf("in a flood of joins, renewing: got %d", got)
	}
	server.Close()
	if strings.Contains(log.String(), said.Secret) {
		t.Errorf("the log has the secret:\n%s", &log)
	}
}

// renewOverHTTP has a node join, and renew its certificate at a server, whose status it returns.
func renewOverHTTP(t *testing.T, r *Registrar, server *httptest.Server) int {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := ca.EncodeRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	said := invite(t, r, InviteRequest{Name: "fra1"})
	said.Request = string(request)
	joined, err := r.Join(t.Context(), said)
	if err != nil {
		t.Fatal(err)
	}
	transport := server.Client().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{certificateOf(t, joined).Raw}, PrivateKey: key}}
	body := `{"request":` + string(mustJSON(t, said.Request)) + `}`
	response, err := (&http.Client{Transport: transport}).Post(server.URL+"/v1/renew", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func mustJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestJoinTokens(t *testing.T) {
	good := JoinToken{strings.Repeat("a", idLength), strings.Repeat("b", secretLength), []string{"https://[2001:db8::1]:8443"}, strings.Repeat("0f", 32)}
	got, err := ParseJoinToken(" " + good.String() + "\n")
	if err != nil || got.String() != good.String() {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, change := range map[string]func(*JoinToken){
		"a short secret": func(t *JoinToken) { t.Secret = "b" },
		"a path as id":   func(t *JoinToken) { t.ID = "../../topology/x" },
		"no hash":        func(t *JoinToken) { t.CA = "" },
		"upper case":     func(t *JoinToken) { t.CA = strings.Repeat("0F", 32) },
		"no URL":         func(t *JoinToken) { t.URLs = nil },
		"no TLS":         func(t *JoinToken) { t.URLs = []string{"http://c1.test"} },
		"a user in it":   func(t *JoinToken) { t.URLs = []string{"https://a:b@c1.test"} },
		"many URLs":      func(t *JoinToken) { t.URLs = strings.Fields(strings.Repeat("https://c1.test ", maxJoinURLs+1)) },
	} {
		bad := good
		change(&bad)
		if _, err := ParseJoinToken(bad.String()); err == nil || strings.Contains(err.Error(), good.Secret) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, bad := range []string{"", "isoj_", "isoj_%", good.String()[:40], "isot_" + good.String()[5:], good.String() + "AAAA"} {
		if _, err := ParseJoinToken(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	good := JoinToken{strings.Repeat("a", idLength), strings.Repeat("b", secretLength), []string{"https://c1.test:8443"}, strings.Repeat("0f", 32)}
	f.Add(good.String())
	f.Add("isoj_e30")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err != nil {
			return
		}
		again, err := ParseJoinToken(token.String())
		if err != nil || again.String() != token.String() {
			t.Errorf("%+v is read as %+v, %v", token, again, err)
		}
		if strings.ContainsAny(token.ID+token.Secret, "/.") {
			t.Errorf("took %+v", token)
		}
	})
}
