package quota

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// far is a store that is far away.
type far struct {
	Store
	trip time.Duration // there and back
}

func (f far) Exchange(ctx context.Context, r Request) (Answer, error) {
	time.Sleep(f.trip / 2)
	answer, err := f.Store.Exchange(ctx, r)
	time.Sleep(f.trip / 2)
	return answer, err
}

// all has all crowds play, which takes minutes.
var all = flag.Bool("quota.all", false, "the utilisation of all quotas, loads and skews: takes minutes")

// crowd is a demand for one key's quota.
type crowd struct {
	name  string
	pops  int
	quota int64
	load  float64                       // of all PoPs, in quotas
	share func(pop, window int) float64 // of the load; of all PoPs together it is 1
	alone bool                          // no homes
}

func crowds() []crowd {
	equal := func(pops int) func(int, int) float64 { return func(int, int) float64 { return 1 / float64(pops) } }
	zipf := func(pops int) func(int, int) float64 {
		var sum float64
		for i := range pops {
			sum += 1 / float64(i+1)
		}
		return func(pop, _ int) float64 { return 1 / float64(pop+1) / sum }
	}
	hot := func(pops, stays int) func(int, int) float64 { // one has nine tenths
		return func(pop, window int) float64 {
			if pop == window/stays%pops {
				return 0.9
			}
			return 0.1 / float64(pops-1)
		}
	}
	var all []crowd
	for _, pops := range []int{3, 10, 40} {
		for _, quota := range []int64{50 * int64(pops), 10_000, 100_000} {
			for _, load := range []float64{0.5, 1, 1.5, 4} {
				for _, skew := range []struct {
					name  string
					share func(int, int) float64
				}{{"equal", equal(pops)}, {"zipf", zipf(pops)}, {"hot", hot(pops, 100)}, {"moving", hot(pops, 2)}} {
					all = append(all, crowd{fmt.Sprintf("%d PoPs/%d/%s/%v", pops, quota, skew.name, load), pops, quota, load, skew.share, false})
				}
			}
		}
	}
	return all
}

// played is what came of a crowd.
type played struct{ admitted, possible, waited, over int64 }

// play has a crowd ask for some windows, in virtual time, without failures, and leaves the first out.
func (c crowd) play(windows int) (result played) {
	ctx, stop := context.WithCancel(context.Background())
	var running, asking sync.WaitGroup
	store := NewMemory(1)
	const first = 2
	admittedIn, demandIn, waitedIn := make([]atomic.Int64, windows+first+4), make([]atomic.Int64, windows+first+4), make([]atomic.Int64, windows+first+4)
	end := time.Now().Add(time.Duration(windows+first) * Window)
	town := &town{ledgers: map[string]*Ledger{}, trip: 120 * time.Millisecond}
	for pop := range c.pops {
		config := Config{PoP: fmt.Sprint("pop", pop), Store: far{store, time.Duration(20+pop*7%180) * time.Millisecond}}
		if !c.alone {
			config.Homes = neighbours{town, config.PoP}
		}
		town.add(config)
	}
	for pop := range c.pops {
		ledger := town.ledgers[fmt.Sprint("pop", pop)]
		running.Go(func() { _ = ledger.Run(ctx) })
		asking.Go(func() {
			random := rand.New(rand.NewPCG(uint64(pop), 1))
			for start := time.Now(); time.Now().Before(end); {
				rate := c.load * float64(c.quota) / Window.Seconds() * c.share(pop, int(time.Since(start)/Window))
				time.Sleep(time.Duration(random.ExpFloat64() / math.Max(rate, 1e-6) * float64(time.Second)))
				if !time.Now().Before(end) {
					return
				}
				d, outcome := ledger.try("key", c.quota, time.Now())
				if outcome == admitted || outcome == denied {
					demandIn[d.Window].Add(1)
					if outcome == admitted {
						admittedIn[d.Window].Add(1)
					}
					continue
				}
				asking.Go(func() {
					d, err := ledger.Admit(ctx, "key", c.quota, time.Now())
					if err != nil {
						return // in the first moment
					}
					demandIn[d.Window].Add(1)
					waitedIn[d.Window].Add(1)
					if d.Admitted {
						admittedIn[d.Window].Add(1)
					}
				})
			}
		})
	}
	asking.Wait()
	stop()
	running.Wait()
	for w := first + 1; w <= windows+first; w++ {
		result.admitted += admittedIn[w].Load()
		result.possible += min(c.quota, demandIn[w].Load())
		result.waited += waitedIn[w].Load()
		result.over += max(0, admittedIn[w].Load()-c.quota)
	}
	return result
}

// TestUtilization has PoPs with all kinds of demand in virtual time: 98 % of what is possible is admitted, and 99 % of that without waiting.
func TestUtilization(t *testing.T) {
	for i, c := range crowds() {
		if !*all && (i%12 != i/12%12 || c.quota > 10_000) { // each number of PoPs, load and skew, but not with all others
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := c.play(3)
				use, waits := float64(got.admitted)/float64(got.possible), float64(got.waited)/float64(got.admitted)
				t.Logf("admitted %.2f %% of what is possible; %.2f %% waited", 100*use, 100*waits)
				if use < 0.98 || waits > 0.01 || got.over > 0 {
					t.Errorf("admitted %.2f %%, %.2f %% waited, %d over: want 98 %%, 1 %%, 0", 100*use, 100*waits, got.over)
				}
			})
		})
	}
}
