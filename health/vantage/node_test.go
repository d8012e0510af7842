package vantage

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var x = health.Target{Kind: health.PoP, Name: "x"}

// rig is a node, and what it has done.
type rig struct {
	*Node
	stop func() // and wait until it has

	mu      sync.Mutex
	probes  map[health.Target][]time.Time
	dead    map[health.Target]bool
	reports []*health.Report
	nearby  [][]string
	verdict health.Judgement
}

// start starts a node in a bubble. The config may be changed before.
func start(t *testing.T, name string, targets []health.Target, change func(*Config)) *rig {
	r := &rig{probes: map[health.Target][]time.Time{}, dead: map[health.Target]bool{}}
	c := Config{
		Vantage: health.Vantage{Name: name}, Targets: func() []health.Target { return targets },
		Probe: func(ctx context.Context, of health.Target) health.Observation {
			r.mu.Lock()
			r.probes[of] = append(r.probes[of], time.Now())
			dead := r.dead[of]
			r.mu.Unlock()
			if dead {
				<-ctx.Done()
				return health.Observation{Reason: "no answer"}
			}
			time.Sleep(20 * time.Millisecond)
			return health.Observation{OK: true, Took: 20 * time.Millisecond}
		},
		Publish: func(said *health.Report, nearby []string, _ bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reports, r.nearby = append(r.reports, said), append(r.nearby, nearby)
		},
		Judged: func(j health.Judgement) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.verdict = j
		},
	}
	if change != nil {
		change(&c)
	}
	r.Node = New(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Run(ctx)
	}()
	r.stop = func() {
		cancel()
		<-ended
	}
	return r
}

func (r *rig) set(of health.Target, dead bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead[of] = dead
}

// probed is how often a target was probed since some time.
func (r *rig) probed(of health.Target, since time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.probes[of] {
		if !at.Before(since) {
			n++
		}
	}
	return n
}

// last is the report that was made last.
func (r *rig) last() health.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.reports[len(r.reports)-1]
}

func (r *rig) status(of health.Target) health.Status { return r.Judgement().Verdicts[of].Status }

// saying is a report of another vantage.
func saying(vantage string, sequence uint64, of health.Target, status health.Status, failures int) *health.Report {
	return &health.Report{
		Vantage: health.Vantage{Name: vantage}, Incarnation: 1, Sequence: sequence, Full: true,
		Statements: []health.Statement{{Target: of, Status: status, Failures: failures}},
	}
}

// crowd has n others say that a target is up.
func (r *rig) crowd(n int, of health.Target) {
	for i := range n {
		r.Hear(saying(fmt.Sprint("dns:o", i), 1, of, health.Up, 0), true)
	}
}

func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		time.Sleep(10 * time.Second)
		if got := r.probed(x, time.Time{}); got < 9 || got > 12 {
			t.Errorf("probed %d times in 10 s, want once a second", got)
		}
		if r.status(x) != health.Up || r.Alone() {
			t.Errorf("%s, alone %v: want up, and not alone, since nobody else is known", r.status(x), r.Alone())
		}
		r.set(x, true)
		time.Sleep(3 * time.Second)
		if r.status(x) != health.Down {
			t.Errorf("%+v, want down", r.Judgement())
		}
		r.set(x, false)
		time.Sleep(3 * time.Second)
		if v := r.Judgement().Verdicts[x]; v.Status != health.Up || v.Recovered.IsZero() {
			t.Errorf("%+v, want up again", v)
		}
	})
}

// TestSaysOfItself holds that what a node says of itself is told once, at once, and that it is in each report from then on.
func TestSaysOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var serves atomic.Value
		serves.Store("192.0.2.53:53")
		r := start(t, "dns:a", []health.Target{x}, func(c *Config) { c.Describe = func(r *health.Report) { r.Serves = serves.Load().(string) } })
		defer r.stop()
		time.Sleep(5 * time.Second)
		last := func() (*health.Report, int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.reports[len(r.reports)-1], len(r.reports)
		}
		_, before := last()
		for range 2 {
			r.Degrade("no cluster can be reached")
			r.Shed(true)
			r.Host([]health.Hosted{{PoP: "b", Degraded: "its spool is full"}})
		}
		said, after := last()
		if after != before+3 || said.Self.Degraded != "no cluster can be reached" || !said.Self.Shedding || len(said.Hosts) != 1 || said.Serves != serves.Load() {
			t.Errorf("told %d times: %+v", after-before, said)
		}
		serves.Store("")
		r.Say()
		if said, _ := last(); said.Serves != "" || said.Self.Degraded == "" {
			t.Errorf("got %+v", said)
		}
		if s, ok := r.Sees(x); !ok || s.Status != health.Up {
			t.Errorf("it sees %+v, %v", s, ok)
		}
	})
}

