// Package report makes what the runs of a scenario measured readable: a page of HTML that needs nothing else, pictures as SVG, text for a
// terminal, Markdown for the summary of a CI job, and JSON and CSV for programs.
//
//	r := report.New(sc, runs, outcomes)
//	r.Text(os.Stdout, 100)
//	r.HTML(file)
//
// It measures nothing itself. Equal runs give equal bytes.
package report

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/simulations/scenario"
)

// Report is what is shown.
type Report struct {
	Scenario *scenario.Scenario
	Runs     []*scenario.Run // by variant, scale, policy and seed
	Outcomes []scenario.Outcome
	Short    bool // the runs are of the scenario's short form
}

// New returns a report of some runs, in any order.
func New(sc *scenario.Scenario, runs []*scenario.Run, outcomes []scenario.Outcome) *Report {
	r := &Report{Scenario: sc, Runs: slices.Clone(runs), Outcomes: outcomes}
	slices.SortStableFunc(r.Runs, func(a, b *scenario.Run) int {
		return cmp.Or(cmp.Compare(variant(sc, a.Variant), variant(sc, b.Variant)), cmp.Compare(rank(sc.Scales, a.Scale), rank(sc.Scales, b.Scale)),
			cmp.Compare(rank(sc.Policies, a.Policy), rank(sc.Policies, b.Policy)), cmp.Compare(a.Seed, b.Seed))
	})
	return r
}

// variant is the place of a variant in its scenario.
func variant(sc *scenario.Scenario, name string) int {
	return slices.IndexFunc(sc.Variants, func(v scenario.Variant) bool { return v.Name == name })
}

// rank is the place of something in a list; what is not in it comes last.
func rank[T comparable](list []T, of T) int {
	if i := slices.Index(list, of); i >= 0 {
		return i
	}
	return len(list)
}

// Failed returns how many assertions do not hold.
func (r *Report) Failed() int {
	n := 0
	for _, o := range r.Outcomes {
		if !o.Held {
			n++
		}
	}
	return n
}

// column is one policy at one scale in one variant of the world: the runs that differ by their seed alone.
type column []*scenario.Run

// columns groups the runs.
func (r *Report) columns() []column {
	var all []column
	for i, run := range r.Runs {
		if i == 0 || r.Runs[i-1].Variant != run.Variant || r.Runs[i-1].Scale != run.Scale || r.Runs[i-1].Policy != run.Policy {
			all = append(all, nil)
		}
		last := &all[len(all)-1]
		*last = append(*last, run)
	}
	return all
}

// title is a column's headline: what differs of variant, policy and scale; the policy, where nothing does.
func (r *Report) title(c column) string {
	differs := func(of func(*scenario.Run) string) bool {
		return slices.ContainsFunc(r.Runs, func(run *scenario.Run) bool { return of(run) != of(c[0]) })
	}
	var parts []string
	for _, of := range []func(*scenario.Run) string{
		func(run *scenario.Run) string { return run.Variant },
		func(run *scenario.Run) string { return string(run.Policy) },
		func(run *scenario.Run) string { return string(run.Scale) },
	} {
		if differs(of) {
			parts = append(parts, of(c[0]))
		}
	}
	if len(parts) == 0 {
		return string(c[0].Policy)
	}
	return strings.Join(parts, ", ")
}

// estimate is a figure of a column over its seeds; of none when the column does not have the figure.
type estimate scenario.Estimate

func (c column) figure(name string) estimate {
	var values []float64
	unit := ""
	for _, run := range c {
		if f, ok := run.Figures[name]; ok {
			values, unit = append(values, f.Value), f.Unit
		}
	}
	if len(values) == 0 {
		return estimate{}
	}
	e := scenario.Over(values)
	e.Unit = unit
	return estimate(e)
}

// rows are the names of all figures, those that belong together side by side.
func (r *Report) rows() []string {
	names := map[string]bool{}
	for _, run := range r.Runs {
		for name := range run.Figures {
			names[name] = true
		}
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(group(a), group(b)), strings.Compare(a, b))
	})
}

// The figures' groups, in the order in which a reader wants them.
var groups = []string{"rtt", "off", "within", "cluster", "fresh", "post", "acknowledged", "load", "overloaded", "failed", "posts",
	"accepted", "refused", "lost", "questions", "cache", "moved", "last", "next", "verdict"}

func group(name string) int {
	first, _, _ := strings.Cut(name, ".")
	return rank(groups, first)
}
