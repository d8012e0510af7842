package packet

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
)

// figures makes of what was seen what a run is to tell.
func (e *engine) figures() *scenario.Run {
	run := &scenario.Run{
		Scale: scenario.Packet, Policy: e.policy, Seed: e.seed, Figures: map[string]scenario.Figure{}, Distributions: map[string]scenario.Distribution{},
		Series: map[string]scenario.Series{},
	}
	slices.SortFunc(e.posts, func(a, b *post) int {
		if c := a.start.Compare(b.start); c != 0 {
			return c
		}
		return a.client - b.client
	})
	e.timesOf(run)
	e.distancesOf(run)
	e.outcomesOf(run)
	e.eventsOf(run)
	e.seriesOf(run)
	e.mapOf(run)
	for _, n := range e.sortedNotes() {
		at := n.at.Sub(e.began)
		run.Notes = append(run.Notes, fmt.Sprintf("%s %s", clock(at), n.text))
	}
	return run
}

// sortedNotes returns the notes in one order, whoever was first at one moment.
func (e *engine) sortedNotes() []note {
	return slices.SortedStableFunc(slices.Values(e.notes), func(a, b note) int {
		if c := a.at.Truncate(100 * time.Millisecond).Compare(b.at.Truncate(100 * time.Millisecond)); c != 0 {
			return c
		}
		return map[bool]int{true: -1, false: 1}[a.text < b.text]
	})
}

// clock writes a time from the begin as 06:00:00.0.
func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d:%04.1f", d/time.Hour, d/time.Minute%60, (d % time.Minute).Truncate(100*time.Millisecond).Seconds())
}

// sample is values, of which percentiles are wanted.
type sample []float64

func (s *sample) add(d time.Duration) { *s = append(*s, tenth(float64(d)/float64(time.Millisecond))) }

// at returns a percentile, of a sorted sample: the least value that so many are not above.
func (s sample) at(part float64) float64 {
	return s[max(0, min(len(s)-1, int(math.Ceil(part*float64(len(s))))-1))]
}

func (s sample) mean() float64 {
	sum := 0.0
	for _, v := range s {
		sum += v
	}
	return tenth(sum / float64(len(s)))
}

func (s sample) part(holds func(float64) bool) float64 {
	n := 0
	for _, v := range s {
		if holds(v) {
			n++
		}
	}
	return math.Round(float64(n)/float64(len(s))*1e6) / 1e6
}

// tenth rounds to a tenth, as virtual times are equal to that.
func tenth(v float64) float64 { return math.Round(v*10) / 10 }

// put puts percentiles of a sample, and its distribution, into a run.
func put(run *scenario.Run, name string, s sample, parts ...string) {
	if len(s) == 0 {
		return
	}
	slices.Sort(s)
	for _, part := range parts {
		v := s.mean()
		switch part {
		case "p50":
			v = s.at(0.5)
		case "p90":
			v = s.at(0.9)
		case "p99":
			v = s.at(0.99)
		}
		run.Figures[name+"."+part] = scenario.Figure{Value: v, Unit: "ms"}
	}
	run.Distributions[name] = distribution(s)
}

// bounds are those of the bins of times, in ms.
var bounds = func() (all []float64) {
	for _, run := range []struct{ until, step float64 }{{50, 1}, {200, 5}, {1000, 20}, {5000, 200}, {30_000, 1000}} {
		next := 0.0
		if len(all) > 0 {
			next = all[len(all)-1] + run.step
		}
		for v := next; v <= run.until; v += run.step {
			all = append(all, v)
		}
	}
	return all
}()

func distribution(sorted sample) scenario.Distribution {
	d := scenario.Distribution{Unit: "ms", Bounds: slices.Clone(bounds), Weights: make([]float64, len(bounds))}
	for _, v := range sorted {
		i, found := slices.BinarySearch(bounds, v)
		if !found {
			i--
		}
		d.Weights[max(i, 0)]++
	}
	return d
}

