package forward

import (
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
)

// Seen returns what envelopes have met at clusters since it was asked last, as passive observations. One alone should ask.
func (f *Forwarder) Seen() []health.Observation {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []health.Observation
	for name, c := range f.clusters {
		if o, ok := c.met.Observation(health.Target{Kind: health.Cluster, Name: name}); ok {
			all = append(all, o)
		}
		c.met = health.Tally{}
	}
	return all
}

// Reach tells whether the clusters of a service can be reached.
type Reach struct {
	Here      bool // some can, from here
	Elsewhere bool // some cannot from here, but are well by their verdicts: others reach them
}

// Reach tells for each service that has clusters, those of disabled ones apart, whether its envelopes can be delivered. Lost are the clusters
// that this PoP knows itself not to reach. One whose breakers are open is not reached either, nor one that is held to be dead.
func (f *Forwarder) Reach(lost map[string]bool) map[string]Reach {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	all := map[string]Reach{}
	for name, r := range f.services {
		if len(r.clusters) == 0 {
			continue
		}
		all[name] = Reach{
			Here: slices.ContainsFunc(r.clusters, func(c *cluster) bool { return c.reached() && !lost[c.name] }),
			Elsewhere: slices.ContainsFunc(r.clusters, func(c *cluster) bool {
				return c.standing != Down && (!c.reached() || lost[c.name])
			}),
		}
	}
	return all
}

// reached reports whether the cluster takes envelopes, as far as the forwarder can tell.
func (c *cluster) reached() bool {
	standing := c.told()
	return standing == Well || standing == Draining && slices.ContainsFunc(c.endpoints, func(e *endpoint) bool { return e.breaker == closed })
}
