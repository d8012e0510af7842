package controlplane

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of the control API.
type metrics struct {
	requests *prometheus.CounterVec   // by route, method and code
	seconds  *prometheus.HistogramVec // by route
	refused  *prometheus.CounterVec   // by why
	panics   prometheus.Counter
	streams  prometheus.Gauge
	cut      prometheus.Counter
}

func newMetrics(registry *prometheus.Registry, s *Service) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isochrone_control_requests_total", Help: "Requests to the control API, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "isochrone_control_request_seconds", Help: "How long requests to the control API took, streams apart.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}, []string{"route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isochrone_control_refused_total", Help: "Requests that were refused: for their token, their role, too many writes, or guessing.",
		}, []string{"why"}),
		panics:  prometheus.NewCounter(prometheus.CounterOpts{Name: "isochrone_control_panics_total", Help: "Requests that ended in a panic."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "isochrone_control_streams", Help: "Streams of events that are open."}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isochrone_control_streams_cut_total", Help: "Streams of events that were ended because their client read too slowly.",
		}),
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	registry.MustRegister(m.requests, m.seconds, m.refused, m.panics, m.streams, m.cut,
		gauge("isochrone_control_store_revision", "Revision of the store that has been read.", func() float64 {
			if snap := s.Snapshot(); snap != nil {
				return float64(snap.Revision)
			}
			return 0
		}),
		gauge("isochrone_control_topology_revision", "Revision of the topology in force.", func() float64 {
			if snap := s.Snapshot(); snap != nil {
				return float64(snap.Good)
			}
			return 0
		}),
		gauge("isochrone_control_topology_faults", "Faults of the newest topology, which is not in force if there are any.", func() float64 {
			if snap := s.Snapshot(); snap != nil {
				return float64(len(snap.Faults))
			}
			return 0
		}),
		gauge("isochrone_control_leader", "Whether this control plane does the leader's tasks.", func() float64 {
			if s.Leader != nil && s.Leader() {
				return 1
			}
			return 0
		}),
		gauge("isochrone_control_nodes_behind", "Nodes in which another topology is in force than here.", func() float64 { return float64(s.behind()) }),
	)
	return m
}

// counted counts the requests of a route.
func (m *metrics) counted(route string, next http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, noted := time.Now(), &noting{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(noted, r)
		m.requests.WithLabelValues(route, methodOf(r.Method), strconv.Itoa(noted.code)).Inc()
		if route != eventsPath && !strings.HasPrefix(route, "/v1/relay/") { // which are streams
			seconds.Observe(time.Since(began).Seconds())
		}
	})
}

// methodOf keeps clients from making metrics up.
func methodOf(method string) string {
	switch method {
	case "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH":
		return method
	}
	return "other"
}

// noting notes the status of an answer.
type noting struct {
	http.ResponseWriter
	code    int
	written bool
}

// WriteHeader implements http.ResponseWriter.
func (n *noting) WriteHeader(code int) {
	if !n.written {
		n.code, n.written = code, true
	}
	n.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }
