package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/controlplane"
)

// printLoads shows how busy PoPs are, what share of the requests each is to get and gets, and what was changed last.
func printLoads(w io.Writer, status *controlplane.Status, now time.Time) {
	if status.Spill == nil {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nPOP\tREQUESTS/S\tCAPACITY\tUSED\tWANTED\tREALISED")
	percent := func(x *float64) string {
		if x == nil {
			return "–"
		}
		return fmt.Sprintf("%.1f %%", 100**x)
	}
	for _, p := range status.PoPs {
		l := p.Load
		if l == nil {
			fmt.Fprintf(table, "%s\t–\t–\t–\t–\t–\n", p.Name)
			continue
		}
		capacity := "not known"
		if l.CapacityRPS > 0 {
			capacity = perSecond(l.CapacityRPS)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, perSecond(l.RequestsRPS), capacity, percent(l.Used), percent(l.Wanted), percent(l.Realised))
	}
	_ = table.Flush()
	printSpill(w, status.Spill, now)
}

// printSpill tells what was changed last, and what a loss would do.
func printSpill(w io.Writer, s *controlplane.SpillStatus, now time.Time) {
	if last := s.Last; last != nil {
		fmt.Fprintf(w, "\nshares were changed %v ago, for %s: %.1f %% of the requests moved", now.Sub(last.At).Round(time.Second), last.Why, 100*last.Moved)
		for i, shift := range last.Shifts[:min(len(last.Shifts), 6)] {
			fmt.Fprintf(w, "%s %s %+.1f %%", map[bool]string{true: ":", false: ","}[i == 0], shift.PoP, 100*shift.By)
		}
		fmt.Fprintln(w)
	}
	if s.OverRPS > 0 {
		fmt.Fprintf(w, "PoPs get %s requests a second more than they can do, and clients who do as they are told cannot be sent elsewhere\n", perSecond(s.OverRPS))
	}
	for i, r := range s.Risks {
		if i == 5 {
			break
		}
		fmt.Fprintf(w, "if %s were lost, %s would get %s requests a second and can do %s\n", r.Lost, r.PoP, perSecond(r.LoadRPS), perSecond(r.CapacityRPS))
	}
	if more := max(len(s.Risks)-5, 0) + s.MoreRisks; more > 0 {
		fmt.Fprintf(w, "and %d more PoPs would be overloaded by a loss\n", more)
	}
}

// perSecond writes a rate as people do.
func perSecond(rps float64) string {
	if rps >= 100 {
		return fmt.Sprintf("%.0f", rps)
	}
	return fmt.Sprintf("%.3g", rps)
}

// spillMetrics tells of shares, as the leader says, wherever it runs.
type spillMetrics struct {
	control                                                 *controlParts
	wanted, realised, capacity, moved, over, risks, planned *prometheus.Desc
}

func newSpillMetrics(c *controlParts) *spillMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("isochrone_control_spill_"+name, help, labels, nil)
	}
	return &spillMetrics{
		control:  c,
		wanted:   desc("wanted_share", "Share of all requests that a PoP is to get, 0..1, by the shares in force.", "pop"),
		realised: desc("realised_share", "Share of all requests that a PoP gets, 0..1, as PoPs tell.", "pop"),
		capacity: desc("capacity_rps", "Requests a second that a PoP can do, as far as that is known.", "pop"),
		moved:    desc("moved_share", "Share of the requests that the last plan sent elsewhere, 0..1."),
		over:     desc("over_rps", "Requests a second that PoPs have above their capacity."),
		risks:    desc("risks", "PoPs that would be overloaded by the loss of another one."),
		planned:  desc("planned_timestamp_seconds", "When shares were changed last; 0 for never.", "why"),
	}
}

// Describe implements prometheus.Collector.
func (m *spillMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.wanted, m.realised, m.capacity, m.moved, m.over, m.risks, m.planned} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *spillMetrics) Collect(to chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	state := m.control.spill.Load()
	if state == nil {
		state = &controlplane.SpillState{}
	}
	tell(m.over, state.OverRPS)
	tell(m.risks, float64(len(state.Risks)+state.MoreRisks))
	if last := state.Last; last != nil {
		tell(m.moved, last.Moved)
		tell(m.planned, float64(last.At.UnixMilli())/1000, last.Why)
	} else {
		tell(m.moved, 0)
		tell(m.planned, 0, "")
	}
	loads, sum := m.control.service.Loads(), 0.0
	for _, l := range loads {
		sum += l.RequestsRPS
	}
	for name, pop := range state.PoPs {
		tell(m.wanted, pop.Wanted, name)
		tell(m.capacity, pop.CapacityRPS, name)
		if load, tells := loads[name]; tells && sum > 0 {
			tell(m.realised, load.RequestsRPS/sum, name)
		}
	}
}
