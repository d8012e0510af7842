package report

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/internal/worldmap"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// Picture is one drawing of a report.
type Picture struct {
	Name string // of a file, without its end
	Text string // what is to be seen
	SVG  string
}

// Pictures draws what the runs have something for: distributions, load over time, and a map for each scale and the first policy.
func (r *Report) Pictures() []Picture {
	var all []Picture
	for _, name := range r.distributions() {
		all = append(all, Picture{name, "Distribution of " + words(name), r.cdf(name).svg()})
	}
	for _, name := range []string{"load", "requests", "refused", "rtt.mean", "questions", "moved"} {
		if c := r.overTime(name); len(c.curves) > 0 {
			all = append(all, Picture{strings.ReplaceAll(name, ".", "-") + "-over-time", words(name) + " over time", c.svg()})
		}
	}
	if run := r.mapped(); run != nil {
		all = append(all, Picture{"map", "Round-trip times on the map", r.world(run)})
	}
	return all
}

// words are what the names of distributions and series mean.
func words(name string) string {
	switch name {
	case "rtt":
		return "round-trip times to the PoP, ms"
	case "fresh":
		return "times to 202 on new connections, ms"
	case "post":
		return "times to 202 on open connections, ms"
	case "cluster":
		return "round-trip times from PoP to cluster, ms"
	case "acknowledged":
		return "times until a cluster has it, ms"
	case "off":
		return "round-trip time above the best PoP's, ms"
	case "load":
		return "Load of the fullest PoP, part of its capacity"
	case "requests":
		return "Posts a second"
	case "refused":
		return "Posts a second that are refused"
	case "rtt.mean":
		return "Mean round-trip time, ms"
	case "questions":
		return "Questions a second at our servers"
	case "moved":
		return "Part of clients that change PoPs"
	}
	return name
}

// distributions are the names of all distributions, in the order of the figures.
func (r *Report) distributions() []string {
	names := map[string]bool{}
	for _, run := range r.Runs {
		for name := range run.Distributions {
			names[name] = true
		}
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(group(a), group(b)), strings.Compare(a, b))
	})
}

// cdf draws a distribution of all columns, each that of all its seeds together.
func (r *Report) cdf(name string) *chart {
	c := &chart{title: "Part of clients with " + words(name), xLabel: "ms", yLabel: "part", logX: true, top: 1}
	for _, column := range r.columns() {
		weights, total := map[float64]float64{}, 0.0
		for _, run := range column {
			d := run.Distributions[name]
			for i, w := range d.Weights {
				if end := min(i+1, len(d.Bounds)-1); w > 0 && end >= 0 {
					weights[d.Bounds[end]] += w
					total += w
				}
			}
		}
		line, sum := curve{name: r.title(column)}, 0.0
		for _, bound := range slices.Sorted(maps.Keys(weights)) {
			sum += weights[bound]
			line.x, line.y = append(line.x, bound), append(line.y, sum/total)
		}
		if total > 0 {
			c.curves = append(c.curves, line)
		}
	}
	return c
}

// overTime draws a series of the first seed of all columns. Of the load it is that of the fullest PoP at each time.
func (r *Report) overTime(name string) *chart {
	c := &chart{title: words(name), xLabel: "hours", yLabel: ""}
	if name == "load" {
		c.limit = 1
	}
	for _, column := range r.columns() {
		s := seriesOf(column[0], name)
		if len(s.Values) < 2 {
			continue
		}
		line := curve{name: r.title(column), step: true}
		for i, v := range s.Values {
			line.x, line.y = append(line.x, float64(i)*s.Step.Hours()), append(line.y, v)
		}
		c.curves = append(c.curves, line)
	}
	for _, e := range r.Scenario.Timeline {
		c.marks = append(c.marks, mark{float64(e.At) / 3.6e12, happening(e)})
	}
	return c
}

// seriesOf returns a run's series; of load it is the highest of all PoPs.
func seriesOf(run *scenario.Run, name string) scenario.Series {
	if name != "load" {
		return run.Series[name]
	}
	var highest scenario.Series
	for _, key := range slices.Sorted(maps.Keys(run.Series)) {
		if s := run.Series[key]; strings.HasPrefix(key, "load/") {
			if highest.Values == nil {
				highest = scenario.Series{Unit: s.Unit, Step: s.Step, Values: make([]float64, len(s.Values))}
			}
			for i := range min(len(s.Values), len(highest.Values)) {
				highest.Values[i] = max(highest.Values[i], s.Values[i])
			}
		}
	}
	return highest
}

// happening says in words what an event is.
func happening(e scenario.Event) string {
	switch {
	case len(e.Lose) > 0:
		return "lost: " + strings.Join(e.Lose, ", ")
	case e.BrownOut != nil:
		return "brown-out of " + e.BrownOut.PoP
	case len(e.Drain) > 0:
		return "drained: " + strings.Join(e.Drain, ", ")
	case e.Flap != nil:
		return e.Flap.PoP + " flaps"
	case e.Crowd != nil:
		return fmt.Sprintf("crowd near %s, × %s", e.Crowd.Near, number(e.Crowd.Factor))
	case len(e.Partition) > 0:
		return "cut off: " + strings.Join(e.Partition, ", ")
	case e.Flip != nil:
		return "routes change"
	case e.Edit != "":
		return "edit"
	case e.Upgrade != nil:
		return "upgrade of all PoPs"
	case e.EtcdAway:
		return "etcd away"
	}
	return ""
}

// mapped returns the run that the map is of: the first that has cells.
func (r *Report) mapped() *scenario.Run {
	i := slices.IndexFunc(r.Runs, func(run *scenario.Run) bool { return len(run.Cells) > 0 && len(run.PoPs) > 0 })
	if i < 0 {
		return nil
	}
	return r.Runs[i]
}

// world draws isochrones: land by its predicted round-trip time to the nearest PoP, whether or not that has room.
func (r *Report) world(run *scenario.Run) string {
	p := &worldmap.Picture{Title: "Round-trip time to the nearest PoP, as the model predicts it", Step: 1, Legend: worldmap.Bands()}
	var places []topology.Location
	for _, pop := range run.PoPs {
		places = append(places, topology.Location{LatDeg: pop.LatDeg, LonDeg: pop.LonDeg, Country: pop.Country})
		p.Marks = append(p.Marks, worldmap.Mark{LatDeg: pop.LatDeg, LonDeg: pop.LonDeg, Name: pop.Name})
	}
	if len(p.Marks) > maxNames {
		for i := range p.Marks {
			p.Marks[i].Name = ""
		}
	}
	targets, rtts := rtt.Default().Targets(places), make([]uint32, len(places))
	p.Cells = worldmap.Land(p.Step)
	p.Colour = make([]int, len(p.Cells))
	for i, c := range p.Cells {
		targets.Microseconds(topology.Location{LatDeg: c.LatDeg, LonDeg: c.LonDeg, Country: c.Country}, rtts)
		p.Colour[i] = worldmap.Band(float64(slices.Min(rtts)) / 1000)
	}
	var text bytes.Buffer
	_ = p.SVG(&text) // a buffer takes all
	return text.String()
}

// maxNames is how many PoPs can have their names on a map.
const maxNames = 60
