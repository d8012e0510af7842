package dataplane

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/dataplane/forward"
)

// collector tells Prometheus what a PoP counts anyway. Several PoPs of one process differ by the label pop.
type collector struct {
	*PoP
	accepted, refused, probes, panics, connections                       *prometheus.Desc
	turnedAway, shedTotal, rate, cpu, delay, shed, logged, unlogged      *prometheus.Desc
	forwarded, retried, standing                                         *prometheus.Desc
	envelopes, bytes, maxEnvelopes, maxBytes, oldest, dead, failing, bad *prometheus.Desc
}

// Collector returns the PoP's metrics. They may be collected at any time.
func (p *PoP) Collector() prometheus.Collector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("isochrone_"+name, help, labels, prometheus.Labels{"pop": p.config.Name})
	}
	return &collector{
		PoP:          p,
		accepted:     describe("intake_accepted_total", "Payloads that were answered 202."),
		refused:      describe("intake_refused_total", "Requests that were refused, probes among them, by status code.", "code"),
		probes:       describe("intake_probes_total", "Probes that were answered 202."),
		panics:       describe("intake_panics_total", "Requests that were answered 500 because of a fault of the program."),
		connections:  describe("intake_connections", "Open connections, by transport.", "transport"),
		turnedAway:   describe("intake_connections_refused_total", "Connections that were refused because of a limit."),
		shedTotal:    describe("intake_shed_total", "Requests that were answered 503 because of overload, before anything of them was looked at."),
		rate:         describe("intake_load_requests_per_second", "Requests that came in the last second."),
		cpu:          describe("intake_load_cpu", "Share of the processors that the process has used in the last second, 0 to 1."),
		delay:        describe("intake_load_delay_seconds", "How long work waits, by what it waits for: processor (what one of a hundred waits exceeds), disk (the mean).", "for"),
		shed:         describe("intake_load_shed_share", "Share of the requests that overload has had refused in the last second, 0 to 1."),
		logged:       describe("intake_log_lines_total", "Lines of the access log that were written."),
		unlogged:     describe("intake_log_dropped_total", "Lines of the access log that could not be written."),
		forwarded:    describe("forward_acknowledged_total", "Envelopes that a cluster has acknowledged."),
		retried:      describe("forward_retried_total", "Times that an envelope was sent and had to be sent again."),
		standing:     describe("forward_cluster_standing", "1 for how each cluster stands with this PoP: well, failing, down or draining.", "cluster", "standing"),
		envelopes:    describe("spool_envelopes", "Envelopes that no cluster has acknowledged yet."),
		bytes:        describe("spool_bytes", "Bytes of envelopes that no cluster has acknowledged yet, and of dead letters."),
		maxEnvelopes: describe("spool_max_envelopes", "Envelopes over which nothing more is accepted."),
		maxBytes:     describe("spool_max_bytes", "Bytes over which nothing more is accepted."),
		oldest:       describe("spool_oldest_seconds", "How long ago the oldest envelope arrived that no cluster has acknowledged yet; 0 when there is none."),
		dead:         describe("spool_dead_letters", "Envelopes that a cluster has refused for good, kept as files."),
		failing:      describe("spool_failing", "1 when the disk has not taken the last write."),
		bad:          describe("spool_failed_writes_total", "Writes that the disk has not taken."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		c.accepted, c.refused, c.probes, c.panics, c.connections, c.turnedAway, c.shedTotal, c.rate, c.cpu, c.delay, c.shed, c.logged,
		c.unlogged, c.forwarded, c.retried, c.standing,
		c.envelopes, c.bytes, c.maxEnvelopes, c.maxBytes, c.oldest, c.dead, c.failing, c.bad,
	} {
		ch <- desc
	}
	if c.config.Beside != nil {
		c.config.Beside.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	total := func(desc *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		send(desc, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		send(desc, prometheus.GaugeValue, value, labels...)
	}

	if c.config.Beside != nil {
		c.config.Beside.Collect(ch)
	}
	total(c.accepted, &c.counts.accepted)
	total(c.probes, &c.counts.probes)
	total(c.panics, &c.counts.panics)
	forwarded := c.forward.Stats()
	send(c.forwarded, prometheus.CounterValue, float64(forwarded.Acknowledged))
	send(c.retried, prometheus.CounterValue, float64(forwarded.Retried))
	for status, n := range c.counts.refused { // all of them, so that the first one is seen as an increase
		total(c.refused, n, strconv.Itoa(status))
	}
	quic, tcp, turnedAway := c.front.Connections()
	gauge(c.connections, float64(quic), "quic")
	gauge(c.connections, float64(tcp), "tcp")
	send(c.turnedAway, prometheus.CounterValue, float64(turnedAway))
	_, shed := c.front.Overload().Totals()
	send(c.shedTotal, prometheus.CounterValue, float64(shed))
	load := c.front.Overload().Load()
	gauge(c.rate, load.RequestsPerSecond)
	gauge(c.cpu, load.CPU)
	gauge(c.delay, load.QueueDelay.Seconds(), "processor")
	gauge(c.delay, load.StorageDelay.Seconds(), "disk")
	gauge(c.shed, load.ShedShare)
	written, dropped := c.config.Access.Stats()
	send(c.logged, prometheus.CounterValue, float64(written))
	send(c.unlogged, prometheus.CounterValue, float64(dropped))

	held := c.config.Spool.Stats()
	gauge(c.envelopes, float64(held.Pending))
	gauge(c.bytes, float64(held.Bytes+held.DeadBytes))
	gauge(c.maxEnvelopes, float64(held.Max))
	gauge(c.maxBytes, float64(held.MaxBytes))
	gauge(c.dead, float64(held.Dead))
	oldest, failing := 0.0, 0.0
	if !held.Oldest.IsZero() {
		oldest = max(0, time.Since(held.Oldest).Seconds()) // the clock may have been set back
	}
	if held.Failing {
		failing = 1
	}
	gauge(c.oldest, oldest)
	gauge(c.failing, failing)
	send(c.bad, prometheus.CounterValue, float64(held.Failures))
	for cluster, is := range c.forward.Standings() {
		for _, standing := range forward.AllStandings {
			value := 0.0
			if standing == is {
				value = 1
			}
			gauge(c.standing, value, cluster, standing)
		}
	}
}
