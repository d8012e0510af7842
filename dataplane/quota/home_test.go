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
	time.Sleep(n.trip / 2)
	given := n.ledgers[home].Give(ctx, n.self, asks)
	time.Sleep(n.trip / 2)
	return given, nil
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
		if !*all && i%5 != i/5%5 {
			continue
		}
		for _, alone := range []bool{false, true} {
			c.alone = alone
			t.Run(fmt.Sprintf("%s/alone %v", c.name, alone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					got := c.play(5)
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
