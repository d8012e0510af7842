package peer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count calls. Nil counts nothing.
type Metrics struct {
	calls    *prometheus.CounterVec
	answered *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics returns metrics of a PoP.
func NewMetrics(pop string) *Metrics {
	labels := prometheus.Labels{"pop": pop}
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isochrone_peer_calls_total", Help: "Calls to other PoPs, by what was asked for and what came of it.", ConstLabels: labels,
		}, []string{"call", "outcome"}),
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isochrone_peer_answered_total", Help: "Calls of other PoPs, by what was asked for and what came of it.", ConstLabels: labels,
		}, []string{"call", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "isochrone_peer_call_duration_seconds", Help: "How long calls to other PoPs took, with what they waited for there.", ConstLabels: labels,
			Buckets: []float64{.001, .003, .01, .03, .1, .2, .4, 1, 2},
		}, []string{"call"}),
	}
	for _, call := range []string{quotaCall, ReceiptCall} { // so that the first one is seen as an increase
		m.duration.WithLabelValues(call)
		for _, outcome := range []string{"ok", "refused", "failed", "busy", "off"} {
			m.calls.WithLabelValues(call, outcome)
		}
		for _, outcome := range []string{"ok", "bad", "stranger", "stale", "again", "busy", "failed", "off"} {
			m.answered.WithLabelValues(call, outcome)
		}
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.calls.Describe(ch)
	m.answered.Describe(ch)
	m.duration.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.calls.Collect(ch)
	m.answered.Collect(ch)
	m.duration.Collect(ch)
}

func (m *Metrics) called(name, outcome string, took time.Duration) {
	if m == nil {
		return
	}
	m.calls.WithLabelValues(name, outcome).Inc()
	m.duration.WithLabelValues(name).Observe(took.Seconds())
}

func (m *Metrics) served(name, outcome string) {
	if m != nil {
		m.answered.WithLabelValues(name, outcome).Inc()
	}
}
