package main

import (
	"slices"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/topology"
)

// clusterTargets lists the clusters for probing.
func clusterTargets(snap *topology.Snapshot) []probe.Target {
	var targets []probe.Target
	for name, c := range snap.Topology.Clusters {
		if c.State == topology.Disabled {
			continue
		}
		how := c.Probed()
		t := probe.Target{Target: health.Target{Kind: health.Cluster, Name: name}, Endpoints: c.Endpoints, Healthz: how.Path}
		if rpc := how.JSONRPC; rpc != nil {
			t.Chain = &probe.Chain{
				URLs: rpc.URLs(c.Endpoints), MinPeers: rpc.Peers(), MaxLag: rpc.MaxLagBlocks, Syncing: rpc.Syncing, Others: othersOfChain(snap.Topology, name),
			}
		}
		targets = append(targets, t)
	}
	return targets
}

// othersOfChain returns where the clusters are asked for their views of the chain that do the work of the same services as one, by name.
func othersOfChain(t *topology.Topology, one string) map[string][]string {
	others := map[string][]string{}
	for _, s := range t.Services {
		does := func(cluster string) bool { return len(s.Clusters) == 0 || slices.Contains(s.Clusters, cluster) }
		if !does(one) {
			continue
		}
		for name, c := range t.Clusters {
			if rpc := c.Probed().JSONRPC; name != one && rpc != nil && c.State != topology.Disabled && does(name) {
				others[name] = rpc.URLs(c.Endpoints)
			}
		}
	}
	return others
}