// TestBurst has a liar raise suspicions every 100 ms, and say that it has seen two failures: the target is looked at for it twice in ten seconds.
// Others are heard besides.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		r.crowd(6, x)
		time.Sleep(time.Minute)
		calm := r.probed(x, time.Time{})
		began := time.Now()
		before := r.Counts().Bursts
		for i := range uint64(600) {
			r.Hear(saying("dns:o1", 2+i, x, []health.Status{health.Up, health.Down}[i%2], int(i/2%2)), true)
			time.Sleep(100 * time.Millisecond)
		}
		if got := r.Counts().Bursts - before; got < 6 || got > 2*6 {
			t.Errorf("%d bursts in a minute because of one liar, want 6 to 12", got)
		}
		if got := r.probed(x, began); got > calm+2*2*6+2 {
			t.Errorf("%d probes in a minute, %d in calm", got, calm)
		}
		if r.status(x) != health.Up {
			t.Errorf("%s, want up", r.status(x))
		}
		r.Hear(saying("dns:o1", 1000, x, health.Down, 2), true)
		time.Sleep(2 * time.Second)
		before = r.Counts().Bursts
		r.Hear(saying("dns:o2", 2, x, health.Up, 1), true)
		r.Hear(saying("dns:o3", 2, x, health.Up, 1), true)
		time.Sleep(time.Second)
		if got := r.Counts().Bursts - before; got < 1 || got > 2 {
			t.Errorf("%d bursts because of others, want 1 or 2", got)
		}
	})
}

// TestSuspicion has one hear at once of what another one suspects, and look.
func TestSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		r.crowd(6, x)
		time.Sleep(30 * time.Second)
		r.set(x, true)
		at := time.Now()
		r.Hear(saying("dns:o0", 2, x, health.Up, 1), false)
		time.Sleep(150 * time.Millisecond)
		if got := r.probed(x, at); got != 2 {
			t.Errorf("%d probes at once, want 2", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		last := r.reports[len(r.reports)-1]
		if s := last.Statements[0]; s.Status != health.Down || len(r.nearby[len(r.nearby)-1]) != 6 {
			t.Errorf("after a second it says %+v to %v, want down to six others", s, r.nearby[len(r.nearby)-1])
		}
	})
}

// TestPassive has clients' requests fail a thousand times a second: that makes no storm of probes, and no verdict.
func TestPassive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "pop:a", []health.Target{x}, nil)
		defer r.stop()
		time.Sleep(20 * time.Second)
		at := time.Now()
		for range 20_000 {
			r.Observe(health.Observation{Target: x, Reason: "503"})
			time.Sleep(time.Millisecond)
		}
		if got := r.probed(x, at); got > 20+4+2 {
			t.Errorf("%d probes in 20 s", got)
		}
		if r.status(x) != health.Up {
			t.Errorf("%s, want up: probes are answered", r.status(x))
		}
	})
}

// TestAlive holds who counts: by the store while it can be read, and for five seconds after a sign of life.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		heard := func(want int) {
			t.Helper()
			time.Sleep(600 * time.Millisecond)
			if got := len(r.Reports()) - 1; got != want {
				t.Errorf("%d others are heard, want %d", got, want)
			}
		}
		r.Hear(saying("dns:b", 1, x, health.Down, 2), true)
		r.Hear(saying("dns:c", 1, x, health.Down, 2), false)
		r.Sign("dns:nobody", time.Now())
		heard(2)
		if r.status(x) != health.Down {
			t.Errorf("%s, want down by the others", r.status(x))
		}
		time.Sleep(DirectPatience)
		heard(1)
		r.Sign("dns:c", time.Now())
		heard(2)
		r.Store(false)
		heard(1)
		for range 10 {
			r.Sign("dns:b", time.Now())
			time.Sleep(time.Second)
		}
		heard(1)
		time.Sleep(DirectPatience)
		heard(0)
		if !r.Alone() {
			t.Error("it hears nobody of two that there are")
		}
		time.Sleep(2 * time.Second)
		if r.status(x) != health.Up {
			t.Errorf("%s, want up by its own eyes", r.status(x))
		}
		r.Store(true)
		heard(1)
		r.Gone("dns:b")
		heard(0)
		r.Forget("dns:b")
		r.Forget("dns:c")
		if r.Alone() {
			t.Error("it is alone without others")
		}
	})
}

