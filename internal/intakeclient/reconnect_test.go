package intakeclient

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/intaketest"
)

// TestReconnectResumes loses a connection: the next one resumes its session.
func TestReconnectResumes(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		ca, resumed := newCA(t), new(atomic.Bool)
		at := startHandler(t, ca, func(_ http.ResponseWriter, r *http.Request) { resumed.Store(r.TLS.DidResume) })
		c := newClient(t, Config{Roots: ca.Pool(), TCP: tcp})
		post := func() *Answer {
			t.Helper()
			answer, err := c.Post(t.Context(), []Endpoint{{Target: "pop", Addr: at}}, &Request{Service: host})
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		post()
		if resumed.Load() {
			t.Error("the first connection has resumed something")
		}
		to := target{at, host}
		c.mu.Lock()
		lost := c.conns[to]
		c.mu.Unlock()
		c.drop(to, lost)
		if post().Reused || !resumed.Load() {
			t.Errorf("TCP %v: the second connection is a whole new session", tcp)
		}
	}
}

// TestSenderHonoursALPN has PoPs that speak one version each: no other is tried.
func TestSenderHonoursALPN(t *testing.T) {
	ca, posts := newCA(t), new(atomic.Int64)
	only3, only2 := startHandler(t, ca, answerWith(503, posts)), startHandler(t, ca, answerWith(202, posts))
	s := newSender(t, ca)
	s.known = []Endpoint{{"three", only3, HTTP3}, {"two", only2, HTTP2}}
	s.resolved, s.fresh = time.Now(), time.Hour
	if got := sendWithin(t, s, 202, 10*time.Second); got.Protocol != "h2" || got.Endpoint.Addr != only2 {
		t.Errorf("got %+v", got)
	}
	if posts.Load() != 2 {
		t.Errorf("got %d posts, want one of each", posts.Load())
	}
	s.config.OnlyTCP, s.known = true, s.known[:1]
	if _, err := s.SendOnce(t.Context(), nil, nil); !errors.Is(err, ErrProtocol) {
		t.Errorf("over TCP to one that speaks HTTP/3 alone: got %v", err)
	}
	if _, err := newClient(t, Config{Roots: ca.Pool(), TCP: true}).Post(t.Context(), s.known, &Request{Service: host}); !errors.Is(err, ErrProtocol) {
		t.Errorf("likewise, of a plain client: got %v", err)
	}
}

// TestSenderResolvesAgain has the service move: it is found when the TTL is over, and DNS is not asked before.
func TestSenderResolvesAgain(t *testing.T) {
	ca, old, moved := newCA(t), new(atomic.Int64), new(atomic.Int64)
	first := intaketest.Serve(t, ca, host, answerWith(202, old))
	second := intaketest.Serve(t, ca, host, answerWith(202, moved))
	zone := intaketest.DNS(t, intaketest.Record(host, 1, first))
	resolver := &Resolver{Server: zone.At}
	s := NewSender(SenderConfig{Service: host, Resolve: resolver.Lookup, Config: Config{Roots: ca.Pool()}})
	defer s.Close()
	sendWithin(t, s, 202, 10*time.Second)
	zone.Change(t, intaketest.Record(host, 1, second))
	for range 5 {
		sendWithin(t, s, 202, 10*time.Second)
	}
	if zone.Questions.Load() != 1 || moved.Load() != 0 {
		t.Errorf("%d questions, %d posts to the new one", zone.Questions.Load(), moved.Load())
	}
	s.mu.Lock()
	s.resolved, s.asked = s.resolved.Add(-time.Minute), time.Time{} // the record's TTL
	s.mu.Unlock()
	sendWithin(t, s, 202, 10*time.Second)
	if zone.Questions.Load() != 2 {
		t.Errorf("%d questions after the TTL", zone.Questions.Load())
	}
	for range 100 { // the answer may have come too late for the first
		if sendWithin(t, s, 202, 10*time.Second); moved.Load() > 0 {
			return
		}
	}
	t.Error("nothing came to the new one")
}

// TestSessionsAreUsedOnce bounds what is kept, and gives each session out once.
func TestSessionsAreUsedOnce(t *testing.T) {
	s := new(sessions)
	var all []*tls.ClientSessionState
	for range maxSessions + 2 {
		all = append(all, new(tls.ClientSessionState))
		s.Put("a", all[len(all)-1])
	}
	for i := range maxSessions {
		if got, ok := s.Get("a"); !ok || got != all[len(all)-1-i] {
			t.Errorf("%d: got %p, %v", i, got, ok)
		}
	}
	if got, ok := s.Get("a"); ok || got != nil {
		t.Errorf("got %p, which was given out", got)
	}
	for i := range 10 * maxSessionNames {
		s.Put(strconv.Itoa(i), all[0])
	}
	if n := len(s.known); n > maxSessionNames {
		t.Errorf("sessions of %d names are kept", n)
	}
	s.Put("b", all[0])
	s.Put("b", nil)
	if _, ok := s.Get("b"); ok {
		t.Error("what was not good is there still")
	}
}
