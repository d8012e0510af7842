package quota

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// town is PoPs that ask each other.
type town struct {
	ledgers map[string]*Ledger
	names   []string
	trip    time.Duration // there and back
	apart   atomic.Bool   // nobody reaches anybody
	asked   atomic.Int64
	knows   int64 // the quota that all know of, in place of that of the asks; 0 for that
}

func (n *town) add(c Config) *Ledger {
	n.ledgers[c.PoP], n.names = New(c), append(n.names, c.PoP)
	return n.ledgers[c.PoP]
}

// neighbours are the others, for one PoP.
type neighbours struct {
	*town
	self string
}

func (n neighbours) Of(key string, limit int64) string {
	if limit >= PerPoP*int64(len(n.names)) {
		return ""
	}
	return HomeOf(key, n.names)
}

func (n neighbours) Ask(ctx context.Context, home string, asks []Ask) ([]Given, error) {
	n.asked.Add(1)
	if n.apart.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	answer, trip := make(chan []Given, 1), n.trip
	go func() { // the home does not know when its caller gives up
		time.Sleep(trip / 2)
		if n.knows > 0 {
			asks = slices.Clone(asks)
			for i := range asks {
				asks[i].Limit = n.knows
			}
		}
		given := n.ledgers[home].Give(context.WithoutCancel(ctx), n.self, asks)
		time.Sleep(trip / 2)
		answer <- given
	}()
	select {
	case given := <-answer:
		return given, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestHomeOf(t *testing.T) {
	var pops []string
	for i := range 10 {
		pops = append(pops, fmt.Sprint("pop", i))
	}
	keys, of, moved := 10_000, map[string]int{}, 0
	for k := range keys {
		key := fmt.Sprint("key", k)
		home := HomeOf(key, pops)
		of[home]++
		reversed := slices.Clone(pops)
		slices.Reverse(reversed)
		if got := HomeOf(key, reversed); got != home {
			t.Fatalf("the home of %s depends on the order of the PoPs: %s and %s", key, home, got)
		}
		if got := HomeOf(key, pops[1:]); got != home {
			if moved++; home != pops[0] {
				t.Errorf("%s moves from %s to %s, though only %s has gone", key, home, got, pops[0])
			}
		}
	}
	for _, pop := range pops {
		if n := of[pop]; n < keys/10*8/10 || n > keys/10*12/10 {
			t.Errorf("%s is the home of %d keys of %d", pop, n, keys)
		}
	}
	if moved != of[pops[0]] || HomeOf("key", nil) != "" {
		t.Errorf("%d have moved, of %d", moved, of[pops[0]])
	}
}

// smallCrowds are demands for quotas below 50 for each PoP.
func smallCrowds() (all []crowd) {
	for _, c := range crowds() {
		if c.quota != 50*int64(c.pops) || c.pops != 10 {
			continue
		}
		for _, quota := range []int64{5, 20, 100, 300, 490} {
			small := c
			small.quota, small.name = quota, fmt.Sprintf("%d PoPs/%d%s", c.pops, quota, c.name[len("10 PoPs/500"):])
			all = append(all, small)
		}
	}
	return all
}

// TestSmallUtilization has a home count for quotas that are too small to be shared, and PoPs without homes for comparison.
func TestSmallUtilization(t *testing.T) {
	worst := map[bool]map[int64]float64{true: {}, false: {}}
	for i, c := range smallCrowds() {
		if !*all && i%17 != 1 { // of each quota one
			continue
		}
		for _, alone := range []bool{false, true} {
			if c.alone = alone; alone && !*all {
				continue
			}
			t.Run(fmt.Sprintf("%s/alone %v", c.name, alone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					got := c.play(3)
					use := float64(got.admitted) / float64(got.possible)
					t.Logf("admitted %.1f %% of what is possible; %.1f %% waited", 100*use, 100*float64(got.waited)/float64(max(1, got.admitted)))
					if before, ok := worst[alone][c.quota]; !ok || use < before {
						worst[alone][c.quota] = use
					}
					if got.over > 0 || !alone && use < 0.98 {
						t.Errorf("admitted %.1f %%, %d over: want 98 %%, 0", 100*use, got.over)
					}
				})
			})
		}
	}
	t.Logf("at the least, with homes: %v; without: %v", worst[false], worst[true])
}