// TestLocalView cuts a node off from everything: it leaves verdicts as they are. When it sees the others, it takes down the one that is dead.
func TestLocalView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var targets []health.Target
		for i := range 9 {
			targets = append(targets, health.Target{Kind: health.PoP, Name: fmt.Sprint(i)})
		}
		r := start(t, "dns:a", targets, nil)
		defer r.stop()
		r.crowd(2, x)
		time.Sleep(10 * time.Second)
		r.Store(false)
		r.set(targets[0], true)
		at := time.Now()
		time.Sleep(10 * time.Second)
		if r.status(targets[0]) != health.Down || r.status(targets[1]) != health.Up {
			t.Errorf("%s and %s 10 s after, want down and up", r.status(targets[0]), r.status(targets[1]))
		}
		if got := r.probed(targets[1], at); got < 8 {
			t.Errorf("probed %d times in 10 s", got)
		}
		for _, of := range targets {
			r.set(of, true)
		}
		time.Sleep(time.Minute)
		for _, of := range targets[1:] {
			if r.status(of) != health.Up {
				t.Errorf("%v is %s by a node that is cut off", of, r.status(of))
			}
		}
	})
}

// TestSilent has vantages come and go under names that are never used again.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", nil, func(c *Config) { c.Known = []health.Vantage{{Name: "dns:before"}} })
		defer r.stop()
		r.Hear(saying("dns:stays", 1, x, health.Up, 0), true)
		for i := range 3 {
			r.Hear(saying(fmt.Sprint("dns:", i), 1, x, health.Up, 0), true)
			r.Gone(fmt.Sprint("dns:", i))
		}
		known := func(want int, when string) {
			t.Helper()
			if got := len(r.Known()); got != want {
				t.Errorf("%s: %d are known, want %d", when, got, want)
			}
		}
		time.Sleep(SilentPatience - time.Minute)
		known(5, "before their time has ended")
		r.Store(false)
		time.Sleep(2 * time.Minute)
		known(5, "while the store is away")
		r.Store(true)
		time.Sleep(2 * time.Second)
		known(1, "in the end")
		if got := r.Known(); len(got) != 1 || got[0].Name != "dns:stays" {
			t.Errorf("got %v, want the one that is alive", got)
		}
	})
}

// TestMaxKnown has more vantages come than a node knows: the silent ones give way, and others not.
func TestMaxKnown(t *testing.T) {
	n := New(Config{Vantage: health.Vantage{Name: "dns:a"}, Targets: func() []health.Target { return nil }})
	for i := range maxKnown {
		n.known[fmt.Sprint(i)] = health.Vantage{Name: fmt.Sprint(i)}
		n.signs[fmt.Sprint(i)] = &signs{stored: true}
	}
	n.signs["7"] = &signs{silent: time.Now().Add(-time.Minute)}
	n.signs["8"] = &signs{silent: time.Now()}
	for _, test := range []struct {
		name  string
		known bool
		gone  string
	}{{"new", true, "7"}, {"newer", true, "8"}, {"newest", false, ""}, {"new", true, ""}} {
		n.Hear(saying(test.name, 1, x, health.Up, 0), true)
		if _, known := n.known[test.name]; known != test.known || len(n.known) != maxKnown {
			t.Errorf("%s: known %v, want %v; %d in all", test.name, known, test.known, len(n.known))
		}
		if _, there := n.known[test.gone]; there {
			t.Errorf("%s has not given way to %s", test.gone, test.name)
		}
	}
}

// TestReplayKeepsNobodyAlive plays old reports again of a vantage that is dead.
func TestReplayKeepsNobodyAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", nil, nil)
		defer r.stop()
		r.Hear(saying("dns:b", 9, x, health.Up, 0), false)
		for i := range uint64(10) {
			time.Sleep(time.Second)
			r.Hear(saying("dns:b", i, x, health.Up, 0), false)
		}
		if got := len(r.Reports()); got != 1 {
			t.Error("an old report keeps a dead vantage alive")
		}
	})
}

