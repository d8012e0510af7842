package certs

import "github.com/prometheus/client_golang/prometheus"

var (
	expiryMetric = prometheus.NewDesc("isochrone_intake_certificate_expiry_timestamp_seconds",
		"When a certificate expires that is given out, by the name that it is for and by where it is from: file or acme.", []string{"name", "source"}, nil)
	failuresMetric = prometheus.NewDesc("isochrone_intake_certificate_reload_failures_total",
		"New certificates and keys of tickets that were not used because they are broken, counted at each look.", nil, nil)
	rotatedMetric = prometheus.NewDesc("isochrone_intake_ticket_keys_rotated_timestamp_seconds",
		"When the keys of session tickets were rotated last; shared says whether other PoPs have the same.", []string{"shared"}, nil)
)

// Collector returns the metrics of the source.
func (s *Source) Collector() prometheus.Collector { return collector{s} }

type collector struct{ *Source }

// Describe implements prometheus.Collector.
func (c collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- expiryMetric
	descs <- failuresMetric
	descs <- rotatedMetric
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	type labels struct{ name, source string }
	seen := map[labels]bool{} // the first one of a name is the one in use
	for _, l := range c.List() {
		for _, name := range l.Names {
			if at := (labels{canonical(name), l.Source}); !seen[at] {
				seen[at] = true
				metrics <- prometheus.MustNewConstMetric(expiryMetric, prometheus.GaugeValue, float64(l.NotAfter.Unix()), at.name, at.source)
			}
		}
	}
	metrics <- prometheus.MustNewConstMetric(failuresMetric, prometheus.CounterValue, float64(c.failures.Load()))
	t, shared := c.tickets.Load(), "yes"
	if t.own {
		shared = "no"
	}
	metrics <- prometheus.MustNewConstMetric(rotatedMetric, prometheus.GaugeValue, float64(t.Rotated.Unix()), shared)
}
