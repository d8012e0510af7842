package vantage

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is some nodes that hear each other after a while, by a store and directly.
type world struct {
	mu    sync.Mutex
	nodes map[string]*Node
	dead  map[health.Target]bool
	store bool
	probe map[health.Target]int
}

func (w *world) kill(dead bool, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		w.dead[health.Target{Kind: health.PoP, Name: name}] = dead
	}
}

func (w *world) carry(after time.Duration, r *health.Report, stored bool) {
	text := r.Append(nil, 0, time.Now())
	time.AfterFunc(after, func() {
		w.mu.Lock()
		there := w.store
		nodes := w.nodes
		w.mu.Unlock()
		for name, n := range nodes {
			if got, err := health.DecodeReport(text, time.Now()); name != r.Name && (there || !stored) && err == nil {
				n.Hear(got, stored)
			}
		}
	})
}

// start runs nodes that look at targets, in a bubble, and then a test.
func start(t *testing.T, names, targets []string, direct bool, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{nodes: map[string]*Node{}, dead: map[health.Target]bool{}, probe: map[health.Target]int{}, store: true}
		var all []health.Target
		for _, name := range targets {
			all = append(all, health.Target{Kind: health.PoP, Name: name})
		}
		for i, name := range names {
			offset := time.Duration(i) * time.Minute
			w.nodes[name] = New(Config{
				Vantage: health.Vantage{Name: name}, Targets: func() []health.Target { return append([]health.Target(nil), all...) },
				Clock: func() time.Time { return time.Now().Add(offset) },
				Probe: func(ctx context.Context, t health.Target) health.Observation {
					w.mu.Lock()
					w.probe[t]++
					dead := w.dead[t]
					w.mu.Unlock()
					if dead {
						<-ctx.Done()
						return health.Observation{Code: health.Timeout, Reason: "no answer in time"}
					}
					time.Sleep(30 * time.Millisecond)
					return health.Observation{OK: true, Reason: "well", Took: 30 * time.Millisecond}
				},
				Publish: func(r *health.Report, _ []string, lasting bool) {
					if lasting {
						w.carry(100*time.Millisecond, r, true)
					}
					if direct {
						w.carry(20*time.Millisecond, r, false)
					}
				},
			})
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		for _, n := range w.nodes {
			running.Go(func() { _ = n.Run(ctx) })
		}
		running.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Second)
				for from := range w.nodes {
					for to, n := range w.nodes {
						if direct && from != to {
							n.Sign(from, time.Now())
						}
					}
				}
			}
		})
		time.Sleep(30 * time.Second)
		test(t, w)
		cancel()
		running.Wait()
		time.Sleep(time.Second) // reports on their way
	})
}

func (w *world) are(t *testing.T, name string, want health.Status) {
	t.Helper()
	synctest.Wait()
	for node, n := range w.nodes {
		if got := n.Judgement().Verdicts[health.Target{Kind: health.PoP, Name: name}]; got.Status != want {
			t.Errorf("%s holds %s to be %s (%s, %+v), want %s", node, name, got.Status, got.Reason, got.Votes, want)
		}
	}
}

// TestFailure kills a PoP, and lets it return: all nodes see it soon, and alike, though their clocks are minutes apart.
func TestFailure(t *testing.T) {
	start(t, []string{"pop:a", "pop:b", "dns:1", "dns:2", "control:x"}, []string{"a", "b", "c"}, true, func(t *testing.T, w *world) {
		w.are(t, "c", health.Up)
		w.kill(true, "c")
		time.Sleep(5 * time.Second)
		w.are(t, "c", health.Down)
		w.are(t, "a", health.Up)
		w.kill(false, "c")
		time.Sleep(8 * time.Second)
		w.are(t, "c", health.Up)
		for name, n := range w.nodes {
			if v := n.Judgement().Verdicts[health.Target{Kind: health.PoP, Name: "c"}]; v.Recovered.IsZero() {
				t.Errorf("%s does not know that it came back", name)
			}
		}
	})
}

// TestProbesInCalm wants one probe a second of each target, however many look.
func TestProbesInCalm(t *testing.T) {
	for _, nodes := range []int{1, 3, 20} {
		var names []string
		for i := range nodes {
			names = append(names, fmt.Sprintf("control:%d", i))
		}
		start(t, names, []string{"a", "b"}, true, func(t *testing.T, w *world) {
			a := health.Target{Kind: health.PoP, Name: "a"}
			w.mu.Lock()
			before := w.probe[a]
			w.mu.Unlock()
			time.Sleep(100 * time.Second)
			w.mu.Lock()
			defer w.mu.Unlock()
			if n := w.probe[a] - before; n < 90 || n > 110 {
				t.Errorf("%d nodes make %d probes in 100 s", nodes, n)
			}
		})
	}
}

// TestWithoutStore loses the store: with direct reports nodes go on to agree, and without each sees with its own eyes, but does not believe that all of
// the world is dead.
func TestWithoutStore(t *testing.T) {
	lose := func(w *world) {
		w.mu.Lock()
		w.store = false
		w.mu.Unlock()
		for _, n := range w.nodes {
			n.Store(false)
		}
		time.Sleep(10 * time.Second)
	}
	names, targets := []string{"dns:1", "dns:2", "control:x"}, []string{"a", "b", "c", "d"}
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct ", direct), func(t *testing.T) {
			start(t, names, targets, direct, func(t *testing.T, w *world) {
				lose(w)
				for name, n := range w.nodes {
					if n.Alone() == direct {
						t.Errorf("%s is alone: %v", name, n.Alone())
					}
				}
				w.kill(true, "a")
				time.Sleep(10 * time.Second)
				w.are(t, "a", health.Down)
				w.are(t, "b", health.Up)
				w.kill(true, targets...)
				time.Sleep(20 * time.Second)
				w.are(t, "b", map[bool]health.Status{true: health.Down, false: health.Up}[direct])
			})
		})
	}
}

// TestBurstsAreBounded has a vantage that changes its mind all the time.
func TestBurstsAreBounded(t *testing.T) {
	start(t, []string{"dns:1", "dns:2", "control:x"}, []string{"a"}, true, func(t *testing.T, w *world) {
		a := health.Target{Kind: health.PoP, Name: "a"}
		w.mu.Lock()
		before := w.probe[a]
		w.mu.Unlock()
		for i := range 600 {
			for _, n := range w.nodes {
				n.Hear(&health.Report{
					Vantage: health.Vantage{Name: "control:liar"}, Incarnation: 1, Sequence: uint64(i + 1), Full: true,
					Statements: []health.Statement{{Target: a, Status: []health.Status{health.Up, health.Down}[i%2], Since: time.Now(), Seen: time.Now()}},
				}, false)
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.mu.Lock()
		probes := w.probe[a] - before
		w.mu.Unlock()
		if most := 60 + 3*2*7; probes > most { // a minute of calm, and a burst of two in 10 s for each
			t.Errorf("%d probes in a minute, want at most %d", probes, most)
		}
		w.are(t, "a", health.Up)
	})
}