// timesOf tells how long posts took.
func (e *engine) timesOf(run *scenario.Run) {
	var fresh, open, acked sample
	undelivered := 0
	for _, p := range e.posts {
		if !p.accepted() {
			continue
		}
		a, known := e.acks[p.id]
		if !known {
			undelivered++
		}
		if !p.fresh {
			open.add(p.took)
			continue
		}
		fresh.add(p.took)
		if known {
			acked.add(a.at.Sub(p.end.Add(-p.took)))
		}
	}
	put(run, "fresh", fresh, "p50", "p99")
	put(run, "post", open, "p50", "p99")
	put(run, "acknowledged", acked, "p50")
	if undelivered > 0 {
		run.Notes = append(run.Notes, fmt.Sprintf("%d posts that have a 202 were in spools in the end, since no cluster could be reached", undelivered))
	}
}

// distancesOf tells how far posts had to go, by the truth.
func (e *engine) distancesOf(run *scenario.Run) {
	var rtts, off, clusters sample
	for _, p := range e.posts {
		if !p.accepted() || p.pop < 0 {
			continue
		}
		us := e.world.RTT(p.network, p.pop)
		_, best := e.world.Best(p.network, nil)
		rtts.add(time.Duration(us) * time.Microsecond)
		off.add(time.Duration(us-best) * time.Microsecond)
		if a, known := e.acks[p.id]; known {
			for c := range e.world.Clusters {
				if e.world.Clusters[c].Name == a.cluster {
					clusters.add(time.Duration(e.world.ToCluster(a.pop, c)) * time.Microsecond)
				}
			}
		}
	}
	put(run, "rtt", rtts, "p50", "p90", "p99", "mean")
	put(run, "off", off, "mean", "p99")
	put(run, "cluster", clusters)
	if len(rtts) > 0 {
		run.Figures["off.25ms"] = scenario.Figure{Value: off.part(func(v float64) bool { return v >= 25 })}
		run.Figures["within.10ms"] = scenario.Figure{Value: rtts.part(func(v float64) bool { return v <= 10 })}
	}
	if len(clusters) > 0 {
		run.Figures["cluster.within.30ms"] = scenario.Figure{Value: clusters.part(func(v float64) bool { return v <= 30 })}
	}
}

// outcomesOf tells what became of posts and questions.
func (e *engine) outcomesOf(run *scenario.Run) {
	counts := map[string]float64{"posts": float64(len(e.posts)), "accepted": 0, "refused": 0, "lost": 0, "questions": 0, "cache.entries": float64(e.most)}
	moved := map[int]float64{}
	for _, p := range e.posts {
		switch {
		case p.lost:
			counts["lost"]++
		case p.accepted():
			counts["accepted"]++
		default:
			counts["refused"]++
		}
		if p.moved {
			moved[int(p.start.Sub(e.began)/time.Hour)]++
		}
	}
	for _, n := range e.ours {
		counts["questions"] += n
	}
	if e.asks > 0 {
		counts["cache.hits"] = math.Round(float64(e.hits)/float64(e.asks)*1e6) / 1e6
	}
	counts["moved"] = 0
	for _, n := range moved {
		counts["moved"] = max(counts["moved"], math.Round(n/float64(len(e.clients))*1e6)/1e6)
	}
	for name, n := range counts {
		run.Figures[name] = scenario.Figure{Value: n}
	}
}

// eventsOf tells how long it took until what the timeline broke did not matter any more.
func (e *engine) eventsOf(run *scenario.Run) {
	worst := func(name string, d time.Duration) {
		v := math.Round(d.Seconds()*1e4) / 1e4
		if f, known := run.Figures[name]; !known || v > f.Value {
			run.Figures[name] = scenario.Figure{Value: v, Unit: "s"}
		}
	}
	for _, h := range e.events {
		if h.what == "death" {
			worst("last.wrong", h.wrong)
		}
		for _, byPoP := range h.verdicts {
			for _, d := range byPoP {
				worst("verdict", d)
			}
		}
		hit := 0
		for _, p := range e.posts {
			if p.accepted() && p.end.After(h.at) && slices.Contains(h.pops, p.first) && (h.end.IsZero() || p.start.Before(h.end)) {
				worst("next.202", p.end.Sub(h.at))
				hit++
			}
		}
		if len(h.pops) > 0 {
			run.Notes = append(run.Notes, fmt.Sprintf("%s of %s: %d posts were sent there first", h.what, h.names, hit))
		}
	}
}

