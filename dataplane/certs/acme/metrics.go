package acme

import "github.com/prometheus/client_golang/prometheus"

var (
	expiryMetric = prometheus.NewDesc("isochrone_control_acme_expiry_timestamp_seconds",
		"When the certificate that was got by ACME for a service expires, of the leader; 0 while there is none.", []string{"service"}, nil)
	failingMetric = prometheus.NewDesc("isochrone_control_acme_failing",
		"Services whose certificate could not be got or renewed by ACME at the last attempt, of the leader.", nil, nil)
	failuresMetric = prometheus.NewDesc("isochrone_control_acme_failures_total", "Attempts to get a certificate by ACME that failed.", nil, nil)
)

// Collector returns the metrics of the manager.
func (m *Manager) Collector() prometheus.Collector { return collector{m} }

type collector struct{ *Manager }

// Describe implements prometheus.Collector.
func (c collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- expiryMetric
	descs <- failingMetric
	descs <- failuresMetric
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	failing := 0
	for _, s := range c.States() {
		expires := 0.
		if !s.NotAfter.IsZero() {
			expires = float64(s.NotAfter.Unix())
		}
		if s.Failure != "" {
			failing++
		}
		metrics <- prometheus.MustNewConstMetric(expiryMetric, prometheus.GaugeValue, expires, s.Name)
	}
	metrics <- prometheus.MustNewConstMetric(failingMetric, prometheus.GaugeValue, float64(failing))
	c.mu.Lock()
	defer c.mu.Unlock()
	metrics <- prometheus.MustNewConstMetric(failuresMetric, prometheus.CounterValue, float64(c.failures))
}
