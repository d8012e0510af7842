package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isochrone/isochrone/dataplane/bgp"
	"github.com/isochrone/isochrone/topology"
)

// monitor is what monitoring may ask a process for.
type monitor struct {
	*prometheus.Registry
	readiness func(time.Time) readiness
	bgp       *bgp.Speaker // nil for a process that announces nothing
}

// newRegistry returns what all kinds of process tell that follow the topology. A kind of process adds its own.
func newRegistry(n *node) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.measure(registry)
	return registry
}

// newMonitor returns the monitor of a kind of process that has no other way to be asked.
func newMonitor(n *node, readiness func(time.Time) readiness) *monitor {
	m := &monitor{Registry: newRegistry(n), readiness: readiness}
	gauge(m.Registry, "ready", "1 while /ready says yes.", func() float64 { return truth(readiness(time.Now()).Ready) })
	return m
}

// gauge registers a gauge whose value is found out when it is asked for.
func gauge(registry *prometheus.Registry, name, help string, value func() float64) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isochrone_" + name, Help: help}, value))
}

// measure registers what a process tells of itself and of the topology that it follows.
func (n *node) measure(registry *prometheus.Registry) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "isochrone_build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": version(), "go": goVersion()},
	})
	build.Set(1)
	registry.MustRegister(build, newVantageMetrics(n))
	of := func(name, help string, value func(*topology.Snapshot) float64) { // 0 before there is a snapshot
		gauge(registry, name, help, func() float64 {
			if snap := n.Snapshot(); snap != nil {
				return value(snap)
			}
			return 0
		})
	}
	gauge(registry, "etcd_up", "1 while etcd, or the relay in its place, answers and the topology can be followed.", func() float64 { return truth(n.contact.up()) })
	gauge(registry, "etcd_last_contact_seconds", "Seconds since etcd, or the relay in its place, answered, or since the start.", func() float64 { return n.contact.age().Seconds() })
	of("topology_revision", "Revision of the store that was read last; 0 for none since the start.", func(s *topology.Snapshot) float64 { return float64(s.Revision) })
	of("topology_good_revision", "Revision of the topology in force; 0 for none.", func(s *topology.Snapshot) float64 { return float64(s.Good) })
	of("topology_faults", "Faults of the newest topology, which is not in force when there are any.", func(s *topology.Snapshot) float64 { return float64(len(s.Faults)) })
	of("topology_beyond_schema", "1 while the newest topology is not in force because this program is too old to know its schema.", func(s *topology.Snapshot) float64 { return truth(s.TooOld) })
	of("topology_warnings", "What is likely not meant of the topology and the overrides in force.", func(s *topology.Snapshot) float64 { return float64(len(s.Warnings)) })
	of("topology_ignored", "Overrides, keys, secrets and zone signing data that are invalid and ignored, each by itself.", func(s *topology.Snapshot) float64 { return float64(len(s.Ignored)) })
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "isochrone_topology_hash", ConstLabels: prometheus.Labels{"kind": n.kind},
		Help: "A number that is the same in all processes of a kind in which the same topology and overrides are in force; 0 for none.",
	}, func() float64 {
		if snap := n.Snapshot(); snap != nil {
			return hashNumber(snap.Hash)
		}
		return 0
	}))
	if n.secrets != nil {
		gauge(registry, "secrets_unopened", "1 while a sealed secret is there for this process that it cannot open.", func() float64 { return truth(n.secrets.failed() != "") })
	}
}

// measure registers what is told of the geo database.
func (s *sources) measure(registry *prometheus.Registry) {
	gauge(registry, "geo_built_timestamp_seconds", "When the geo database was built.", func() float64 { return float64(s.info().Built.Unix()) })
	gauge(registry, "geo_fallbacks", "Files that clients are placed by which are broken, and replaced by their last good copy or by nothing.", func() float64 {
		return float64(len(s.current.Load().instead))
	})
}

// measureExpiry registers when a certificate expires.
func measureExpiry(registry *prometheus.Registry, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	gauge(registry, "certificate_expiry_timestamp_seconds", "When the certificate that is served expires.", func() float64 {
		cert, err := certificate(nil)
		if err != nil || cert.Leaf == nil {
			return 0
		}
		return float64(cert.Leaf.NotAfter.Unix())
	})
}

// hashNumber makes of a hash in hexadecimal digits a number that a float64 can hold.
func hashNumber(hash string) float64 {
	const digits = 13
	if len(hash) < digits {
		return 0
	}
	number, err := strconv.ParseUint(hash[:digits], 16, 64)
	if err != nil {
		return 0
	}
	return float64(number)
}

// handler serves what monitoring asks for.
func (m *monitor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("live\n")) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		r := m.readiness(time.Now())
		w.Header().Set("Content-Type", "application/json")
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		writeJSON(w, r)
	})
	if m.bgp != nil {
		mux.HandleFunc("GET "+bgpPath, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			writeJSON(w, m.bgp.Status())
		})
	}
	return mux
}

// run serves on a listener until ctx ends.
func (m *monitor) run(ctx context.Context, l net.Listener) error {
	return serveHTTP(ctx, l, m.handler())
}

// readiness is the answer to /ready.
type readiness struct {
	Ready  bool    `json:"ready"`
	Checks []check `json:"checks"`
}

// check is one reason for being ready or not.
type check struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Value string `json:"value"`
	Bound string `json:"bound,omitempty"` // what the value must not exceed
	Only  string `json:"only,omitempty"`  // "shown": the check does not make the process unready
}

// shown marks checks that people should see and that have no part in the decision.
const shown = "shown"

// ready decides by checks.
func ready(checks ...check) readiness {
	r := readiness{Ready: true, Checks: checks}
	for _, c := range checks {
		r.Ready = r.Ready && (c.OK || c.Only == shown)
	}
	return r
}

// etcdCheck tells whether the topology can be followed.
func (n *node) etcdCheck() check {
	return check{Name: "etcd", OK: n.contact.up(), Value: n.contact.String(), Only: shown}
}

// topologyCheck tells whether the newest topology is the one in force.
func (n *node) topologyCheck() check {
	c := check{Name: "topology", OK: true, Value: "valid", Only: shown}
	if snap := n.Snapshot(); snap != nil && len(snap.Faults) > 0 {
		c.OK, c.Value = false, "the newest is invalid, the last good one is in force: "+snap.Faults[0].String()
	}
	return c
}

// secretsCheck tells whether the sealed secrets that are meant for this node can be opened.
func (n *node) secretsCheck() check {
	failed := n.secrets.failed()
	return check{Name: "secrets", OK: failed == "", Value: orElse(failed, "none is there that cannot be opened"), Only: shown}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func orElse(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return "unknown"
}
