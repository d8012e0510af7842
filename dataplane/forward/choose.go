package forward

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// How a cluster stands with a PoP.
const (
	Well     = "well"
	Failing  = "failing" // held to be well, but the breakers of all its endpoints are open
	Down     = "down"
	Draining = "draining"
)

// AllStandings lists how a cluster may stand.
var AllStandings = []string{Well, Failing, Down, Draining}

// A cluster goes before another that was before it when its measured RTT is so much shorter, so that the order does not flap.
const (
	nearerShare = 0.85
	nearerBy    = 2 * time.Millisecond
)

// cluster is a cluster as a PoP sees it. It outlives topologies. All is guarded by the Forwarder's mutex.
type cluster struct {
	name      string
	object    *topology.Cluster
	endpoints []*endpoint
	predicted time.Duration // RTT
	standing  string        // well, down or draining: what operators and health say, operators first
	slowFrom  time.Time     // when it came back
	credit    float64       // of the slow start
	met       health.Tally  // what envelopes have met there since Seen was asked
}

// share is which part of its envelopes a cluster gets that has come back lately; 1 is all.
func (c *cluster) share(now time.Time) float64 {
	if c.slowFrom.IsZero() {
		return 1
	}
	since := now.Sub(c.slowFrom)
	if since >= slowStart {
		c.slowFrom = time.Time{}
		return 1
	}
	return leastShare + (1-leastShare)*float64(since)/float64(slowStart)
}

// turn reports whether the slow start lets the next envelope go to the cluster.
func (c *cluster) turn(now time.Time) bool {
	share := c.share(now)
	if share >= 1 {
		return true
	}
	if c.credit += share; c.credit < 1 {
		return false
	}
	c.credit--
	return true
}

// rtt is the shortest of its endpoints' measured ones; false when none is measured.
func (c *cluster) rtt() (time.Duration, bool) {
	shortest, found := time.Duration(0), false
	for _, e := range c.endpoints {
		if e.rtt > 0 && (!found || e.rtt < shortest) {
			shortest, found = e.rtt, true
		}
	}
	return shortest, found
}

// nearer reports whether b, which stands behind a, should stand before it. What is measured is compared with what is measured, and
// predictions with predictions: the two differ by more than clusters do.
func nearer(b, a *cluster) bool {
	measuredB, okB := b.rtt()
	measuredA, okA := a.rtt()
	if okA && okB {
		return float64(measuredB) < nearerShare*float64(measuredA)-float64(nearerBy)
	}
	return false
}

func (c *cluster) allowed(now time.Time) bool {
	return slices.ContainsFunc(c.endpoints, func(e *endpoint) bool { return e.allows(now) || e.breaker == trial })
}

// route is where the envelopes of a service may go, as of a refresh.
type route struct {
	clusters  []*cluster // all of the service that are not disabled, nearest first
	order     []*cluster // those that an envelope may go to, in the order in which to try them
	deadAfter time.Duration
}

// routes is what Next reads.
type routes struct {
	snapshot *topology.Snapshot
	next     map[string]string // by service
}

// refresh finds out anew what is in force. The caller holds mu.
func (f *Forwarder) refresh(now time.Time) {
	snap := f.config.Snapshot()
	if snap == nil {
		return
	}
	if f.topology != snap.Topology {
		f.adopt(snap.Topology)
	}
	if until, ok := f.decided.Until(); f.snapshot != snap || ok && !now.Before(until) {
		f.decided = topology.Decide(snap.Overrides, now)
	}
	f.snapshot = snap
	verdicts := f.config.Verdicts()
	var left []*cluster
	for _, c := range f.clusters {
		standing := c.stands(verdicts, &f.decided)
		if c.standing == Down && standing == Well {
			c.slowFrom = now
		}
		if standing != Well && c.standing == Well {
			left = append(left, c)
		}
		c.standing = standing
	}
	made := &routes{snap, make(map[string]string, len(f.services))}
	for name, r := range f.services {
		r.sort()
		if len(r.order) > 0 {
			made.next[name] = r.order[0].name
			for _, c := range r.order {
				if c.allowed(now) {
					made.next[name] = c.name
					break
				}
			}
		}
	}
	f.routes.Store(made)
	for _, c := range left {
		for _, e := range c.endpoints {
			f.evict(e, 0, now)
		}
	}
}

// stands tells how a cluster stands by what operators and health say.
func (c *cluster) stands(verdicts health.Verdicts, decided *topology.Decisions) string {
	decision := decided.Cluster(c.name)
	down := verdicts.IsDown(health.Target{Kind: health.Cluster, Name: c.name})
	if forced, ok := decision.Verdict(); ok {
		down = forced == topology.ForceDown
	}
	switch {
	case c.object.State == topology.Draining || decision.Drained():
		return Draining
	case down:
		return Down
	}
	return Well
}

