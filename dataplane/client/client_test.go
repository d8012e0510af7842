package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/intaketest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const service = "svc.test"

// pop answers as an intake does.
type pop struct {
	*intaketest.Server
	status int
	retry  string

	mu   sync.Mutex
	came []*http.Request
	body string
}

func startPoP(t *testing.T, ca *devca.CA, status int) *pop {
	p := &pop{status: status}
	p.Server = intaketest.Serve(t, ca, service, p)
	return p
}

func (p *pop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.came, p.body = append(p.came, r), string(body)
	p.mu.Unlock()
	w.Header().Set("X-Isochrone-Pop", "sin1")
	w.Header().Set("X-Isochrone-Cluster", "ap")
	if p.retry != "" {
		w.Header().Set("Retry-After", p.retry)
	}
	w.WriteHeader(p.status)
	if p.status == http.StatusAccepted {
		_, _ = io.WriteString(w, `{"status":"accepted","id":"sin1.core","sha256":"aa","receipt":"a~b~c"}`)
		return
	}
	fmt.Fprintf(w, `{"title":"no","status":%d,"detail":"as the test says"}`, p.status)
}

func (p *pop) requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.came...)
}

func newClient(t *testing.T, c Config, pops ...*pop) *Client {
	t.Helper()
	var records []string
	for i, p := range pops {
		records = append(records, intaketest.Record(service, i+1, p.Server))
	}
	c.Service, c.Key, c.DNS = service, "key", intaketest.DNS(t, records...).At
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// TestPost posts over both transports: what is sent, and what is told.
func TestPost(t *testing.T) {
	for proto, onlyTCP := range map[string]bool{"HTTP/3.0": false, "HTTP/2.0": true} {
		ca := intaketest.CA(t)
		p := startPoP(t, ca, 202)
		c := newClient(t, Config{Roots: ca.Pool(), OnlyTCP: onlyTCP}, p)
		got, err := c.Post(t.Context(), Payload{Body: []byte(" {} \n"), ContentType: "application/cbor", IdempotencyKey: "event 1"})
		if want := (Accepted{"sin1.core", "aa", "a~b~c", "sin1", "ap"}); err != nil || *got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if _, err := c.Post(t.Context(), Payload{Body: []byte(" {} \n")}); err != nil {
			t.Error(err)
		}
		came := p.requests()
		if p.body != " {} \n" || len(came) < 2 {
			t.Fatalf("got %d requests, the last with %q", len(came), p.body)
		}
		first, last := came[0], came[len(came)-1]
		if first.Header.Get("Idempotency-Key") != "event 1" || first.Header.Get("Content-Type") != "application/cbor" || first.Header.Get("X-Api-Key") != "key" {
			t.Errorf("got %v", first.Header)
		}
		if last.Header.Get("Content-Type") != "application/json" || len(last.Header.Get("Idempotency-Key")) < 20 {
			t.Errorf("by default: got %v", last.Header)
		}
		if onlyTCP && last.Proto != proto { // the other way UDP may be overtaken by TCP
			t.Errorf("came by %s, want %s", last.Proto, proto)
		}
	}
}

// TestErrors has each kind of answer be an error that a program can tell from others.
func TestErrors(t *testing.T) {
	for status, want := range map[int]error{401: ErrUnauthorized, 403: ErrUnauthorized, 400: ErrInvalid, 413: ErrInvalid, 415: ErrInvalid, 422: ErrInvalid, 404: ErrOther} {
		ca := intaketest.CA(t)
		_, err := newClient(t, Config{Roots: ca.Pool()}, startPoP(t, ca, status)).Post(t.Context(), Payload{})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "as the test says") {
			t.Errorf("%d: got %v, want %v", status, err, want)
		}
	}
}

// TestQuotaError has the context end before the quota is there again.
func TestQuotaError(t *testing.T) {
	ca := intaketest.CA(t)
	p := startPoP(t, ca, 429)
	p.retry = "7"
	c := newClient(t, Config{Roots: ca.Pool()}, p)
	for wait := 200 * time.Millisecond; ; wait *= 4 { // longer on a slow machine, until the answer has come before the end
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		_, err := c.Post(ctx, Payload{})
		cancel()
		var quota *QuotaError
		if errors.As(err, &quota) && quota.RetryAfter == 7*time.Second {
			return
		}
		if wait > 10*time.Second || !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
}

// TestFailover has the nearest PoP be away.
func TestFailover(t *testing.T) {
	ca := intaketest.CA(t)
	gone, well := startPoP(t, ca, 202), startPoP(t, ca, 202)
	c := newClient(t, Config{Roots: ca.Pool()}, gone, well)
	gone.Close()
	if _, err := c.Post(t.Context(), Payload{}); err != nil || len(well.requests()) == 0 {
		t.Errorf("got %v, and %d requests at the other one", err, len(well.requests()))
	}
}

// TestCertificates has PoPs that cannot prove to be the service: nothing is sent to them.
func TestCertificates(t *testing.T) {
	ca, other := intaketest.CA(t), intaketest.CA(t)
	stranger := startPoP(t, other, 202)
	misnamed := &pop{status: 202}
	misnamed.Server = intaketest.Serve(t, ca, "other.test", misnamed)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := newClient(t, Config{Roots: ca.Pool()}, stranger, misnamed).Post(ctx, Payload{})
	if !errors.Is(err, ErrUnavailable) || len(stranger.requests())+len(misnamed.requests()) != 0 {
		t.Errorf("got %v, and %d requests", err, len(stranger.requests())+len(misnamed.requests()))
	}
}

// TestNew wants what it cannot do without.
func TestNew(t *testing.T) {
	for _, c := range []Config{{}, {Service: service}, {Key: "key"}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
