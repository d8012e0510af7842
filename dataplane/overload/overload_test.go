package overload

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a server in virtual time: work comes at a rate, the share that is shed costs a part of what work costs.
type queue struct {
	control controller
	share   float64
	backlog float64 // seconds of work
}

// run lets work come for some intervals of 50 ms at a multiple of what can be done, and returns what was let in, in seconds of
// work for each second, and the longest wait.
func (q *queue) run(random *rand.Rand, intervals int, offered, refusalCost float64) (accepted float64, longest time.Duration) {
	const interval = 0.05
	for range intervals {
		came := offered * interval * (0.8 + 0.4*random.Float64())
		in := came * (1 - q.share)
		accepted += in
		q.backlog = max(0, q.backlog+in+min((came-in)*refusalCost, 0.05*interval)-interval)
		delay := time.Duration(q.backlog * float64(time.Second))
		longest = max(longest, delay)
		q.share = q.control.look(delay, 50*time.Millisecond)
	}
	return accepted / (float64(intervals) * interval), longest
}

// TestControllerHoldsThePeak offers random loads and wants of each that the server is busy, the queue short, and nothing is shed
// that could have been done.
func TestControllerHoldsThePeak(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		offered := 0.3 + 4*random.Float64()
		var q queue
		q.run(random, 150, offered, 0.5) // to settle
		accepted, longest := q.run(random, 500, offered, 0.5)
		switch {
		case offered < 0.8 && accepted < 0.99*offered*0.99:
			t.Errorf("seed %d: %.2f of the capacity offered, but %.2f let in", seed, offered, accepted)
		case offered > 1.1 && accepted < 0.9:
			t.Errorf("seed %d: %.2f times the capacity offered, and only %.2f let in", seed, offered, accepted)
		case longest > 600*time.Millisecond:
			t.Errorf("seed %d: %.2f times the capacity offered, and the queue grew to %v", seed, offered, longest)
		}
		if q.run(random, 150, 0.2, 0.5); q.share != 0 {
			t.Errorf("seed %d: seven seconds after the overload %.3f is shed", seed, q.share)
		}
	}
}

func TestBurstIsLetIn(t *testing.T) {
	var c controller
	for range burst - 1 {
		if share := c.look(time.Second, 15*time.Millisecond); share != 0 {
			t.Fatalf("a burst is shed: %v", share)
		}
	}
	if share := c.look(time.Second, 15*time.Millisecond); share == 0 {
		t.Error("a delay that stays sheds nothing")
	}
}

func TestRefusalsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := New(Options{})
		o.gap = time.Millisecond
		began := time.Now()
		var group sync.WaitGroup
		for range 500 {
			group.Go(func() {
				if r := o.Refuse(t.Context()); r.Reset || r.RetryAfter < time.Second {
					t.Errorf("got %+v", r)
				}
			})
		}
		group.Wait()
		if took := time.Since(began); took < 499*time.Millisecond || took > 510*time.Millisecond {
			t.Errorf("500 refusals took %v", took)
		}
		time.Sleep(time.Minute)
		began = time.Now()
		if o.Refuse(t.Context()); time.Since(began) > 0 {
			t.Error("a single refusal is held back")
		}
		for range 20_000 {
			group.Go(func() { o.Refuse(t.Context()) })
		}
		group.Wait()
		if took := time.Since(began); took > maxHold+time.Millisecond {
			t.Errorf("a refusal was held back for %v", took)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		share, random float64
		want          time.Duration
	}{{0, 0.99, time.Second}, {0.6, 0, time.Second}, {0.5, 0.99, 6 * time.Second}, {0.95, 0.999, 10 * time.Second}} {
		if got := retryAfter(test.share, test.random); got != test.want {
			t.Errorf("%v: got %v", test, got)
		}
	}
}

// TestBusyIsSeen has goroutines wait for a processor, and wants the delay in the load and a share shed; and nothing shed after it.
func TestBusyIsSeen(t *testing.T) {
	o := New(Options{Target: time.Millisecond, Interval: 5 * time.Millisecond})
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
	await(t, func() bool { return o.ShedShare() > 0.2 && !o.Enter() })
	close(stop)
	group.Wait()
	await(t, func() bool { return o.ShedShare() == 0 })
	await(t, func() bool { l := o.Load(); return l.CPU > 0 })
	cancel()
	<-ran
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(time.Millisecond), time.After(10*time.Second)
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
	o := New(Options{})
	if n := testing.AllocsPerRun(100, func() { o.Enter(); o.Leave(time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEnterAndLeave(b *testing.B) {
	o := New(Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if o.Enter() {
				o.Leave(time.Microsecond)
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