// sort puts the clusters in order: those that are well, nearest first, then those that are held to be dead, in case they are not. One
// that is drained comes only if there are no others.
func (r *route) sort() {
	for range r.clusters {
		swapped := false
		for i := 1; i < len(r.clusters); i++ {
			if nearer(r.clusters[i], r.clusters[i-1]) {
				r.clusters[i], r.clusters[i-1] = r.clusters[i-1], r.clusters[i]
				swapped = true
			}
		}
		if !swapped {
			break
		}
	}
	r.order = r.order[:0]
	for _, standing := range []string{Well, Down, Draining} {
		if standing == Draining && len(r.order) > 0 {
			break
		}
		for _, c := range r.clusters {
			if c.standing == standing {
				r.order = append(r.order, c)
			}
		}
	}
}

// adopt takes over a topology. What is known of endpoints that stay is kept.
func (f *Forwarder) adopt(t *topology.Topology) {
	f.topology = t
	clusters := map[string]*cluster{}
	pop := t.PoPs[f.config.Name]
	for name, object := range t.Clusters {
		if object.State == topology.Disabled {
			continue
		}
		c := f.clusters[name]
		if c == nil {
			c = &cluster{name: name, standing: Well}
		}
		c.object, c.predicted = object, 0
		if pop != nil && f.config.Model != nil { // nil: removed from the topology while envelopes are left
			c.predicted = f.config.Model.RTT(pop.Location, object.Location)
		}
		f.adoptEndpoints(c)
		clusters[name] = c
	}
	for name, c := range f.clusters {
		if clusters[name] == nil {
			for _, e := range c.endpoints {
				f.retire(e)
			}
		}
	}
	f.clusters = clusters
	services := map[string]*route{}
	for name, service := range t.Services {
		names := service.Clusters
		if names == nil {
			names = slices.Sorted(maps.Keys(t.Clusters))
		}
		r := &route{deadAfter: cmp.Or(time.Duration(service.Intake.DeadAfter), defaultDeadAfter)}
		for _, name := range names {
			if c := clusters[name]; c != nil {
				r.clusters = append(r.clusters, c)
			}
		}
		slices.SortStableFunc(r.clusters, func(a, b *cluster) int { return cmp.Compare(a.predicted, b.predicted) })
		services[name] = r
	}
	f.services = services
}

// adoptEndpoints gives a cluster the endpoints of its object.
func (f *Forwarder) adoptEndpoints(c *cluster) {
	var endpoints []*endpoint
	for _, url := range c.object.Endpoints {
		i := slices.IndexFunc(c.endpoints, func(e *endpoint) bool { return e.url == url })
		if i >= 0 {
			endpoints = append(endpoints, c.endpoints[i])
			continue
		}
		t, err := parseTarget(url)
		if err != nil { // the topology's validation lets none through
			f.config.Log.Error("an endpoint of a cluster cannot be used", "cluster", c.name, "error", err)
			continue
		}
		e := &endpoint{target: t, forwarder: f, cluster: c, bit: 1 << (f.endpoints % 64), limit: firstLimit, depth: 1}
		f.endpoints++
		endpoints = append(endpoints, e)
	}
	for _, e := range c.endpoints {
		if !slices.Contains(endpoints, e) {
			f.retire(e)
		}
	}
	for _, e := range endpoints {
		e.maximum = cmp.Or(c.object.MaxInFlight, 256)
	}
	c.endpoints = endpoints
}

// retire gives up an endpoint that the topology has no more: what waits for it goes elsewhere, what is on the way is waited for.
func (f *Forwarder) retire(e *endpoint) {
	e.removed = true
	f.evicted = append(f.evicted, e)
	for _, c := range e.conns {
		c.closing = true
		c.signal()
	}
}

// Next returns the name of the cluster that is next for a service, or "" when there is none. It may be called for each request.
func (f *Forwarder) Next(service string) string {
	known := f.routes.Load()
	if known == nil || known.snapshot != f.config.Snapshot() {
		f.mu.Lock()
		f.refresh(time.Now())
		f.mu.Unlock()
		if known = f.routes.Load(); known == nil {
			return ""
		}
	}
	return known.next[service]
}

// Order returns the names of the clusters of a service in the order in which they are tried.
func (f *Forwarder) Order(service string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	r := f.services[service]
	if r == nil {
		return nil
	}
	var names []string
	for _, c := range r.order {
		names = append(names, c.name)
	}
	return names
}

// Standings tells how each cluster stands that the topology has and that is not disabled.
func (f *Forwarder) Standings() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.refresh(now)
	all := map[string]string{}
	for name, c := range f.clusters {
		all[name] = c.told()
	}
	return all
}

// told is how a cluster is said to stand.
func (c *cluster) told() string {
	broken := func(e *endpoint) bool { return e.breaker != closed }
	if c.standing == Well && len(c.endpoints) > 0 && !slices.ContainsFunc(c.endpoints, func(e *endpoint) bool { return !broken(e) }) {
		return Failing
	}
	return c.standing
}
