package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/peer"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/vantage"
)

// signsInterval is how often PoPs are asked how they are, and what their requests have met.
const signsInterval = time.Second

// tellOfPoPs has a vantage say what the PoPs that run here find about themselves, and take what their traffic has met, until ctx ends.
func (n *node) tellOfPoPs(ctx context.Context, v *vantage.Node) {
	conditions := map[string]*dataplane.Condition{}
	look := time.NewTicker(signsInterval)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		for _, o := range n.trafficSeen() {
			v.Observe(o)
		}
		said := n.conditionsOf(conditions, n.lostClusters(v), time.Now())
		switch {
		case n.kind != "pop":
			v.Host(said)
		case len(said) == 1:
			v.Degrade(said[0].Degraded)
			v.Shed(said[0].Shedding)
		}
	}
}

// conditionsOf returns what the PoPs that run here say of themselves, by name.
func (n *node) conditionsOf(conditions map[string]*dataplane.Condition, lost map[string]bool, now time.Time) []health.Hosted {
	var said []health.Hosted
	n.running.Range(func(name, value any) bool {
		pop := value.(*dataplane.PoP)
		if pop.Draining() {
			return true
		}
		condition := conditions[name.(string)]
		if condition == nil {
			condition = &dataplane.Condition{}
			conditions[name.(string)] = condition
		}
		h := health.Hosted{PoP: name.(string)}
		before := condition.Degraded()
		if h.Degraded, h.Shedding = condition.Take(pop.Signs(lost), now); h.Degraded != before {
			n.tellCondition(h)
		}
		said = append(said, h)
		return true
	})
	slices.SortFunc(said, func(a, b health.Hosted) int { return strings.Compare(a.PoP, b.PoP) })
	return said
}

// tellCondition logs what a PoP begins or ceases to say of itself.
func (n *node) tellCondition(h health.Hosted) {
	if h.Degraded == "" {
		n.log.Info("this PoP can do all of its work again", "pop", h.PoP)
		return
	}
	n.log.Warn("this PoP is degraded: its clients are sent to others, as far as there are any that are not", "pop", h.PoP, "reason", h.Degraded)
}

// lostClusters are those that the probes of this node do not reach.
func (n *node) lostClusters(v *vantage.Node) map[string]bool {
	snap := n.Snapshot()
	if snap == nil {
		return nil
	}
	lost := map[string]bool{}
	for name := range snap.Topology.Clusters {
		if s, seen := v.Sees(health.Target{Kind: health.Cluster, Name: name}); seen && s.Status == health.Down {
			lost[name] = true
		}
	}
	return lost
}

// trafficSeen is what the traffic of the PoPs that run here has met since it was asked last: at clusters, and at other PoPs.
func (n *node) trafficSeen() (all []health.Observation) {
	n.running.Range(func(_, pop any) bool {
		all = append(all, pop.(*dataplane.PoP).Seen()...)
		return true
	})
	n.calling.Range(func(_, client any) bool {
		all = append(all, client.(*peer.Client).Seen()...)
		return true
	})
	return all
}
