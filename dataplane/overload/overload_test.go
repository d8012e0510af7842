package overload

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server does one thing after the other, in virtual time.
type server struct {
	*Overload
	work    chan *job
	each    time.Duration
	longest atomic.Int64
	done    atomic.Int64
}

type job struct {
	ticket Ticket
	came   time.Time
}

func serve(t *testing.T, each time.Duration) *server {
	s := &server{Overload: New(Options{}), work: make(chan *job, 100_000), each: each}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	running.Go(func() {
		for j := range s.work {
			time.Sleep(s.each)
			waited := time.Since(j.came)
			s.Leave(&j.ticket, waited)
			s.longest.Store(max(s.longest.Load(), int64(waited)))
			s.done.Add(1)
		}
	})
	t.Cleanup(func() {
		cancel()
		close(s.work)
		running.Wait()
	})
	return s
}

// offer has so many requests come in a second, and returns how many were refused.
func (s *server) offer(long time.Duration, perSecond float64) (refused int) {
	random := rand.New(rand.NewPCG(1, 2))
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(time.Duration(random.ExpFloat64() / perSecond * float64(time.Second))) {
		ticket, ok := s.Enter()
		if !ok {
			refused++
			continue
		}
		s.Received(&ticket)
		s.work <- &job{ticket, time.Now()}
	}
	return refused
}

// TestHoldsThePeak offers three times what can be done, after nothing and after a calm, and wants all the time used, a queue of the length
// that is wanted, and nobody refused before and after.
func TestHoldsThePeak(t *testing.T) {
	for _, perSecond := range []int{2_000, 10_000, 40_000} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, time.Second/time.Duration(perSecond))
			if refused := s.offer(5*time.Second, 0.7*float64(perSecond)); refused > 0 {
				t.Errorf("%d a second: %d refused in calm", perSecond, refused)
			}
			before := s.done.Load()
			refused := s.offer(5*time.Second, 3*float64(perSecond))
			if done := int(s.done.Load() - before); float64(done) < 0.95*5*float64(perSecond) || refused < done {
				t.Errorf("%d a second: %d done in 5 s, %d refused", perSecond, done, refused)
			}
			atMost := max(150*time.Millisecond, time.Duration(1.5*atLeast*float64(runtime.GOMAXPROCS(0))/float64(perSecond)*float64(time.Second)))
			if longest := time.Duration(s.longest.Load()); longest > atMost {
				t.Errorf("%d a second: one waited for %v", perSecond, longest)
			}
			load := s.Load()
			if load.CapacityPerSecond < 0.9*float64(perSecond) || load.CapacityPerSecond > 1.2*float64(perSecond) || load.ShedShare < 0.5 ||
				load.AcceptedPerSecond+load.ShedPerSecond < 0.9*load.RequestsPerSecond {
				t.Errorf("%d a second: the load is %+v", perSecond, load)
			}
			s.offer(time.Second, 0.5*float64(perSecond))
			if refused := s.offer(5*time.Second, 0.7*float64(perSecond)); refused > 0 || s.ShedShare() > 0 {
				t.Errorf("%d a second: %d refused after it, share %v", perSecond, refused, s.ShedShare())
			}
		})
	}
}

// TestSlowBodiesTakeNoPlaces has a client begin many requests whose bodies do not come, as often as it can.
func TestSlowBodiesTakeNoPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, time.Millisecond)
		s.offer(time.Second, 500)
		var slow []Ticket
		for range 20 * atLeast * runtime.GOMAXPROCS(0) {
			if ticket, ok := s.Enter(); ok {
				slow = append(slow, ticket)
			}
		}
		if _, ok := s.Enter(); ok || len(slow) == 0 {
			t.Fatalf("%d were let in, and there is room", len(slow))
		}
		time.Sleep(time.Second)
		if refused := s.offer(5*time.Second, 500); refused > 0 {
			t.Errorf("%d were refused because of those who send slowly", refused)
		}
		for i := range slow { // after their epochs are used again
			if i%2 == 0 {
				s.Received(&slow[i])
				s.Leave(&slow[i], 0)
			} else {
				s.Drop(&slow[i])
			}
		}
		synctest.Wait()
		if n := s.inside(); n != 0 {
			t.Errorf("%d are inside when all have left", n)
		}
	})
}

