package dns

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// What the server tells to Prometheus.
var (
	describe = func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("isochrone_dns_"+name, help, labels, nil)
	}
	questionsDesc   = describe("questions_total", "Questions, by how they came.", "transport")
	answersDesc     = describe("answers_total", "Answers, by response code.", "rcode")
	typesDesc       = describe("answered_types_total", "Answered questions, by type.", "qtype")
	steeredDesc     = describe("steered_answers_total", "Answers of steered names, by the PoP that is named first.", "pop")
	scopesDesc      = describe("ecs_scope_bits", "Scopes of steered answers to questions with a client subnet, in bits.", "family")
	quickDesc       = describe("quick_answers_total", "Answers of the fast path.")
	ignoredDesc     = describe("ignored_packets_total", "Packets that were no questions.")
	limitedDesc     = describe("rate_limited_total", "Questions over the rate limit of their prefix, dropped or answered truncated.")
	truncatedDesc   = describe("truncated_answers_total", "Answers that were sent truncated.")
	droppedDesc     = describe("dropped_questions_total", "Questions that were dropped because too many waited for the full path.")
	unsentDesc      = describe("unsent_answers_total", "Answers that the system did not take.")
	panicsDesc      = describe("panics_total", "Questions that are unanswered because of a fault of the program.")
	failuresDesc    = describe("failures_total", "Answers that could not be packed or signed.")
	transfersDesc   = describe("zone_transfers_total", "Zone transfers that were given.")
	cookiesDesc     = describe("cookies_total", "Answers of the full path, by the cookie that the question had.", "cookie")
	connectionsDesc = describe("connections", "Open connections, by transport.", "transport")
	connectedDesc   = describe("connections_total", "Connections, by transport and what became of them.", "transport", "fate")
	revisionDesc    = describe("topology_revision", "Revision of the topology that is served.")
	tableAgeDesc    = describe("table_age_seconds", "Time since the table that is served was put in place.")
	viewAgeDesc     = describe("view_age_seconds", "Time since the view that is served was put in place.")
	swapsDesc       = describe("view_swaps_total", "Views that were put in place.")
	swapTimeDesc    = describe("view_swap_seconds_total", "Time that putting views in place has taken.")
	serialDesc      = describe("zone_serial", "Serial of a zone's SOA record.", "zone")
	signedDesc      = describe("zone_signed", "1 for a zone that is served with signatures, 0 for one without.", "zone")
	problemsDesc    = describe("problems", "Signed zones whose active private keys are not all here.")
)

// Collector returns the server's metrics. They may be collected at any time.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

type collector struct{ *Server }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		questionsDesc, answersDesc, typesDesc, steeredDesc, scopesDesc,
		quickDesc, ignoredDesc, limitedDesc, truncatedDesc, droppedDesc,
		unsentDesc, panicsDesc, failuresDesc, transfersDesc, cookiesDesc,
		connectionsDesc, connectedDesc, revisionDesc, tableAgeDesc, viewAgeDesc,
		swapsDesc, swapTimeDesc, serialDesc, signedDesc, problemsDesc,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	shards, names, swaps := c.shards, c.popNames, c.swaps
	c.mu.Unlock()
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	total := func(desc *prometheus.Desc, of func(*counts) *atomic.Uint64, labels ...string) {
		send(desc, prometheus.CounterValue, float64(sum(shards, of)), labels...)
	}
	for t := range transports {
		total(questionsDesc, func(c *counts) *atomic.Uint64 { return &c.questions[t] }, t.String())
	}
	for code := range shards[0].rcodes {
		name, ok := dns.RcodeToString[code]
		if code == len(shards[0].rcodes)-1 || !ok {
			name = "RCODE" + strconv.Itoa(code)
		}
		if code == dns.RcodeBadVers {
			name = "BADVERS"
		}
		if n := sum(shards, func(c *counts) *atomic.Uint64 { return &c.rcodes[code] }); n > 0 || code <= dns.RcodeRefused {
			send(answersDesc, prometheus.CounterValue, float64(n), name)
		}
	}
	for i, name := range countedTypeNames {
		total(typesDesc, func(c *counts) *atomic.Uint64 { return &c.qtypes[i] }, name)
	}
	for i, name := range names {
		total(steeredDesc, func(c *counts) *atomic.Uint64 { return &c.pops[i] }, name)
	}
	if n := sum(shards, func(c *counts) *atomic.Uint64 { return &c.pops[maxPoPs-1] }); n > 0 {
		send(steeredDesc, prometheus.CounterValue, float64(n), "")
	}
	c.scopes(ch, shards)
	for _, one := range []struct {
		desc *prometheus.Desc
		of   func(*counts) *atomic.Uint64
	}{
		{quickDesc, func(c *counts) *atomic.Uint64 { return &c.quick }},
		{ignoredDesc, func(c *counts) *atomic.Uint64 { return &c.ignored }},
		{limitedDesc, func(c *counts) *atomic.Uint64 { return &c.limited }},
		{truncatedDesc, func(c *counts) *atomic.Uint64 { return &c.truncated }},
		{droppedDesc, func(c *counts) *atomic.Uint64 { return &c.dropped }},
		{unsentDesc, func(c *counts) *atomic.Uint64 { return &c.unsent }},
		{panicsDesc, func(c *counts) *atomic.Uint64 { return &c.panics }},
		{failuresDesc, func(c *counts) *atomic.Uint64 { return &c.failures }},
		{transfersDesc, func(c *counts) *atomic.Uint64 { return &c.transfers }},
	} {
		total(one.desc, one.of)
	}
	for state, name := range []string{"none", "client", "valid"} {
		total(cookiesDesc, func(c *counts) *atomic.Uint64 { return &c.cookies[state] }, name)
	}
	for t, n := range c.Connections() {
		if Transport(t) == UDP {
			continue
		}
		name := Transport(t).String()
		send(connectionsDesc, prometheus.GaugeValue, float64(n.Open), name)
		send(connectedDesc, prometheus.CounterValue, float64(n.Total), name, "accepted")
		send(connectedDesc, prometheus.CounterValue, float64(n.Refused), name, "refused")
		send(connectedDesc, prometheus.CounterValue, float64(n.Evicted), name, "evicted")
	}
	c.state(send, swaps)
}

