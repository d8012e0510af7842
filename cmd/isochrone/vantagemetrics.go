package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/health"
)

// vantageMetrics tells what a node sees, hears and judges as a vantage.
type vantageMetrics struct {
	node                                                    *node
	verdict, votes, suspected, vantages, doubted, alone     *prometheus.Desc
	namesake                                                *prometheus.Desc
	probes, failures, bursts, reports, judgements, datagram *prometheus.Desc
}

func newVantageMetrics(n *node) *vantageMetrics {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("isochrone_"+name, help, labels, nil)
	}
	return &vantageMetrics{
		node:       n,
		verdict:    of("verdict", "1 for the status that a target has by the verdict of this node.", "kind", "target", "status"),
		votes:      of("verdict_votes", "Vantages that say of a target that it is up, or down.", "kind", "target", "vote"),
		suspected:  of("verdict_suspected", "1 while a vantage suspects a target that is not down.", "kind", "target"),
		vantages:   of("vantages", "Vantages that this node hears, and itself."),
		doubted:    of("vantages_doubted", "Vantages that are not believed."),
		alone:      of("vantage_alone", "1 while this node hears no other vantage, and sees with its own eyes only (local view)."),
		namesake:   of("vantage_namesake", "1 while another process has the name of this one, so that others hear one of them at most."),
		probes:     of("vantage_probes_total", "Probes that this node has begun."),
		failures:   of("vantage_probe_failures_total", "Probes that have failed."),
		bursts:     of("vantage_bursts_total", "Bursts of probes because another vantage saw something else."),
		reports:    of("vantage_reports_total", "Reports that this node has made."),
		judgements: of("vantage_judgements_total", "How often verdicts were made anew."),
		datagram:   of("vantage_datagrams_total", "Datagrams of reports by what became of them.", "outcome"),
	}
}

// Describe implements prometheus.Collector.
func (m *vantageMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.verdict, m.votes, m.suspected, m.vantages, m.doubted, m.alone, m.namesake, m.probes, m.failures, m.bursts, m.reports, m.judgements, m.datagram,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector. A node that does not look tells nothing.
func (m *vantageMetrics) Collect(to chan<- prometheus.Metric) {
	v := m.node.looks.now()
	if v == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	j := v.Judgement()
	for t, is := range j.Verdicts {
		for _, status := range []health.Status{health.Unknown, health.Up, health.Degraded, health.Down} {
			gauge(m.verdict, truth(is.Status == status), string(t.Kind), t.Name, string(status))
		}
		gauge(m.votes, float64(is.Votes.Up), string(t.Kind), t.Name, "up")
		gauge(m.votes, float64(is.Votes.Down), string(t.Kind), t.Name, "down")
		gauge(m.suspected, truth(is.Suspected), string(t.Kind), t.Name)
	}
	gauge(m.vantages, float64(len(v.Reports())))
	gauge(m.doubted, float64(len(j.Doubted)))
	gauge(m.alone, truth(v.Alone()))
	gauge(m.namesake, truth(v.Namesake()))
	c := v.Counts()
	count(m.probes, c.Probes)
	count(m.failures, c.Failures)
	count(m.bursts, c.Bursts)
	count(m.reports, c.Reports)
	count(m.judgements, c.Judgements)
	if e := m.node.looks.direct.Load(); e != nil {
		count(m.datagram, e.Counts.Sent.Load(), "sent")
		count(m.datagram, e.Counts.Received.Load(), "received")
		count(m.datagram, e.Counts.Replayed.Load(), "replayed")
		count(m.datagram, e.Counts.Forged.Load(), "forged")
		count(m.datagram, e.Counts.Malformed.Load(), "malformed")
		count(m.datagram, e.Counts.Unknown.Load(), "unknown")
	}
}
