package flow

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
)

// recorder has the series of a run: means over its steps.
type recorder struct {
	step   time.Duration
	weight time.Duration // of the step so far
	sums   []float64     // by series
	values [][]float64
}

// What is recorded, besides the loads of PoPs, which come behind.
const (
	seriesRequests = iota
	seriesRefused
	seriesLost
	seriesRTT
	seriesMoved
	seriesQuestions
	seriesPoPs
)

// mostPoints is how many points a series has at the most, about.
const mostPoints = 720

func newRecorder(e *engine) *recorder {
	r := &recorder{step: e.step, sums: make([]float64, seriesPoPs+len(e.pops)), values: make([][]float64, seriesPoPs+len(e.pops))}
	for int(e.until/r.step) > mostPoints {
		r.step += e.step
	}
	for i := range r.values {
		r.values[i] = make([]float64, 0, int(e.until/r.step)+1)
	}
	return r
}

// take takes a step of the engine, which does not go beyond one of the series.
func (r *recorder) take(e *engine, refused float64, d time.Duration) {
	m, seconds := &e.measured, d.Seconds()
	r.sums[seriesRequests] += float64(m.posts * seconds)
	r.sums[seriesRefused] += float64(refused * seconds)
	r.sums[seriesLost] += float64(m.lost * seconds)
	r.sums[seriesRTT] += float64(m.meanUS / 1000 * seconds)
	r.sums[seriesMoved] += float64(m.moved / max(e.total, 1) / seconds * 3600 * seconds)
	r.sums[seriesQuestions] += float64(m.misses * seconds)
	for p, load := range e.load {
		r.sums[seriesPoPs+p] += float64(load * seconds)
	}
	if r.weight += d; r.weight < r.step && e.now < e.until {
		return
	}
	for i, sum := range r.sums {
		r.values[i] = append(r.values[i], sum/r.weight.Seconds())
		r.sums[i] = 0
	}
	r.weight = 0
}

// mostLoads is of how many PoPs the load is told over time: of those with most.
const mostLoads = 24

func (r *recorder) series(e *engine) map[string]scenario.Series {
	all := map[string]scenario.Series{}
	for i, name := range map[int]string{seriesRequests: "requests", seriesRefused: "refused", seriesLost: "lost", seriesRTT: "rtt.mean", seriesMoved: "moved",
		seriesQuestions: "questions"} {
		unit := ""
		if i == seriesRTT {
			unit = "ms"
		}
		all[name] = scenario.Series{Unit: unit, Step: r.step, Values: rounded(r.values[i])}
	}
	order := make([]int, len(e.pops))
	for p := range order {
		order[p] = p
	}
	m := &e.measured
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(m.popLoad[b], m.popLoad[a]), cmp.Compare(m.popTime[b], m.popTime[a]))
	})
	for _, p := range order[:min(mostLoads, len(order))] {
		all["load/"+e.pops[p].name] = scenario.Series{Step: r.step, Values: rounded(r.values[seriesPoPs+p])}
	}
	return all
}

// round keeps nine digits: so a last bit of what is not fenced, such as a coordinate, does not show.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	scale := 1.0
	for size := math.Abs(v); size < 1e8 && scale < 1e12; size *= 10 {
		scale *= 10
	}
	return math.Round(v*scale) / scale
}

func rounded(values []float64) []float64 {
	for i, v := range values {
		values[i] = round(v)
	}
	return values
}

// result is what a run came to.
func (e *engine) result(policy scenario.PolicyName) *scenario.Run {
	var h [histograms]histogram
	for i := range h {
		h[i] = make(histogram, bins)
		for s := range e.shards {
			for b, w := range e.shards[s].histogram[i] {
				h[i][b] += w
			}
		}
	}
	m := &e.measured
	run := &scenario.Run{Scale: scenario.Flow, Policy: policy, Seed: e.seed, Figures: map[string]scenario.Figure{}, Notes: e.notes,
		Distributions: map[string]scenario.Distribution{"rtt": published(h[ofRTT]), "off": published(h[ofOff]), "fresh": published(h[ofFresh]), "post": published(h[ofPost]), "acknowledged": published(h[ofAcknowledged])}}
	figure := func(name, unit string, v float64) { run.Figures[name] = scenario.Figure{Value: round(v), Unit: unit} }
	ms := func(name string, us float64) { figure(name, "ms", us/1000) }
	ms("rtt.p50", h[ofRTT].quantile(0.5))
	ms("rtt.p90", h[ofRTT].quantile(0.9))
	ms("rtt.p99", h[ofRTT].quantile(0.99))
	ms("rtt.mean", h[ofRTT].mean())
	ms("off.mean", h[ofOff].mean())
	ms("off.p99", h[ofOff].quantile(0.99))
	figure("off.25ms", "", h[ofOff].above(25_000))
	figure("within.10ms", "", 1-h[ofRTT].above(10_001))
	ms("fresh.p50", h[ofFresh].quantile(0.5))
	ms("fresh.p99", h[ofFresh].quantile(0.99))
	ms("post.p50", h[ofPost].quantile(0.5))
	ms("post.p99", h[ofPost].quantile(0.99))
	ms("acknowledged.p50", h[ofAcknowledged].quantile(0.5))
	e.clusterFigures(run, figure)
	figure("posts", "", m.sumPosts)
	figure("accepted", "", m.sumPosts-m.sumRefused-m.sumLost)
	figure("refused", "", m.sumRefused)
	figure("lost", "", m.sumLost)
	figure("questions", "", m.sumMisses)
	if m.sumAsks > 0 {
		figure("cache.hits", "", 1-m.sumMisses/m.sumAsks)
	}
	figure("cache.entries", "", m.mostEntries)
	figure("load.max", "", m.mostLoad)
	figure("overloaded", "", float64(count(m.over)))
	figure("failed", "", float64(count(m.fell)))
	figure("moved", "", m.mostMoved/max(e.total, 1))
	if m.verdict > 0 {
		figure("verdict", "s", m.verdict.Seconds())
	}
	if m.lastWrong > 0 {
		figure("last.wrong", "s", m.lastWrong.Seconds())
		figure("next.202", "s", (m.lastWrong+retries).Seconds()+h[ofFresh].quantile(0.99)/1e6)
	}
	if e.until > 0 {
		run.Series = m.series.series(e)
	}
	e.onMap(run)
	return run
}

