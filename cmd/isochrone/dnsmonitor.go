package main

import (
	"strings"
	"time"
)

func (d *dnsNode) readiness(now time.Time) readiness {
	f := d.flags.Load()
	view := check{Name: "view", Value: "none: no topology has been read from etcd or from disk"}
	if v := d.sources.live.View(); v != nil {
		view.OK, view.Value = true, "in force"
	}
	problems := d.server.Problems()
	signing := check{Name: "signing", OK: len(problems) == 0, Value: orElse(strings.Join(problems, "; "), "every signed zone has its keys")}
	config := check{Name: "config", OK: true, Value: "as read last", Only: shown}
	if _, failed := d.reloads.last(); failed != nil {
		config.OK, config.Value = false, failed.Error()
	}
	return ready(view, d.verdictCheck(f, now), d.geoCheck(f, now), signing, d.node.etcdCheck(), d.node.topologyCheck(), config, d.node.secretsCheck(), d.node.vantagesCheck(),
		d.node.nameCheck())
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

// monitor tells what is known of this process.
func (d *dnsNode) monitor() *monitor {
	m := newMonitor(d.node, d.readiness)
	m.MustRegister(d.server.Collector())
	d.sources.measure(m.Registry)
	if d.bgp != nil {
		m.MustRegister(d.bgp.speaker.Collector())
		m.bgp = d.bgp.speaker
	}
	gauge := func(name, help string, value func() float64) { gauge(m.Registry, name, help, value) }
	gauge("probing", "1 while PoPs are probed from here.", func() float64 { return truth(d.probing.Load()) })
	gauge("verdict_age_seconds", "Seconds since the newest probe; 0 when there is none.", func() float64 {
		if age, any := d.verdictAge(time.Now()); any {
			return age.Seconds()
		}
		return 0
	})
	gauge("config_last_reload_successful", "1 unless the last reload was refused.", func() float64 {
		_, failed := d.reloads.last()
		return truth(failed == nil)
	})
	gauge("config_last_reload_success_timestamp_seconds", "When the configuration was read last without a fault.", func() float64 {
		at, _ := d.reloads.last()
		return float64(at.Unix())
	})
	if d.start.cert != "" {
		measureExpiry(m.Registry, d.certificate)
	}
	return m
}
