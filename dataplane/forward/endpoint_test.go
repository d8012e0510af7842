package forward

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// TestBreaker opens a breaker by failures in a row, and lets one trial through after its pause, which doubles.
func TestBreaker(t *testing.T) {
	now := time.Now()
	e := &endpoint{cluster: &cluster{}, limit: 100, maximum: 256}
	for range trips - 1 {
		e.failed(now, "x")
	}
	e.succeeded(now)
	for range trips - 1 {
		e.failed(now, "x")
	}
	if !e.allows(now) {
		t.Fatal("open, though there were not so many failures in a row")
	}
	for pause := shortestPause; pause <= longestPause; pause = min(2*pause, longestPause) + 1 {
		e.failed(now, "x")
		if at := e.until.Sub(now); e.breaker != open || at < min(pause, longestPause)/2-1 || at > pause || e.allows(now) || e.allows(e.until.Add(-1)) {
			t.Fatalf("it stands %d for %s, want half of %s to all of it", e.breaker, at, pause)
		}
		now = e.until
		if !e.allows(now) || !e.room(now, 1) {
			t.Fatal("no trial after the pause")
		}
		e.admit(&job{item: &spool.Item{Envelope: &spool.Envelope{}}})
		if e.allows(now) {
			t.Fatal("two trials at a time")
		}
		e.queue.pop()
	}
	e.succeeded(now)
	if !e.allows(now) || e.cluster.share(now) != leastShare {
		t.Errorf("after a trial that succeeded it gets %v, want a slow start", e.cluster.share(now))
	}
}

// TestLimit has answers that take longer and longer.
func TestLimit(t *testing.T) {
	now := time.Now()
	e := &endpoint{cluster: &cluster{}, limit: firstLimit, maximum: 256}
	for range 20_000 {
		e.inFlight = int(e.limit)
		now = now.Add(time.Millisecond)
		e.answered(now, 10*time.Millisecond)
	}
	if got := e.bound(now); got != 256 {
		t.Errorf("got a limit of %d while all goes well, want the cluster's 256", got)
	}
	for range 200 {
		now = now.Add(time.Second)
		e.answered(now, 500*time.Millisecond)
		if e.lowestAt = now; e.limit == leastLimit {
			break
		}
	}
	if e.limit != leastLimit {
		t.Errorf("got %v while answers take fifty times as long, want %d", e.limit, leastLimit)
	}
}

// TestBudget spends all at once, and then at its rate.
func TestBudget(t *testing.T) {
	var b budget
	now, spent := time.Now(), 0
	for range 1000 {
		if b.take(now) {
			spent++
		}
	}
	for range 100 {
		if now = now.Add(10 * time.Millisecond); b.take(now) {
			spent++
		}
	}
	if want := budgetBurst + budgetRate; math.Abs(float64(spent)-want) > 1 {
		t.Errorf("%d in a second, want %v", spent, want)
	}
	for range 1000 {
		if d := delay(3); d > 8*firstDelay+time.Millisecond || d <= 0 {
			t.Fatalf("got a delay of %s", d)
		}
	}
}

// TestSlowStart has a cluster come back in virtual time: its part of the envelopes grows from a twentieth to all in twenty seconds.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		came := map[string]int{}
		var serving sync.WaitGroup
		dial := func(_ context.Context, _, address string) (net.Conn, error) {
			near, far := net.Pipe()
			serving.Go(func() {
				defer far.Close()
				r := bufio.NewReader(far)
				for {
					request, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, request.Body)
					mu.Lock()
					came[address]++
					mu.Unlock()
					if _, err := io.WriteString(far, yes); err != nil {
						return
					}
				}
			})
			return near, nil
		}
		snap := snapshotOf(map[string]string{"ap": "http://ap:80", "eu": "http://eu:80"}, nil)
		down := health.Verdicts{{Kind: health.Cluster, Name: "ap"}: {Status: health.Down}}
		var verdicts health.Verdicts = down
		s := &steady{items: make(chan *spool.Item)}
		f := New(Config{
			Name: "sin1", Snapshot: func() *topology.Snapshot { return snap }, Model: rtt.Default(), Spool: s, ClusterToken: func(string) string { return "" }, Dial: dial,
			Verdicts: func() health.Verdicts { mu.Lock(); defer mu.Unlock(); return verdicts },
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { f.Run(ctx) })
		share := func() float64 { // over a second
			mu.Lock()
			clear(came)
			mu.Unlock()
			for range 200 {
				s.items <- &spool.Item{Envelope: &spool.Envelope{ID: "x", Service: service, Received: time.Now(), Body: []byte("b")}}
				time.Sleep(5 * time.Millisecond) // virtual: the clients' pace
			}
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return float64(came["ap:80"]) / 200
		}
		if got := share(); got != 0 {
			t.Errorf("%v while it is down", got)
		}
		mu.Lock()
		verdicts = nil
		mu.Unlock()
		var told []string
		for second := range 24 {
			want := min(1, leastShare+(1-leastShare)*(float64(second)+0.45)/20)
			got := share()
			told = append(told, fmt.Sprintf("%.2f", got))
			if math.Abs(got-want) > 0.06 {
				t.Errorf("%d s after it came back it gets %.2f, want %.2f", second, got, want)
			}
		}
		t.Log(strings.Join(told, " "))
		cancel()
		running.Wait()
		serving.Wait()
	})
}

// steady is a spool that gives what it is given.
type steady struct{ items chan *spool.Item }

func (s *steady) Next(ctx context.Context) (*spool.Item, error) {
	select {
	case item := <-s.items:
		return item, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (s *steady) Delivered(*spool.Item, string)  {}
func (s *steady) Return(*spool.Item)             {}
func (s *steady) Bury(*spool.Item, string) error { return nil }
