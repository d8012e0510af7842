package dataplane

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
)

// wrongRequests has a Front answer 401, as often as it is asked.
type wrongRequests struct{}

func (wrongRequests) Answer(_ *exchange.Request, a *exchange.Answer) {
	a.Status = http.StatusUnauthorized
}

// TestWrongRequests has a client send nothing but wrong requests, on and on: it is heard less and less, and then not at all. Another one
// that sends one at times is.
func TestWrongRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFront(FrontConfig{Limits: Limits{FaultsPerPrefix: 10}})
		f.Handle(wrongRequests{})
		ask := func(c *connection, from string) time.Duration {
			r := &exchange.Request{Remote: netip.MustParseAddrPort(from), Context: context.WithValue(t.Context(), connectionKey{}, c)}
			var a exchange.Answer
			f.Answer(r, &a)
			return a.Pause
		}
		closed, charged := "", 0
		bad := &connection{began: f.began, close: func(why string) { closed = why }, charge: func() { charged++ }}
		good := &connection{began: f.began, close: func(why string) { t.Error(why) }}
		time.Sleep(time.Minute)
		pauses, asked := 0, 0
		for closed == "" && asked < 1000 {
			pause := ask(bad, "192.0.2.1:1000")
			if asked++; pause > 0 {
				pauses++
				time.Sleep(pause)
			}
			if asked%10 == 0 && ask(good, "198.51.100.1:1000") > 0 {
				t.Fatal("another client has to pay")
			}
		}
		if pauses != maxFaultPauses+1 || charged != 1 || asked < 20+3*10 || asked > 20+6*10 {
			t.Errorf("after %d requests and %d pauses: %q, charged %d times", asked, pauses, closed, charged)
		}
	})
}

// TestHandshakesArePaced begins more of them at once than are computed at once.
func TestHandshakesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClientLimits(Limits{Handshakes: 50})
		time.Sleep(time.Minute)
		began, done := time.Now(), make(chan error)
		for range 108 {
			go func() { done <- c.pace(t.Context()) }()
		}
		for range 108 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took < 950*time.Millisecond || took > 1050*time.Millisecond {
			t.Errorf("8 at once and 100 in a second took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 1000 {
			go func() { done <- c.pace(ctx) }()
		}
		refused := 0
		synctest.Wait()
		cancel()
		for range 1000 {
			if err := <-done; errors.Is(err, errTooFastAll) {
				refused++
			}
		}
		if refused < 500 || refused > 700 {
			t.Errorf("%d of 1000 are refused, and 4 s are 400", refused)
		}
	})
}

// TestHandshakesGiveWay begins many of them while requests are worked on.
func TestHandshakesGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClientLimits(Limits{Handshakes: 50})
		c.working = func() bool { return true }
		time.Sleep(time.Minute)
		began, done := time.Now(), make(chan error)
		for range 51 {
			go func() { done <- c.pace(t.Context()) }()
		}
		for range 51 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("one at once and 50 in a second took %v", took)
		}
	})
}

// TestPausedOverTCP reads from a connection that is paused: until its turn, and for a while.
func TestPausedOverTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFront(FrontConfig{})
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := &countedConn{Conn: ours, connection: &connection{began: f.began}, closed: make(chan struct{}), front: f}
		c.end = func() { close(c.closed) }
		go func() {
			for {
				if _, err := theirs.Write([]byte("a")); err != nil {
					return
				}
			}
		}()
		began, buf := time.Now(), make([]byte, 1)
		read := func() time.Duration {
			began = time.Now()
			if _, err := c.Read(buf); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		if took := read(); took > 0 {
			t.Errorf("a connection that is not paused waits %v", took)
		}
		c.connection.pause(0, time.Second)
		if took := read(); took < time.Second || took > time.Second+slowGap {
			t.Errorf("a pause of a second takes %v", took)
		}
		c.connection.pause(overload.Turn(1<<40), 0) // nobody lets turns go by
		if took := read(); took < 5*time.Second || took > 5*time.Second+slowGap {
			t.Errorf("a turn that does not come takes %v", took)
		}
		c.connection.pause(overload.Turn(1<<40), 0)
		began = time.Now()
		time.AfterFunc(time.Second, func() { c.Close() })
		if _, err := c.Read(buf); err == nil || time.Since(began) > time.Second+slowGap {
			t.Errorf("a closed connection waits for %v: %v", time.Since(began), err)
		}
	})
}
