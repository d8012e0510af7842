package main

import (
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler serves what monitoring asks a DNS node for.
func (d *dnsNode) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics(), promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("live\n")) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		r := d.readiness(time.Now())
		w.Header().Set("Content-Type", "application/json")
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		writeJSON(w, r)
	})
	return mux
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
	Only  string `json:"only,omitempty"`  // "shown": the check does not make the node unready
}

// shown marks checks that people should see and that have no part in the decision.
const shown = "shown"

func (d *dnsNode) readiness(now time.Time) readiness {
	f := d.flags.Load()
	r := readiness{Ready: true}
	add := func(c check) {
		r.Checks = append(r.Checks, c)
		r.Ready = r.Ready && (c.OK || c.Only == shown)
	}
	view := check{Name: "view", Value: "none: no topology has been read from etcd or from disk"}
	if v := d.sources.live.View(); v != nil {
		view.OK, view.Value = true, "in force"
	}
	add(view)
	add(d.verdictCheck(f, now))
	add(d.geoCheck(f, now))
	problems := d.server.Problems()
	add(check{Name: "signing", OK: len(problems) == 0, Value: orElse(strings.Join(problems, "; "), "every signed zone has its keys")})

	add(check{Name: "etcd", OK: d.node.contact.up(), Value: d.node.contact.String(), Only: shown})
	topology := check{Name: "topology", OK: true, Value: "valid", Only: shown}
	if snap := d.node.Snapshot(); snap != nil && len(snap.Faults) > 0 {
		topology.OK, topology.Value = false, "the newest is invalid, the last good one is in force: "+snap.Faults[0].String()
	}
	add(topology)
	config := check{Name: "config", OK: true, Value: "as read last", Only: shown}
	if _, failed := d.reloads.last(); failed != nil {
		config.OK, config.Value = false, failed.Error()
	}
	add(config)
	failed := d.node.secrets.failed()
	add(check{Name: "secrets", OK: failed == "", Value: orElse(failed, "none is there that cannot be opened"), Only: shown})
	return r
}

// verdictCheck tells whether the verdicts are those of now.
func (d *dnsNode) verdictCheck(f *dnsFlags, now time.Time) check {
	c := check{Name: "verdict_age", Bound: f.readyVerdictAge.String()}
	if !d.probing.Load() {
		c.OK, c.Bound, c.Value = true, "", "nobody probes from here"
		return c
	}
	if !d.allProbed() {
		c.Value = "not every PoP has been probed yet"
		return c
	}
	age, any := d.verdictAge(now)
	c.OK, c.Value = age <= f.readyVerdictAge, age.Round(time.Millisecond).String()
	if !any {
		c.OK, c.Value = true, "there is no PoP to probe"
	}
	return c
}

// allProbed reports whether every PoP has been probed at one time since the start.
func (d *dnsNode) allProbed() bool {
	snap := d.node.Snapshot()
	if d.probed.Load() || snap == nil {
		return d.probed.Load()
	}
	verdicts := d.node.Verdicts()
	for _, t := range popTargets(snap) {
		if verdicts[t.Target].Seen.IsZero() {
			return false
		}
	}
	d.probed.Store(true)
	return true
}

// verdictAge returns how old the newest probe is, and false when there is none.
func (d *dnsNode) verdictAge(now time.Time) (time.Duration, bool) {
	var newest time.Time
	for _, v := range d.node.Verdicts() {
		if v.Seen.After(newest) {
			newest = v.Seen
		}
	}
	return now.Sub(newest), !newest.IsZero()
}

func (d *dnsNode) geoCheck(f *dnsFlags, now time.Time) check {
	p := d.sources.current.Load()
	age := now.Sub(p.info.Built)
	c := check{Name: "geo_age", OK: true, Value: age.Round(time.Hour).String()}
	if f.readyGeoAge > 0 {
		c.OK, c.Bound = age <= f.readyGeoAge, f.readyGeoAge.String()
	}
	if len(p.instead) > 0 {
		c.Value += "; broken files are replaced: " + p.replaced()
	}
	return c
}

// metrics returns a registry with what is known of this process.
func (d *dnsNode) metrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), d.server.Collector(),
	)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "isochrone_build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": version(), "go": goVersion()},
	})
	build.Set(1)
	registry.MustRegister(build)
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isochrone_" + name, Help: help}, value))
	}
	gauge("etcd_up", "1 while etcd, or the relay in its place, answers and the topology can be followed.", func() float64 { return truth(d.node.contact.up()) })
	gauge("etcd_last_contact_seconds", "Seconds since etcd, or the relay in its place, answered, or since the start.", func() float64 { return d.node.contact.age().Seconds() })
	gauge("topology_revision", "Revision of the store that was read last; 0 for none since the start.", func() float64 { return float64(d.storeRevision()) })
	gauge("topology_good_revision", "Revision of the topology in force; 0 for none.", func() float64 {
		if snap := d.node.Snapshot(); snap != nil {
			return float64(snap.Good)
		}
		return 0
	})
	gauge("topology_faults", "Faults of the newest topology, which is not in force when there are any.", func() float64 {
		if snap := d.node.Snapshot(); snap != nil {
			return float64(len(snap.Faults))
		}
		return 0
	})
	gauge("geo_built_timestamp_seconds", "When the geo database was built.", func() float64 { return float64(d.sources.info().Built.Unix()) })
	gauge("geo_fallbacks", "Files that clients are placed by which are broken, and replaced by their last good copy or by nothing.", func() float64 {
		return float64(len(d.sources.current.Load().instead))
	})
	gauge("probing", "1 while PoPs are probed from here.", func() float64 { return truth(d.probing.Load()) })
	gauge("verdict_age_seconds", "Seconds since the newest probe; 0 when there is none.", func() float64 {
		if age, any := d.verdictAge(time.Now()); any {
			return age.Seconds()
		}
		return 0
	})
	gauge("ready", "1 while /ready says yes.", func() float64 { return truth(d.readiness(time.Now()).Ready) })
	gauge("config_last_reload_successful", "1 unless the last reload was refused.", func() float64 {
		_, failed := d.reloads.last()
		return truth(failed == nil)
	})
	gauge("config_last_reload_success_timestamp_seconds", "When the configuration was read last without a fault.", func() float64 {
		at, _ := d.reloads.last()
		return float64(at.Unix())
	})
	if d.start.cert != "" {
		gauge("certificate_expiry_timestamp_seconds", "When the certificate for TLS and HTTPS expires.", d.certificateExpiry)
	}
	return registry
}

func (d *dnsNode) certificateExpiry() float64 {
	cert, err := d.certificate(nil)
	if err != nil || cert.Leaf == nil {
		return 0
	}
	return float64(cert.Leaf.NotAfter.Unix())
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