// TestClockSetBack has a vantage begin anew by a clock that was set back: it is heard, once the store says that it was away.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		says := func(incarnation int64, stored bool) {
			said := saying("dns:b", 1, x, health.Up, 0)
			said.Incarnation = incarnation
			r.Hear(said, stored)
		}
		heard := func(want int64) {
			t.Helper()
			time.Sleep(time.Second)
			for _, said := range r.Reports() {
				if said.Name == "dns:b" && said.Incarnation != want {
					t.Errorf("incarnation %d counts, want %d", said.Incarnation, want)
				}
			}
		}
		says(5, true)
		says(4, true)
		says(4, false)
		heard(5)
		r.Gone("dns:b")
		time.Sleep(DirectPatience)
		says(2, true)
		heard(2)
	})
}

// TestNamesake has two processes of one name write to one store, beside a predecessor's last report, which is no such thing.
func TestNamesake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		nodes, waiting := map[string]*rig{}, map[string][]*health.Report{}
		writes := 0
		write := func(r *health.Report, _ []string, lasting bool) { // it comes back to both
			mu.Lock()
			defer mu.Unlock()
			if lasting {
				writes++
				waiting["one"], waiting["two"] = append(waiting["one"], r), append(waiting["two"], r)
			}
		}
		deliver := func(name string) {
			mu.Lock()
			come, to := waiting[name], nodes[name]
			waiting[name] = nil
			mu.Unlock()
			for _, r := range come {
				to.Hear(r, true)
			}
		}
		begin := func(name string) {
			r := start(t, "dns:a", []health.Target{x}, func(c *Config) { c.Publish = write })
			nodes[name] = r
		}
		begin("one")
		defer nodes["one"].stop()
		before := saying("dns:a", 1, x, health.Up, 0)
		nodes["one"].Hear(before, true)
		for range 60 {
			time.Sleep(time.Second)
			deliver("one")
		}
		if nodes["one"].Namesake() {
			t.Error("a predecessor is taken for one that runs")
		}
		begin("two")
		stop := nodes["two"].stop
		mu.Lock()
		writes = 0
		clear(waiting)
		mu.Unlock()
		for range 60 {
			time.Sleep(time.Second)
			deliver("one")
			deliver("two")
		}
		if !nodes["one"].Namesake() || !nodes["two"].Namesake() {
			t.Errorf("%v and %v, want both to know", nodes["one"].Namesake(), nodes["two"].Namesake())
		}
		mu.Lock()
		if writes < 5 || writes > 40 {
			t.Errorf("%d reports in a minute", writes)
		}
		mu.Unlock()
		stop()
		time.Sleep(2 * namesakePatience)
		if nodes["one"].Namesake() {
			t.Error("it is not forgotten when it has ended")
		}
	})
}

// TestReplaced has somebody put an old report of a node into the store in place of its newest: the node puts its own back, and does so for no other
// reason.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		time.Sleep(time.Minute)
		last := r.last()
		r.Hear(&last, true)
		said := r.Counts().Reports
		time.Sleep(time.Minute)
		if n := r.Counts().Reports; n != said {
			t.Errorf("%d reports of which nobody put an old one there", n-said)
		}
		old := last
		old.Sequence--
		r.Hear(&old, true)
		time.Sleep(2 * insistence)
		if r.Counts().Reports != said+1 || r.last().Sequence <= last.Sequence {
			t.Errorf("%d reports after an old one was put there, want one", r.Counts().Reports-said)
		}
	})
}

// TestOutlive has a node run after one of its name whose clock was ahead.
func TestOutlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, "dns:a", []health.Target{x}, nil)
		defer r.stop()
		ahead := time.Now().Add(time.Hour).UnixNano()
		for i := range int64(2) {
			r.Hear(&health.Report{Vantage: health.Vantage{Name: "dns:a"}, Incarnation: ahead + 10*i}, true)
		}
		time.Sleep(time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if got := r.reports[len(r.reports)-1].Incarnation; got != ahead+1 {
			t.Errorf("incarnation %d, want %d: one more than that before, once", got, ahead+1)
		}
	})
}

// TestStoreAway has the store go away from a PoP that hears one DNS node: it does not look at everything.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var targets []health.Target
		for i := range 20 {
			targets = append(targets, health.Target{Kind: health.PoP, Name: fmt.Sprint(i)})
		}
		r := start(t, "pop:a", targets, nil)
		defer r.stop()
		r.crowd(40, x)
		time.Sleep(30 * time.Second)
		r.Store(false)
		before := r.Counts().Probes
		for range 30 {
			r.Sign("dns:o0", time.Now())
			time.Sleep(time.Second)
		}
		if got := r.Counts().Probes - before; got > 30*20*7/41*2 {
			t.Errorf("%d probes in 30 s, want about %d: targets are shared out as before", got, 30*20/41)
		}
	})
}