// runTown has PoPs run, and returns what ends them.
func runTown(pops int, store Store, with func(*Config)) (n *town, stop func()) {
	n = &town{ledgers: map[string]*Ledger{}, trip: 100 * time.Millisecond}
	for i := range pops {
		c := Config{PoP: fmt.Sprint("pop", i), Store: store}
		c.Homes = neighbours{n, c.PoP}
		if with != nil {
			with(&c)
		}
		n.add(c)
	}
	var stops []func()
	for _, name := range n.names {
		stops = append(stops, running(n.ledgers[name]))
	}
	return n, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// spend has PoPs take turns until all are refused, each refusal of which is checked, and returns how many were admitted by window.
func (n *town) spend(t *testing.T, key string, limit int64) map[int64]int64 {
	t.Helper()
	admitted, refused := map[int64]int64{}, 0
	for i := 0; refused < len(n.names); i++ {
		d, err := n.ledgers[n.names[i%len(n.names)]].Admit(t.Context(), key, limit, time.Now())
		switch {
		case err != nil:
			t.Fatalf("%s: %v", n.names[i%len(n.names)], err)
		case d.Admitted:
			admitted[d.Window]++
			refused = 0
			if d.Limit != limit || d.Remaining >= limit {
				t.Errorf("got %+v", d)
			}
		default:
			if refused++; d.RetryAfter <= 0 || d.RetryAfter > Window+margin {
				t.Errorf("retry after %v", d.RetryAfter)
			}
		}
	}
	return admitted
}

// away returns a PoP that is not the home of a key.
func (n *town) away(key string) *Ledger {
	for _, name := range n.names {
		if name != HomeOf(key, n.names) {
			return n.ledgers[name]
		}
	}
	return nil
}

// TestHomeCountsForAll has all PoPs use one small quota up, wait as they are told, and use the next one.
func TestHomeCountsForAll(t *testing.T) {
	for _, limit := range []int64{1, 7, 20, 120} {
		synctest.Test(t, func(t *testing.T) {
			n, stop := runTown(10, NewMemory(1), nil)
			defer stop()
			for window := int64(1); window <= 3; window++ {
				if got := n.spend(t, "key", limit); len(got) != 1 || got[window] != limit {
					t.Fatalf("quota %d, window %d: admitted %v", limit, window, got)
				}
				d, err := n.away("key").Admit(t.Context(), "key", limit, time.Now())
				if err != nil || d.Admitted {
					t.Fatal(d, err)
				}
				time.Sleep(d.RetryAfter)
			}
			if asked := n.asked.Load(); asked == 0 {
				t.Error("nobody has asked the home")
			}
		})
	}
}

// TestHomeAway has the others go on without the home: the first waits for it, and the next ones do not.
func TestHomeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := runTown(5, NewMemory(1), nil)
		defer stop()
		const limit = 30
		l := n.away("key")
		if d, err := l.Admit(t.Context(), "key", limit, time.Now()); err != nil || !d.Admitted {
			t.Fatal(d, err)
		}
		n.apart.Store(true)
		for i, most := range []time.Duration{homePatience + 2*pause, 2 * pause, 2 * pause} {
			began := time.Now()
			d, err := l.Admit(t.Context(), "key", limit, began)
			if took := time.Since(began); err != nil || !d.Admitted || took > most {
				t.Errorf("request %d: %+v, %v, after %v; want at most %v", i, d, err, took, most)
			}
		}
		got := n.spend(t, "key", limit)
		if got[1] > limit-4 || got[1] < limit-4-2 { // the home may hold one or two
			t.Errorf("%v more were admitted, of %d", got, limit)
		}
		n.apart.Store(false)
		time.Sleep(Window + margin)
		if got := n.spend(t, "key", limit); got[2] != limit {
			t.Errorf("with the home again: %v were admitted, of %d", got, limit)
		}
	})
}

