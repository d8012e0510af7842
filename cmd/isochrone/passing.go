package main

import (
	"net/netip"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/dataplane/handover"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// passingAddress returns what finds, for a PoP, where the packets of another one's connections are passed on to: the first address that is its own.
// One that is down gets none: its clients are to notice.
func (n *node) passingAddress(own string) func(pop uint32) (netip.AddrPort, bool) {
	type place struct {
		name string
		at   netip.AddrPort
	}
	type places struct {
		of       *topology.Topology
		byNumber map[uint32]place
	}
	var known atomic.Pointer[places]
	return func(pop uint32) (netip.AddrPort, bool) {
		snap := n.Snapshot()
		if snap == nil {
			return netip.AddrPort{}, false
		}
		now := known.Load()
		if now == nil || now.of != snap.Topology {
			now = &places{snap.Topology, map[uint32]place{}}
			for name, p := range snap.Topology.PoPs {
				if len(p.Addresses) > 0 && name != own {
					now.byNumber[handover.PoPNumber(name)] = place{name, netip.AddrPortFrom(p.Addresses[0], p.Port)}
				}
			}
			known.Store(now)
		}
		to, ok := now.byNumber[pop]
		return to.at, ok && !n.Verdicts().IsDown(health.Target{Kind: health.PoP, Name: to.name})
	}
}

// passingCollector tells what packets PoPs have passed to each other.
func passingCollector(name string, m *handover.Mesh) prometheus.Collector {
	return &passingMetrics{m, prometheus.NewDesc("isochrone_passed_packets_total", "QUIC packets that BGP has carried to another PoP than that of their connection.",
		[]string{"outcome"}, prometheus.Labels{"pop": name})}
}

type passingMetrics struct {
	mesh *handover.Mesh
	desc *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (m *passingMetrics) Describe(to chan<- *prometheus.Desc) { to <- m.desc }

// Collect implements prometheus.Collector.
func (m *passingMetrics) Collect(to chan<- prometheus.Metric) {
	c := &m.mesh.Counts
	for outcome, n := range map[string]*atomic.Uint64{
		"passed": &c.Passed, "taken": &c.Taken, "unknown": &c.Unknown, "refused": &c.Refused, "homeless": &c.Homeless, "lost": &c.Lost,
	} {
		to <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(n.Load()), outcome)
	}
}
