package h3

import (
	"bytes"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
)

// shedding is a handler that refuses what an Overload does not let in.
type shedding struct {
	*overload.Overload
	answered, shed atomic.Int64
}

func (s *shedding) Answer(r *exchange.Request, a *exchange.Answer) {
	if r.Ticket.In() {
		s.answered.Add(1)
	}
	_, _ = io.Copy(io.Discard, r.Body)
	a.Status = 202
	s.Drop(&r.Ticket)
}

func (s *shedding) Shed(r *exchange.Request, a *exchange.Answer) bool {
	ticket, why, ok := s.Ask(true, new(overload.Told), r.Context.Done(), nil)
	if r.Ticket = ticket; ok {
		return false
	}
	s.shed.Add(1)
	a.Add("retry-after", "1")
	a.Status, a.Turn, a.Body = 503, why.Turn, append(a.Body[:0], r.Method+" "+r.Path...)
	return true
}

// TestShed has requests refused by the goroutine that accepts streams, and others be let in with a ticket; the connection is heard again
// when there is room, and one that is paused ends with the server.
func TestShed(t *testing.T) {
	s := &shedding{Overload: overload.New(overload.Options{})}
	r := serve(t, Config{Handler: s, Overload: s.Overload})
	post := func(body string) []byte {
		return append(stream(1, encode(t, ":method", "POST", ":scheme", "https", ":authority", "h3.test", ":path", "/")), stream(0, []byte(body))...)
	}
	ask := func(octets []byte) []byte {
		t.Helper()
		got, err := r.send(t, octets)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	ask(post("first"))
	var full []overload.Ticket
	fill := func() {
		for {
			ticket, ok := s.Enter()
			if !ok {
				return
			}
			s.Received(&ticket)
			full = append(full, ticket)
		}
	}
	fill()
	for _, body := range []string{"short", string(bytes.Repeat([]byte("long"), 10_000))} {
		if got := ask(post(body)); !bytes.Contains(got, []byte("POST /")) || !bytes.Contains(got, []byte("retry-after")) {
			t.Errorf("got %q", got)
		}
		for i := range full { // there is room: the connection is heard again
			s.Leave(&full[i], 0)
		}
		full = full[:0]
		fill()
	}
	if s.shed.Load() != 2 {
		t.Errorf("%d requests were shed", s.shed.Load())
	}
	for i := range full[:len(full)/3] { // more than half full
		s.Leave(&full[i], 0)
	}
	before := s.answered.Load()
	ask(post("let in"))
	if s.answered.Load() != before+1 {
		t.Error("a request that was let in has no ticket")
	}
	for { // until it is full
		ticket, ok := s.Enter()
		if !ok {
			break
		}
		s.Received(&ticket)
	}
	gone := make(chan struct{})
	close(gone)
	for range 100_000 {
		s.Ask(false, new(overload.Told), gone, nil)
	}
	ask(post("refused, and paused for seconds"))
	began := time.Now()
	r.Close()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the server's end took %v", took)
	}
}
