package intakeclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/intaketest"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// startHandler serves a handler over HTTP/3 and HTTP/2.
func startHandler(t *testing.T, ca *devca.CA, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	return intaketest.Serve(t, ca, host, handler).At
}

func newSender(t *testing.T, ca *devca.CA, at ...netip.AddrPort) *Sender {
	t.Helper()
	var endpoints []Endpoint
	for _, a := range at {
		endpoints = append(endpoints, Endpoint{Target: "pop." + host, Addr: a})
	}
	s := NewSender(SenderConfig{
		Service: host, Config: Config{Roots: ca.Pool()},
		Resolve: func(context.Context, string) ([]Endpoint, time.Duration, error) { return endpoints, time.Minute, nil },
	})
	t.Cleanup(func() { s.Close() })
	return s
}

// blackhole returns an address whose datagrams nobody answers; tcp says whether connections are taken, and then never answered, or reset.
func blackhole(t *testing.T, tcp bool) netip.AddrPort {
	t.Helper()
	at := sockettest.Free(t)
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	if tcp {
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	return at
}

func answerWith(status int, posts *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		posts.Add(1)
		w.WriteHeader(status)
	}
}

// sendWithin sends, and fails for another status or if it took longer. Limits are generous for slow machines; what was measured is logged.
func sendWithin(t *testing.T, s *Sender, want int, limit time.Duration) *Answer {
	t.Helper()
	began := time.Now()
	answer, err := s.Send(t.Context(), nil, []byte("{}"))
	took := time.Since(began)
	t.Logf("took %v", took)
	if err != nil || answer.Status != want || took > limit {
		t.Fatalf("got %+v, %v after %v", answer, err, took)
	}
	return answer
}

func TestSenderOvertakesTheSilent(t *testing.T) {
	ca, posts := newCA(t), new(atomic.Int64)
	well := startHandler(t, ca, answerWith(202, posts))
	for name, tcp := range map[string]bool{"silent": true, "reset": false} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, ca, blackhole(t, tcp), well)
			if got := sendWithin(t, s, 202, 5*time.Second); got.Endpoint.Addr != well {
				t.Errorf("got %+v", got)
			}
			if got := sendWithin(t, s, 202, hedgeAfter); got.Endpoint.Addr != well { // which is first for a while
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestSenderWithoutUDP has a service whose datagrams get lost.
func TestSenderWithoutUDP(t *testing.T) {
	ca := newCA(t)
	certificate, err := ca.Certificate(host, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, udp := sockettest.Both(t)
	defer udp.Close()
	server := &http.Server{Handler: answerWith(202, new(atomic.Int64)), TLSConfig: &tls.Config{Certificates: []tls.Certificate{*certificate}}}
	ended := make(chan struct{})
	go func() { _ = server.ServeTLS(l, "", ""); close(ended) }()
	defer func() { server.Close(); <-ended }()
	s := newSender(t, ca, l.Addr().(*net.TCPAddr).AddrPort())
	if got := sendWithin(t, s, 202, 5*time.Second); got.Protocol != "h2" {
		t.Errorf("got %+v", got)
	}
}

func TestSenderGoesOnAfterAnAnswer(t *testing.T) {
	ca := newCA(t)
	for _, status := range []int{421, 500, 503} {
		busy, well := new(atomic.Int64), new(atomic.Int64)
		s := newSender(t, ca, startHandler(t, ca, answerWith(status, busy)), startHandler(t, ca, answerWith(202, well)))
		sendWithin(t, s, 202, 5*time.Second)
		if busy.Load() != 1 || well.Load() != 1 {
			t.Errorf("%d: got %d and %d posts", status, busy.Load(), well.Load())
		}
	}
}

// A quota is that of the key, in all PoPs: to ask the others would only make more load.
func TestSenderHonoursRetryAfter(t *testing.T) {
	ca, first, second := newCA(t), new(atomic.Int64), new(atomic.Int64)
	at := startHandler(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		if first.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			return
		}
		w.WriteHeader(202)
	})
	s := newSender(t, ca, at, startHandler(t, ca, answerWith(202, second)))
	began := time.Now()
	sendWithin(t, s, 202, 10*time.Second)
	if took := time.Since(began); took < time.Second || first.Load() != 2 || second.Load() != 0 {
		t.Errorf("took %v, with %d and %d posts", took, first.Load(), second.Load())
	}
}

// A program that gives up must not take the connection from the others.
func TestSenderKeepsTheConnectionOfOthers(t *testing.T) {
	ca, hold, arrived := newCA(t), make(chan struct{}), make(chan struct{}, 8)
	at := startHandler(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Hold") != "" {
			arrived <- struct{}{}
			<-hold
		}
		w.WriteHeader(202)
	})
	c := newClient(t, Config{Roots: ca.Pool()})
	send := func(ctx context.Context, header http.Header) (*Answer, error) {
		return c.Post(ctx, []Endpoint{{Target: "pop", Addr: at}}, &Request{Service: host, Header: header})
	}
	if _, err := send(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	patient := make(chan error, 1)
	go func() {
		_, err := send(t.Context(), http.Header{"Hold": {"1"}})
		patient <- err
	}()
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := send(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
	if err := <-patient; err != nil {
		t.Errorf("the other post failed: %v", err)
	}
}

// While DNS is away, what it has said is used, and no post waits for it.
func TestSenderWithoutDNS(t *testing.T) {
	ca := newCA(t)
	at := startHandler(t, ca, answerWith(202, new(atomic.Int64)))
	s, away := newSender(t, ca), new(atomic.Bool)
	s.config.Resolve = func(ctx context.Context, _ string) ([]Endpoint, time.Duration, error) {
		if away.Load() {
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}
		return []Endpoint{{Target: "pop", Addr: at}}, time.Minute, nil
	}
	sendWithin(t, s, 202, 5*time.Second)
	away.Store(true)
	s.mu.Lock()
	s.resolved, s.asked = time.Now().Add(-time.Hour), time.Time{}
	s.mu.Unlock()
	sendWithin(t, s, 202, 2*time.Second)
}
