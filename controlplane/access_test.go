package controlplane

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// pathOf fills in the parameters of a route's path with what there is nothing of.
func pathOf(r route) string {
	return strings.NewReplacer("{kind}", "pops", "{name}", "nothing", "{id}", "nothing", "{revision}", "1").Replace(r.path)
}

// TestRoles tries every route with no token, with a wrong one, and with that of every role.
func TestRoles(t *testing.T) {
	w := begin(t, nil)
	table := append(routes(w.service), eventsRoute(), route{method: "GET", path: "/metrics", role: Viewer})
	for _, r := range table {
		a := w.ask("", r.method, pathOf(r), "")
		if a.problem(t, 401); !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s %s: got WWW-Authenticate %q", r.method, r.path, a.header.Get("WWW-Authenticate"))
		}
		for _, role := range roles {
			if r.path == eventsPath && role.May(r.role) {
				continue // it does not end by itself
			}
			a := w.ask(role, r.method, pathOf(r), "")
			if forbidden := a.code == 403; forbidden == role.May(r.role) {
				t.Errorf("%s %s for %s: got %d", r.method, r.path, role, a.code)
			}
			if a.code >= 500 {
				t.Errorf("%s %s for %s: got %d: %s", r.method, r.path, role, a.code, a.body)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/v1/openapi.json", "/v1/schema.json"} {
		if a := w.ask("", "GET", path, ""); a.code != 200 || a.header.Get("X-Content-Type-Options") != "nosniff" || len(a.body) == 0 {
			t.Errorf("%s: got %d", path, a.code)
		}
	}
	if a := w.ask(Viewer, "GET", "/metrics", ""); !strings.Contains(string(a.body), `isochrone_control_requests_total{code="401",method="GET",route="/v1/status"} 1`) {
		t.Errorf("metrics: got\n%s", a.body)
	}
}

func TestTokens(t *testing.T) {
	var log strings.Builder
	w := begin(t, &HandlerConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
	admin := w.client(Admin)
	made, err := admin.CreateToken(t.Context(), TokenRequest{Name: "Alice", Role: Operator, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.tokens["alice"] = made.Secret
	alice := w.client("alice")
	w.eventually("the new token", func() bool {
		who, err := alice.Whoami(t.Context())
		return err == nil && *who == Identity{"Alice", Operator}
	})
	if _, err := alice.Tokens(t.Context()); !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "admin") {
		t.Errorf("an operator who lists tokens: got %v", err)
	}
	list, err := admin.Tokens(t.Context())
	if err != nil || len(list) != 4 {
		t.Fatalf("got %v, %v", list, err)
	}
	if err := admin.RevokeToken(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.eventually("the revocation", func() bool {
		_, err := alice.Whoami(t.Context())
		return errors.Is(err, ErrUnauthorized)
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("a revocation took %v", took)
	}
	if err := admin.RevokeToken(t.Context(), made.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: got %v", err)
	}
	for _, request := range []TokenRequest{{Name: "x", Role: "king"}, {Role: Viewer}, {Name: "x", Role: Viewer, Expires: time.Now().Add(-time.Hour)}} {
		if _, err := admin.CreateToken(t.Context(), request); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v", request, err)
		}
	}

	// A token that ends by itself.
	short, err := admin.CreateToken(t.Context(), TokenRequest{Name: "Dan", Role: Viewer, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the short token", func() bool { _, err := w.service.Auth.Authenticate(short.Secret); return err == nil })
	now := time.Now()
	w.service.Auth.now = func() time.Time { return now.Add(2 * time.Hour) }
	if _, err := w.service.Auth.Authenticate(w.tokens[Viewer]); err != nil {
		t.Errorf("one without an end: got %v", err)
	}
	if _, err := w.service.Auth.Authenticate(short.Secret); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("one that has ended: got %v", err)
	}
	w.service.Auth.now = time.Now

	// Nothing that stands in etcd, or was logged or audited, is a token.
	all, err := w.etcd.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	texts := log.String()
	for _, kv := range all.Kvs {
		texts += string(kv.Value)
	}
	for name, secret := range w.tokens {
		if _, random, _ := strings.Cut(strings.TrimPrefix(secret, tokenPrefix), "_"); strings.Contains(texts, random) {
			t.Errorf("the token of %s stands somewhere in clear", name)
		}
	}
	audit, err := admin.Audit(t.Context(), Page{Limit: 2})
	if err != nil || audit.Next == "" || audit.Entries[1].Action != "delete" || audit.Entries[1].Author != "some admin" || audit.Entries[1].Objects[0] != "tokens/"+made.ID {
		t.Errorf("audit: got %+v, %v", audit, err)
	}
}

func TestGuessing(t *testing.T) {
	w := begin(t, nil)
	w.tokens["wrong"] = w.tokens[Admin] + "x"
	for range failedAttempts {
		w.ask("wrong", "GET", "/v1/status", "").problem(t, 401)
	}
	a := w.ask("wrong", "GET", "/v1/status", "")
	if a.problem(t, 429); a.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	if a := w.ask(Viewer, "GET", "/v1/status", ""); a.code != 200 {
		t.Errorf("a good token from the same address: got %d", a.code)
	}
}

func TestWriteLimit(t *testing.T) {
	w := begin(t, &HandlerConfig{WritesPerSecond: 0.01, WriteBurst: 3})
	for range 3 {
		w.ask(Operator, "DELETE", "/v1/overrides/nothing", "").problem(t, 404)
	}
	a := w.ask(Operator, "DELETE", "/v1/overrides/nothing", "")
	if a.problem(t, 429); a.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	if a := w.ask(Operator, "GET", "/v1/status", ""); a.code != 200 {
		t.Errorf("reading: got %d", a.code)
	}
	w.ask(Admin, "DELETE", "/v1/overrides/nothing", "").problem(t, 404) // another token has its own limit
}

// TestBodies sends what is no request.
func TestBodies(t *testing.T) {
	w := begin(t, nil)
	for _, test := range []struct {
		name, method, path, body string
		code                     int
		detail                   string
	}{
		{"not JSON", "POST", "/v1/changes", "schema: 1", 400, "body"},
		{"an unknown member", "POST", "/v1/changes", `{"document":"schema: 1","dryrun":true}`, 400, "dryrun"},
		{"two values", "POST", "/v1/changes", `{} {}`, 400, "one JSON value"},
		{"too large", "POST", "/v1/changes", `{"document":"` + strings.Repeat("x", maxBodyBytes) + `"}`, 413, "1500000"},
		{"no object", "PUT", "/v1/topology/planets/mars", "schema: 1", 400, "zones/NAME"},
		{"a page of too many", "GET", "/v1/keys?limit=1001", "", 400, "1..1000"},
		{"a word for a number", "GET", "/v1/keys?limit=ten", "", 400, "whole number"},
		{"twice", "GET", "/v1/keys?limit=1&limit=2", "", 400, "2 times"},
		{"everything deleted", "POST", "/v1/changes", `{"replace":true}`, 400, "delete everything"},
	} {
		if got := w.ask(Operator, test.method, test.path, test.body).problem(t, test.code); !strings.Contains(got.Detail, test.detail) {
			t.Errorf("%s: got %q, want %q", test.name, got.Detail, test.detail)
		}
	}
}

func TestMounts(t *testing.T) {
	said := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("mounted")) })
	w := begin(t, &HandlerConfig{Mounts: map[string]http.Handler{"POST /v1/join": said, "/v1/relay/": said}})
	for _, request := range [][2]string{{"POST", "/v1/join"}, {"GET", "/v1/relay/watch"}} {
		if a := w.ask("", request[0], request[1], ""); a.code != 200 || string(a.body) != "mounted" {
			t.Errorf("%v: got %d %s", request, a.code, a.body)
		}
	}
	a := w.ask("", "GET", "/v1/join", "")
	if a.problem(t, 405); a.header.Get("Allow") != "POST" {
		t.Errorf("got Allow %q", a.header.Get("Allow"))
	}
}

func TestPanicIsContained(t *testing.T) {
	w := begin(t, &HandlerConfig{Page: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("for the test") })})
	w.ask("", "GET", "/", "").problem(t, 500)
	if a := w.ask(Viewer, "GET", "/metrics", ""); !strings.Contains(string(a.body), "isochrone_control_panics_total 1") {
		t.Error("the panic is not counted")
	}
}