// TestHomeStopped has the home be stopped with a call, and answer it when the window is long over.
func TestHomeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := runTown(3, NewMemory(1), nil)
		defer stop()
		n.trip = 3 * Window
		l := n.away("key")
		began := time.Now()
		d, err := l.Admit(t.Context(), "key", 10, began)
		if took := time.Since(began); err != nil || !d.Admitted || d.Window != 1 || took > patience {
			t.Errorf("got %+v, %v after %v", d, err, took)
		}
		n.trip = 0
		time.Sleep(4 * Window) // the home has answered, and nobody has heard it
		for i := range 10 {
			if d, err := l.Admit(t.Context(), "key", 10, time.Now()); err != nil || !d.Admitted || d.Window < 4 {
				t.Fatalf("request %d: %+v, %v", i, d, err)
			}
		}
		if d, err := l.Admit(t.Context(), "key", 10, time.Now()); err != nil || d.Admitted {
			t.Errorf("over the quota: %+v, %v", d, err)
		}
	})
}

// TestHomeDoesNotKnow has a home be without its store: the others take grants themselves.
func TestHomeDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := map[string]*breakable{}
		shared := NewMemory(1)
		n, stop := runTown(3, nil, func(c *Config) {
			stores[c.PoP] = &breakable{Store: shared}
			c.Store = stores[c.PoP]
		})
		defer stop()
		if got := n.spend(t, "key", 20); got[1] != 20 {
			t.Errorf("admitted %v", got)
		}
		time.Sleep(Window + margin)
		stores[HomeOf("key", n.names)].away.Store(true)
		time.Sleep(fresh + poll)
		l, got := n.away("key"), int64(0)
		for {
			began := time.Now()
			d, err := l.Admit(t.Context(), "key", 20, began)
			if took := time.Since(began); err != nil || took > n.trip+3*pause {
				t.Fatalf("got %+v, %v after %v", d, err, took)
			}
			if !d.Admitted {
				break
			}
			got++
		}
		if got < 20-5 { // the home has slices ahead
			t.Errorf("admitted %d of 20", got)
		}
	})
}

// TestAloneWithAKey has one PoP use a key whose quota is small for ten PoPs, but not for one: it waits for the home once.
func TestAloneWithAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := runTown(10, NewMemory(1), nil)
		defer stop()
		const limit = 300
		l, slow := n.away("key"), 0
		post := func(l *Ledger) (took time.Duration) {
			t.Helper()
			began := time.Now()
			if d, err := l.Admit(t.Context(), "key", limit, began); err != nil || !d.Admitted {
				t.Fatal(d, err)
			}
			return time.Since(began)
		}
		for range 4 * 120 {
			if post(l) > 0 {
				slow++
			}
			time.Sleep(time.Second / 2)
		}
		if calls := n.asked.Load(); calls > 4 || slow > 4*120/50 {
			t.Errorf("%d calls, and %d of %d requests waited", calls, slow, 4*120)
		}
		for range 3 { // others come, until there are too many
			for _, name := range n.names {
				post(n.ledgers[name])
			}
		}
		before := n.asked.Load()
		time.Sleep(Window)
		for _, name := range n.names {
			post(n.ledgers[name])
		}
		if calls := n.asked.Load() - before; calls < 3 {
			t.Errorf("with ten PoPs there were %d calls", calls)
		}
	})
}

// TestHomeLearnsLater has a quota be raised, which the home hears of after another PoP.
func TestHomeLearnsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := runTown(3, NewMemory(1), nil)
		defer stop()
		n.knows = 5
		l := n.away("key")
		spend := func(limit int64) (got int) {
			for range 20 {
				d, err := l.Admit(t.Context(), "key", limit, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if d.Admitted {
					got++
				}
				time.Sleep(n.trip)
			}
			return got
		}
		if got := spend(5); got != 5 {
			t.Errorf("%d of 5 are admitted", got)
		}
		if got := spend(8); got != 3 { // it takes them from the store
			t.Errorf("%d more are admitted, want 3", got)
		}
	})
}
