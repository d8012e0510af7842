package dataplane

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Breakers open after a number of failures in a row and let one envelope through after a while.
const (
	breakerFailures = 5
	breakerPause    = time.Second
)

// clusters knows, for one PoP, where each service's envelopes go.
type clusters struct {
	config  Config
	ranked  atomic.Pointer[ranking]
	decided atomic.Pointer[decisions]

	mu       sync.Mutex
	breakers map[string]*breaker
}

type breaker = gobreaker.CircuitBreaker[*http.Response]

// destination is a cluster as a PoP sees it.
type destination struct {
	name string
	*topology.Cluster
	breaker *breaker
}

// ranking has the clusters of each service of one topology, nearest first.
type ranking struct {
	topology *topology.Topology
	services map[string][]destination
}

func newClusters(c Config) *clusters { return &clusters{config: c, breakers: map[string]*breaker{}} }

// order returns the clusters that an envelope may go to, in the order in which to try them: those that are well, by
// predicted RTT, then those that are held to be dead, in case they are not. An operator's verdict counts in place of health's. A
// cluster that is drained comes only if there are no others; one that is disabled never.
func (c *clusters) order(service string) []destination {
	snap := c.config.Snapshot()
	ranked := c.ranking(snap.Topology)
	verdicts, decided := c.config.Verdicts(), c.decisions(snap, time.Now())
	var well, dead, draining []destination
	for _, d := range ranked.services[service] {
		switch d.standing(verdicts, decided) {
		case standsDraining:
			draining = append(draining, d)
		case standsDown:
			dead = append(dead, d)
		default:
			well = append(well, d)
		}
	}
	if usable := append(well, dead...); len(usable) > 0 {
		return usable
	}
	return draining
}

// How a cluster stands with a PoP.
const (
	standsWell     = "well"
	standsFailing  = "failing" // held to be well, but left alone for a moment after failures in a row
	standsDown     = "down"
	standsDraining = "draining"
)

var allStandings = []string{standsWell, standsFailing, standsDown, standsDraining}

// standing is what operators and health say of a cluster, the operators first.
func (d *destination) standing(verdicts health.Verdicts, decided *decisions) string {
	decision := decided.Cluster(d.name)
	down := verdicts.IsDown(health.Target{Kind: health.Cluster, Name: d.name})
	if forced, ok := decision.Verdict(); ok {
		down = forced == topology.ForceDown
	}
	switch {
	case d.State == topology.Draining || decision.Drained():
		return standsDraining
	case down:
		return standsDown
	}
	return standsWell
}

// standings tells how each cluster stands that some envelope may go to.
func (c *clusters) standings() map[string]string {
	snap := c.config.Snapshot()
	if snap == nil {
		return nil
	}
	verdicts, decided := c.config.Verdicts(), c.decisions(snap, time.Now())
	all := map[string]string{}
	for _, ranked := range c.ranking(snap.Topology).services {
		for _, d := range ranked {
			is := d.standing(verdicts, decided)
			if is == standsWell && d.breaker.State() == gobreaker.StateOpen {
				is = standsFailing
			}
			all[d.name] = is
		}
	}
	return all
}

// decisions are what operators have decided by the overrides of a snapshot.
type decisions struct {
	snapshot *topology.Snapshot
	topology.Decisions
}

// decisions returns what is in effect, which is found out anew with each snapshot and when an override ends.
func (c *clusters) decisions(snap *topology.Snapshot, now time.Time) *decisions {
	if known := c.decided.Load(); known != nil && known.snapshot == snap {
		if until, ok := known.Until(); !ok || now.Before(until) {
			return known
		}
	}
	made := &decisions{snap, topology.Decide(snap.Overrides, now)}
	c.decided.Store(made)
	return made
}

// ranking returns the ranking of a topology, which is made when it is first asked for.
func (c *clusters) ranking(t *topology.Topology) *ranking {
	if known := c.ranked.Load(); known != nil && known.topology == t {
		return known
	}
	made := &ranking{t, map[string][]destination{}}
	pop := t.PoPs[c.config.Name]
	for name, service := range t.Services {
		names := service.Clusters
		if names == nil {
			names = slices.Sorted(maps.Keys(t.Clusters))
		}
		var near []destination
		rtts := map[string]float64{}
		for _, cluster := range names {
			if found := t.Clusters[cluster]; found.State != topology.Disabled {
				near = append(near, destination{cluster, found, c.breaker(cluster)})
				rtts[cluster] = rttTo(c.config.Model, pop, found)
			}
		}
		slices.SortStableFunc(near, func(a, b destination) int {
			if rtts[a.name] < rtts[b.name] {
				return -1
			} else if rtts[a.name] > rtts[b.name] {
				return 1
			}
			return 0
		})
		made.services[name] = near
	}
	c.ranked.Store(made)
	return made
}

func rttTo(model *rtt.Model, pop *topology.PoP, cluster *topology.Cluster) float64 {
	if pop == nil { // removed from the topology while envelopes are left
		return 0
	}
	return model.Milliseconds(pop.Location, cluster.Location)
}

// breaker returns the breaker of a cluster, which outlives topologies.
func (c *clusters) breaker(cluster string) *breaker {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.breakers[cluster]
	if b == nil {
		b = gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{
			Name: cluster, Timeout: breakerPause,
			ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= breakerFailures },
		})
		c.breakers[cluster] = b
	}
	return b
}