// TestTurns has connections wait, and wants them heard no faster than refusals may be made while there is no room, and at once
// when there is.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, time.Millisecond)
		var full []Ticket
		hold := func() {
			for {
				ticket, ok := s.Enter()
				if !ok {
					return
				}
				s.Received(&ticket)
				full = append(full, ticket)
			}
		}
		hold()
		began, perSecond := time.Now(), refusalsPerCore*runtime.GOMAXPROCS(0)
		gone := make(chan struct{})
		close(gone)
		refuse := func(cheap bool) Refusal {
			_, r, ok := s.Ask(cheap, new(Told), gone, nil)
			if ok {
				t.Fatal("there is room")
			}
			return r
		}
		var group sync.WaitGroup
		for range perSecond {
			r := refuse(true)
			if r.RetryAfter < time.Second || r.RetryAfter > 10*time.Second {
				t.Errorf("got %+v", r)
			}
			group.Go(func() { s.Await(r.Turn, nil, nil) })
		}
		group.Wait()
		if took := time.Since(began); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("a second's worth of refusals took %v", took)
		}
		far := refuse(true).Turn
		for range 100 * perSecond {
			far = refuse(false).Turn
		}
		ended := make(chan struct{})
		group.Go(func() { s.Await(far, ended, nil) })
		synctest.Wait()
		close(ended)
		group.Wait()
		if n := s.turns.waiting.Load(); n != 0 || len(s.turns.heap) != 0 {
			t.Errorf("%d wait, whose connections have ended", n)
		}
		began = time.Now()
		group.Go(func() { s.Await(far, nil, nil) })
		synctest.Wait()
		for i := range full {
			s.Leave(&full[i], 0)
		}
		if group.Wait(); time.Since(began) > 0 {
			t.Errorf("there is room, and one waited for %v", time.Since(began))
		}
		hold()
		if s.Await(far, nil, nil); time.Since(began) > maxPause {
			t.Errorf("one waited for %v", time.Since(began))
		}
	})
}

// TestObedientClients has clients that are silent for as long as they are told, and together want three times what can be done: most of it is done
// (0.13 of it if none waited for room).
func TestObedientClients(t *testing.T) {
	for _, clients := range []int{64, 300} {
		synctest.Test(t, func(t *testing.T) {
			const perSecond = 3_000
			s := serve(t, time.Second/perSecond)
			s.offer(3*time.Second, 0.7*perSecond)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			var refused, late atomic.Int64
			for i := range clients {
				random, told := rand.New(rand.NewPCG(1, uint64(i))), new(Told)
				var silent atomic.Int64 // until when, in nanoseconds since began
				began := time.Now()
				all.Go(func() {
					for ctx.Err() == nil {
						time.Sleep(time.Duration(random.ExpFloat64() * float64(clients) / (3 * perSecond) * float64(time.Second)))
						if time.Since(began) < time.Duration(silent.Load()) {
							continue
						}
						all.Go(func() {
							asked := time.Now()
							ticket, why, ok := s.Ask(true, told, nil, nil)
							if took := time.Since(asked); took > maxHold {
								late.Add(1)
							}
							if ok {
								s.Received(&ticket)
								s.work <- &job{ticket, time.Now()}
								return
							}
							refused.Add(1)
							time.Sleep(20 * time.Millisecond) // to the client
							silent.Store(int64(time.Since(began) + why.RetryAfter))
						})
					}
				})
			}
			time.Sleep(time.Second)
			before := s.done.Load()
			time.Sleep(4 * time.Second)
			done := float64(s.done.Load()-before) / (4 * perSecond)
			cancel()
			all.Wait()
			t.Logf("%d clients: %.2f of what can be done, %d refused", clients, done, refused.Load())
			if done < 0.7 || refused.Load() == 0 || late.Load() > 0 {
				t.Errorf("%d clients: %.2f of what can be done was done, %d were refused, %d waited for too long", clients, done, refused.Load(), late.Load())
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		share, random float64
		want          time.Duration
	}{{0, 0.99, time.Second}, {0.6, 0, time.Second}, {0.5, 0.99, 3 * time.Second}, {0.95, 0.999, 5 * time.Second}} {
		if got := retryAfter(test.share, test.random); got != test.want {
			t.Errorf("%v: got %v", test, got)
		}
	}
}

// TestBusyIsSeen has goroutines wait for a processor, and wants that seen, and the delay in the load; and nothing after it.
func TestBusyIsSeen(t *testing.T) {
	o := New(Options{Busy: time.Millisecond, Interval: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- o.Run(ctx) }()
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 2000 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for range 2000 {
					rand.Uint64()
				}
				runtime.Gosched()
			}
		})
	}
	await(t, o.Busy)
	await(t, func() bool { l := o.Load(); return l.CPU > 0 && l.QueueDelay > 0 })
	close(stop)
	group.Wait()
	await(t, func() bool { return !o.Busy() })
	cancel()
	<-ran
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not come true")
		}
	}
}

func TestNoAllocation(t *testing.T) {
	o, told := New(Options{}), new(Told)
	if n := testing.AllocsPerRun(100, func() {
		ticket, _ := o.Enter()
		o.Received(&ticket)
		o.Leave(&ticket, time.Millisecond)
		o.Ask(true, told, nil, nil)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEnterAndLeave(b *testing.B) {
	o := New(Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if ticket, ok := o.Enter(); ok {
				o.Received(&ticket)
				o.Leave(&ticket, time.Microsecond)
			}
		}
	})
}

func BenchmarkLook(b *testing.B) {
	var w schedulerWaits
	w.late()
	b.ReportAllocs()
	for b.Loop() {
		w.late()
	}
}