// sum adds a count up over all threads.
func sum(shards []*counts, of func(*counts) *atomic.Uint64) (n uint64) {
	for _, c := range shards {
		n += of(c).Load()
	}
	return n
}

// scopes are told as histograms whose buckets end at each prefix length that matters to operators.
func (c collector) scopes(ch chan<- prometheus.Metric, shards []*counts) {
	histogram := func(family string, lengths int, bounds []float64, of func(c *counts, bits int) *atomic.Uint64) {
		var (
			count   uint64
			total   float64
			buckets = map[float64]uint64{}
			next    int
		)
		for bits := range lengths {
			n := sum(shards, func(c *counts) *atomic.Uint64 { return of(c, bits) })
			count += n
			total += float64(n) * float64(bits)
			if next < len(bounds) && float64(bits) == bounds[next] {
				buckets[bounds[next]] = count
				next++
			}
		}
		ch <- prometheus.MustNewConstHistogram(scopesDesc, count, total, buckets, family)
	}
	histogram("ipv4", 33, []float64{0, 8, 12, 16, 18, 20, 22, 24, 32}, func(c *counts, bits int) *atomic.Uint64 { return &c.scopes4[bits] })
	histogram("ipv6", 129, []float64{0, 16, 24, 32, 40, 48, 56, 64, 128}, func(c *counts, bits int) *atomic.Uint64 { return &c.scopes6[bits] })
}

// swaps tells of the views that were put in place.
type swaps struct {
	n     uint64
	took  time.Duration
	view  time.Time // when the present view was put in place
	table time.Time // when the present table was
}

// state tells what is served.
func (c collector) state(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string), swaps swaps) {
	send(swapsDesc, prometheus.CounterValue, float64(swaps.n))
	send(swapTimeDesc, prometheus.CounterValue, swaps.took.Seconds())
	sv := c.serving.Load()
	if sv.index == nil {
		return
	}
	now := c.now()
	send(revisionDesc, prometheus.GaugeValue, float64(sv.view.Table.Snapshot().Good))
	send(tableAgeDesc, prometheus.GaugeValue, now.Sub(swaps.table).Seconds())
	send(viewAgeDesc, prometheus.GaugeValue, now.Sub(swaps.view).Seconds())
	send(problemsDesc, prometheus.GaugeValue, float64(len(sv.index.problems)))
	for _, z := range sv.index.zones {
		signed := 0.0
		if z.signer != nil {
			signed = 1
		}
		send(signedDesc, prometheus.GaugeValue, signed, strings.TrimSuffix(z.name, "."))
		send(serialDesc, prometheus.GaugeValue, float64(z.soa.Serial), strings.TrimSuffix(z.name, "."))
	}
}
