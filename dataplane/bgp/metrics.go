package bgp

import (
	"github.com/prometheus/client_golang/prometheus"
)

var (
	sessionUp = prometheus.NewDesc("isochrone_bgp_session_up", "1 while the session with a peer is established.", []string{"peer", "address"}, nil)
	received  = prometheus.NewDesc("isochrone_bgp_received_prefixes", "Prefixes that a peer sends, all of which are refused.", []string{"peer", "address"}, nil)
	told      = prometheus.NewDesc("isochrone_bgp_advertised_prefixes", "Prefixes that a peer is told.", []string{"peer", "address"}, nil)
	prefixIs  = prometheus.NewDesc("isochrone_bgp_prefix_action", "1 for what is done with a prefix: announce, drain (announced with GRACEFUL_SHUTDOWN) or withdraw.", []string{"prefix", "action"}, nil)
	prefixHas = prometheus.NewDesc("isochrone_bgp_prefix_since_timestamp_seconds", "Since when that is done with a prefix.", []string{"prefix"}, nil)
	held      = prometheus.NewDesc("isochrone_bgp_prefix_held", "1 while the floor keeps a prefix announced, against the node's will.", []string{"prefix"}, nil)
	changes   = prometheus.NewDesc("isochrone_bgp_changes_total", "How often it was decided to do something else with a prefix.", []string{"action"}, nil)
)

// collector tells a speaker's status to Prometheus.
type collector struct{ *Speaker }

// Collector returns the speaker's metrics.
func (s *Speaker) Collector() prometheus.Collector { return collector{s} }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionUp, received, told, prefixIs, prefixHas, held, changes} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	truth := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	status := c.Status()
	for _, one := range status.Sessions {
		labels := []string{one.Peer, one.Address.String()}
		gauge(sessionUp, truth(one.State == Established), labels...)
		gauge(received, float64(one.Received), labels...)
		gauge(told, float64(one.Advertised), labels...)
	}
	for _, p := range status.Prefixes {
		for _, action := range actions {
			gauge(prefixIs, truth(action == p.Action), p.Prefix.String(), string(action))
		}
		gauge(prefixHas, float64(p.Since.UnixNano())/1e9, p.Prefix.String())
		gauge(held, truth(p.Held), p.Prefix.String())
	}
	for i, action := range actions {
		out <- prometheus.MustNewConstMetric(changes, prometheus.CounterValue, float64(c.changed[i].Load()), string(action))
	}
}