// seriesOf tells what happened over time.
func (e *engine) seriesOf(run *scenario.Run) {
	if e.scenario.Duration == 0 {
		return
	}
	step := e.stepLength()
	steps := int((time.Duration(e.scenario.Duration) + step - 1) / step)
	series := func(unit string) scenario.Series {
		return scenario.Series{Unit: unit, Step: step, Values: make([]float64, steps)}
	}
	requests, refused, questions, rtts, counted := series(""), series(""), series(""), series("ms"), make([]float64, steps)
	loads := make([]scenario.Series, len(e.world.PoPs))
	for i := range loads {
		loads[i] = series("")
	}
	for _, p := range e.posts {
		at := min(e.step(p.start), steps-1)
		requests.Values[at]++
		if !p.accepted() {
			refused.Values[at]++
			continue
		}
		if p.pop < 0 {
			continue
		}
		rtts.Values[at] += float64(e.world.RTT(p.network, p.pop)) / 1000
		counted[at]++
		loads[p.pop].Values[at]++
	}
	for at, n := range e.ours {
		questions.Values[min(at, steps-1)] += n
	}
	for i, n := range counted {
		if n > 0 {
			rtts.Values[i] = tenth(rtts.Values[i] / n)
		}
	}
	run.Series["requests"], run.Series["refused"], run.Series["questions"], run.Series["rtt.mean"] = requests, refused, questions, rtts
	overloaded, highest := 0.0, 0.0
	for i := range loads {
		capacity := float64(e.topology.PoPs[e.world.PoPs[i].Name].CapacityRPS)
		if capacity == 0 {
			continue
		}
		most := 0.0
		for j := range loads[i].Values {
			loads[i].Values[j] = math.Round(loads[i].Values[j]/step.Seconds()/capacity*1e4) / 1e4
			most = max(most, loads[i].Values[j])
		}
		if most > 1 {
			overloaded++
		}
		highest = max(highest, most)
		run.Series["load/"+e.world.PoPs[i].Name] = loads[i]
		run.Figures["load.max"], run.Figures["overloaded"] = scenario.Figure{Value: highest}, scenario.Figure{Value: overloaded}
	}
}

// mapOf tells who was served where.
func (e *engine) mapOf(run *scenario.Run) {
	type cell struct {
		rtts sample
		pops map[int]int
	}
	cells, served, all := map[int]*cell{}, make([]float64, len(e.world.PoPs)), 0.0
	for _, p := range e.posts {
		if !p.accepted() || p.pop < 0 {
			continue
		}
		metro := int(e.world.Providers[e.world.Networks[p.network].Provider].Metro)
		c := cells[metro]
		if c == nil {
			c = &cell{pops: map[int]int{}}
			cells[metro] = c
		}
		c.rtts.add(time.Duration(e.world.RTT(p.network, p.pop)) * time.Microsecond)
		c.pops[p.pop]++
		served[p.pop]++
		all++
	}
	for _, metro := range slices.Sorted(maps.Keys(cells)) {
		c, m := cells[metro], &e.world.Metros[metro]
		slices.Sort(c.rtts)
		most := 0
		for _, pop := range slices.Sorted(maps.Keys(c.pops)) {
			if c.pops[pop] > c.pops[most] {
				most = pop
			}
		}
		run.Cells = append(run.Cells, scenario.Cell{
			LatDeg: m.LatDeg, LonDeg: m.LonDeg, Weight: float64(m.Nodes), RTT: c.rtts.at(0.5), PoP: e.world.PoPs[most].Name,
		})
	}
	for i, p := range e.world.PoPs {
		pop := scenario.PoP{Name: p.Name, Country: p.Country, LatDeg: p.LatDeg, LonDeg: p.LonDeg}
		if all > 0 {
			pop.Share = math.Round(served[i]/all*1e6) / 1e6
		}
		for _, v := range run.Series["load/"+p.Name].Values {
			pop.Load = max(pop.Load, v)
		}
		run.PoPs = append(run.PoPs, pop)
	}
}