// TestInternalErrors are logged, and not shown.
func TestInternalErrors(t *testing.T) {
	var log strings.Builder
	w := begin(t, &HandlerConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
	w.service.Alive = nil
	w.service.Activity = nil
	if a := w.ask(Viewer, "GET", "/v1/nodes", ""); a.code != 200 || strings.TrimSpace(string(a.body)) != "[]" {
		t.Errorf("no nodes: got %d %s", a.code, a.body)
	}
	h := &handler{service: w.service, config: HandlerConfig{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	for err, code := range map[error]int{
		fmt.Errorf("x: %w", ErrNotReady): 503, errors.New("a secret reason"): 500, refused(&topology.InvalidError{}): 400,
		&conflict{ErrPrecondition, nil}: 412, fmt.Errorf("x: %w", store.ErrRestoring): 409, fmt.Errorf("x: %w", store.ErrNoneGood): 409,
		fmt.Errorf("x: %w", etcdclient.ErrFull): 507, errors.Join(etcdclient.ErrUnknownOutcome, errors.New("gone")): 504,
	} {
		got := &recorder{header: http.Header{}}
		h.encodeError(t.Context(), err, got)
		if got.code != code || strings.Contains(got.body.String(), "secret") {
			t.Errorf("%v: got %d %s", err, got.code, &got.body)
		}
	}
}

// TestBodiesThatDoNotCome cost a connection for a while only, of who has no token too.
func TestBodiesThatDoNotCome(t *testing.T) {
	w := begin(t, &HandlerConfig{BodyPatience: 50 * time.Millisecond})
	for token, code := range map[string]string{"": " 401 ", w.tokens[Operator]: " 400 "} {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "POST /v1/changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", token)
		text, err := io.ReadAll(c) // until it is closed
		if err != nil || !strings.Contains(string(text), code) {
			t.Errorf("got %.100s, %v, want%sand the end", text, err, code)
		}
	}
}

// recorder is an http.ResponseWriter.
type recorder struct {
	header http.Header
	code   int
	body   strings.Builder
}

func (r *recorder) Header() http.Header            { return r.header }
func (r *recorder) WriteHeader(code int)           { r.code = code }
func (r *recorder) Write(text []byte) (int, error) { return r.body.Write(text) }
