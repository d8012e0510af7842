package main

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology/store"
)

// spiller plans shares while this process leads.
func (c *controlParts) spiller() *controlplane.Spiller {
	return &controlplane.Spiller{Etcd: c.etcd, Root: strings.TrimSuffix(c.root, "/") + "/", View: c.service.View, Nodes: c.known, Log: c.log}
}

// known returns the nodes as they were read last, nil before.
func (c *controlParts) known() map[string]store.Node {
	if nodes := c.nodes.Load(); nodes != nil {
		return *nodes
	}
	return nil
}

// followSpillState keeps what the leader says of shares, until ctx ends. What it said last stays when nobody leads.
func (c *controlParts) followSpillState(ctx context.Context) error {
	return (&store.Tail{Feed: c.store.Feed(store.Sections{controlplane.SpillStateKey}), Take: func(u store.Update) {
		if text, told := u.Put[controlplane.SpillStateKey]; told {
			if state, err := controlplane.DecodeSpillState(text); err == nil {
				c.spill.Store(state)
			}
		}
	}}).Run(ctx)
}

// measureSpill registers what is told of shares.
func (c *controlParts) measureSpill(registry *prometheus.Registry) {
	registry.MustRegister(newSpillMetrics(c))
}
