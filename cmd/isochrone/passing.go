package main

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/dataplane/handover"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// idsOf returns the connection ids of a process, with a key that is made of a secret.
func idsOf(own handover.ID, secret string) *handover.IDs {
	sum := sha256.Sum256([]byte("connection ids\x00" + secret))
	return handover.NewIDs(own, [16]byte(sum[:]))
}

// otherIDs returns what reads connection ids by each of the secrets that PoPs share now: a process makes ids by the one that was the first when it
// began, and while it is changed, others have begun with another.
func otherIDs(own handover.ID, secrets func() [][]byte) func() []*handover.IDs {
	type made struct {
		of  [][]byte
		ids []*handover.IDs
	}
	var last atomic.Pointer[made]
	return func() []*handover.IDs {
		now := secrets()
		m := last.Load()
		if m == nil || !slices.EqualFunc(m.of, now, bytes.Equal) {
			m = &made{of: now}
			for _, secret := range now {
				m.ids = append(m.ids, idsOf(own, string(secret)))
			}
			last.Store(m)
		}
		return m.ids
	}
}

// passingAddress returns what finds, for a PoP, where the packets of another one's connections are passed on to: the first address that is its own.
// One that is down, or forced down, gets none: its clients are to notice.
func (n *node) passingAddress(own string) func(pop uint32) (netip.AddrPort, bool) {
	type place struct {
		name   string
		at     netip.AddrPort
		forced topology.ForcedVerdict // empty for none
	}
	type places struct {
		of       *topology.Snapshot
		made     time.Time
		byNumber map[uint32]place
	}
	var known atomic.Pointer[places]
	return func(pop uint32) (netip.AddrPort, bool) {
		snap := n.Snapshot()
		if snap == nil {
			return netip.AddrPort{}, false
		}
		now := known.Load()
		if now == nil || now.of != snap || time.Since(now.made) > time.Second { // overrides expire
			now = &places{snap, time.Now(), map[uint32]place{}}
			decided := topology.Decide(snap.Overrides, now.made)
			for name, p := range snap.Topology.PoPs {
				if len(p.Addresses) > 0 && name != own {
					forced, _ := decided.PoP(name).Verdict()
					now.byNumber[handover.PoPNumber(name)] = place{name, netip.AddrPortFrom(p.Addresses[0], p.Port), forced}
				}
			}
			known.Store(now)
		}
		to, ok := now.byNumber[pop]
		down := to.forced == topology.ForceDown || to.forced == "" && n.Verdicts().IsDown(health.Target{Kind: health.PoP, Name: to.name})
		return to.at, ok && !down
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