// retries is how often a client that reaches nobody tries again.
const retries = time.Second

func count(of []bool) (n int) {
	for _, yes := range of {
		if yes {
			n++
		}
	}
	return n
}

// clusterFigures tells how far PoPs are from their clusters, by clients.
func (e *engine) clusterFigures(run *scenario.Run, figure func(name, unit string, v float64)) {
	if len(e.clusters) == 0 {
		return
	}
	h, near, sum := make(histogram, bins), 0.0, 0.0
	for p, t := range e.measured.popTime {
		h[bin(e.hopUS[p])] += t
		if sum += t; e.hopUS[p] <= 30_000 {
			near += t
		}
	}
	if sum > 0 {
		figure("cluster.within.30ms", "", near/sum)
		figure("cluster.p50", "ms", h.quantile(0.5)/1000)
		run.Distributions["cluster"] = published(h)
	}
}

// published is a distribution with 16 bins to each doubling.
func published(h histogram) scenario.Distribution {
	d, sum, last := scenario.Distribution{Unit: "ms"}, 0.0, -1
	const coarse = 8
	for b := 0; b < len(h); b += coarse {
		w := 0.0
		for _, x := range h[b:min(b+coarse, len(h))] {
			w += x
		}
		if sum += w; w > 0 {
			last = len(d.Weights)
		}
		d.Bounds, d.Weights = append(d.Bounds, round(bound(b)/1000)), append(d.Weights, w)
	}
	d.Bounds, d.Weights = d.Bounds[:last+1], d.Weights[:last+1]
	first := 0
	for first < len(d.Weights) && d.Weights[first] == 0 {
		first++
	}
	d.Bounds, d.Weights = d.Bounds[first:], d.Weights[first:]
	for i := range d.Weights {
		d.Weights[i] = round(d.Weights[i] / max(sum, 1e-300))
	}
	return d
}

// onMap adds what the map shows: PoPs, and clients by metro as they are in the end.
func (e *engine) onMap(run *scenario.Run) {
	m, all := &e.measured, 0.0
	for _, t := range m.popTime {
		all += t
	}
	for p, pop := range e.pops {
		run.PoPs = append(run.PoPs, scenario.PoP{Name: pop.name, Country: pop.at.Country, LatDeg: pop.at.LatDeg, LonDeg: pop.at.LonDeg,
			Share: round(m.popTime[p] / max(all, 1e-300)), Load: round(m.popLoad[p])})
	}
	type part struct {
		us     uint32
		weight float64
	}
	parts, byPoP := make([][]part, len(e.Metros)), make([]map[int16]float64, len(e.Metros))
	for n := range e.state {
		metro := e.metro[n]
		for _, c := range e.state[n].c[:e.state[n].n] {
			if c.pop == nowhere {
				continue
			}
			w := float64(e.clients[n] * c.part)
			parts[metro] = append(parts[metro], part{c.us, w})
			if byPoP[metro] == nil {
				byPoP[metro] = map[int16]float64{}
			}
			byPoP[metro][c.pop] += w
		}
	}
	for metro, of := range parts {
		slices.SortFunc(of, func(a, b part) int { return cmp.Or(cmp.Compare(a.us, b.us), cmp.Compare(a.weight, b.weight)) })
		sum, below, median := 0.0, 0.0, uint32(0)
		for _, x := range of {
			sum += x.weight
		}
		if sum <= 0 {
			continue
		}
		for _, x := range of {
			if below += x.weight; below >= sum/2 {
				median = x.us
				break
			}
		}
		most := nowhere
		for p := range e.pops {
			if w := byPoP[metro][int16(p)]; w > 0 && (most == nowhere || w > byPoP[metro][most]) {
				most = int16(p)
			}
		}
		at := e.Metros[metro]
		run.Cells = append(run.Cells, scenario.Cell{LatDeg: at.LatDeg, LonDeg: at.LonDeg, Weight: round(sum), RTT: round(float64(median) / 1000), PoP: e.pops[most].name})
	}
}
