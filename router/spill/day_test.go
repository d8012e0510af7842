package spill

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// day is 24 virtual hours of a world: demand follows the sun, a crowd comes to one place within minutes, and a PoP is lost and comes back.
type day struct {
	world   *World
	weights []float64 // of cells, at their mean
	east    []float64 // of cells: degrees of longitude
	step    time.Duration
	crowd   string // the PoP whose clients the crowd is of
	lost    int
}

const (
	crowdFrom, crowdTo = 9 * time.Hour, 11 * time.Hour
	lostFrom, lostTo   = 15 * time.Hour, 17 * time.Hour
)

func newDay(tb testing.TB) *day {
	names, at := fortyPoPs(tb)
	cells, step := 200, 10*time.Minute
	if *campaign {
		cells, step = 2000, time.Minute
	}
	d := &day{world: worldOf(names, at, cells, 7), step: step, crowd: "fra1", lost: slices.Index(names, "iad1")}
	place := map[string]float64{}
	for i, name := range names {
		place[name] = at[i].LonDeg
	}
	for _, c := range d.world.Cells {
		d.weights, d.east = append(d.weights, c.Weight), append(d.east, place[c.Leading[0]])
	}
	// Each PoP can do twice what its nearest ask for at their mean, and a little more: no more than is needed at the height of its day.
	for p, load := range d.world.nearest() {
		d.world.PoPs[p].CapacityRPS = 1.7*load + 0.005
	}
	return d
}

// next returns the time from one plan to the next: short while the crowd comes and goes, since it is seconds in the field.
func (d *day) next(now time.Duration) time.Duration {
	if d.growth(now) == d.growth(now+d.step) {
		return d.step
	}
	return 10 * time.Second
}

// growth is the part of the crowd that is there.
func (d *day) growth(now time.Duration) float64 {
	return max(0, min((now-crowdFrom).Minutes()/10, (crowdTo-now).Minutes()/10, 1))
}

// at returns the world at a time; without a PoP, unless it is -1.
func (d *day) at(now time.Duration, without ...int) *World {
	w := &World{}
	index := make([]int, len(d.world.PoPs))
	for p, pop := range d.world.PoPs {
		if index[p] = -1; !slices.Contains(without, p) {
			index[p], w.PoPs = len(w.PoPs), append(w.PoPs, pop)
		}
	}
	for i, c := range d.world.Cells {
		local := now.Hours() + d.east[i]/15
		c.Weight = d.weights[i] * (1 + 0.6*math.Sin(2*math.Pi*(local-9)/24))
		if c.Leading[0] == d.crowd {
			c.Weight += 2.5 * d.growth(now) * d.weights[i]
		}
		var hops []Hop
		for _, h := range c.Hops {
			if index[h.PoP] >= 0 {
				hops = append(hops, Hop{PoP: index[h.PoP], MS: h.MS})
			}
		}
		c.Hops = hops
		w.Cells = append(w.Cells, c)
	}
	w.index()
	return w
}

// TestDay runs a day with shares. No PoP has more than it can do, but while demand grows between two plans; moves are bounded; and in the end all
// clients are at their nearest again.
func TestDay(t *testing.T) {
	d := newDay(t)
	shares := noShares
	worst, moved, demand, hour, most := 0.0, 0.0, 0.0, 0.0, 0.0
	spilled, plans, rounds := 0, 0, 0
	when := ""
	for now := time.Duration(0); now < 30*time.Hour; now += d.next(now) {
		var gone []int
		if now >= lostFrom && now < lostTo {
			gone = []int{d.lost}
		}
		w := d.at(now, gone...)
		var loads []float64
		if now == lostFrom { // before anybody has planned for it: by the shares for that loss
			all := d.at(now)
			loads, _ = Flows(all, shares, d.lost)
			loads = slices.Delete(slices.Clone(loads), d.lost, d.lost+1)
		} else {
			loads, _ = Flows(w, shares, -1)
		}
		if now == lostTo {
			loads[d.lost] /= 10 // it comes back by steps, of which each is longer than it takes to plan
		}
		for p, load := range loads {
			if part := load / w.PoPs[p].CapacityRPS; part > worst {
				worst, when = part, fmt.Sprintf("%s at %v", w.PoPs[p].Name, now)
			}
		}
		next, report := Plan(w, shares, Options{})
		rounds++
		if report.Why != "" && report.Why != "loss" {
			plans++
		}
		if len(next.Takes) > 0 {
			spilled++
		}
		if now%time.Hour == 0 {
			hour = 0
		}
		hour += report.Moved / w.total
		most = max(most, hour)
		moved, demand = moved+report.Moved, w.total
		shares = next
	}
	t.Logf("worst %.3f (%s); moved %.3f of the demand in 30 hours, at most %.3f in an hour; shares in force %d times of %d, %d of them new", worst, when, moved/demand, most, spilled,
		rounds, plans)
	if worst > 1 {
		t.Errorf("%s has %.3f of what it can do", when, worst)
	}
	if spilled == 0 || most > 0.3 {
		t.Errorf("spilled %d times, and moved %.3f of the demand in an hour", spilled, most)
	}
	if len(shares.Takes) > 0 {
		t.Errorf("in the end %d shares are left: %v", len(shares.Takes), shares.Takes)
	}
}

// TestDayByNearestAlone runs the same day without shares: who has more than it can do fails, its clients go to the next ones, and so on.
func TestDayByNearestAlone(t *testing.T) {
	d := newDay(t)
	down := map[int]bool{}
	waves := 0 // of failures, each by the one before
	for now := time.Duration(0); now < 24*time.Hour; now += d.next(now) {
		for wave := 1; ; wave++ {
			gone := slices.Collect(func(yield func(int) bool) {
				for p := range d.world.PoPs {
					if (down[p] || p == d.lost && now >= lostFrom && now < lostTo) && !yield(p) {
						return
					}
				}
			})
			if len(gone) == len(d.world.PoPs) {
				break
			}
			w := d.at(now, gone...)
			failed := false
			loads, _ := Flows(w, noShares, -1)
			for p, load := range loads {
				if load > w.PoPs[p].CapacityRPS {
					down[slices.IndexFunc(d.world.PoPs, func(pop PoP) bool { return pop.Name == w.PoPs[p].Name })], failed = true, true
				}
			}
			if !failed {
				break
			}
			waves = max(waves, wave)
		}
	}
	t.Logf("%d of %d PoPs have failed, in up to %d waves", len(down), len(d.world.PoPs), waves)
	if waves < 3 || len(down) < 10 {
		t.Errorf("%d PoPs have failed, in up to %d waves: no cascade", len(down), waves)
	}
}
