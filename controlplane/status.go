package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// Status is the state of everything, for people and scripts.
type Status struct {
	Revision  int64             `json:"revision"`          // of the store, newest read
	Good      int64             `json:"topology_revision"` // of the topology in force
	Faults    []topology.Fault  `json:"faults"`            // why a newer topology is not in force
	Ignored   []topology.Fault  `json:"ignored"`           // overrides and keys without effect
	PoPs      []TargetStatus    `json:"pops"`
	Clusters  []TargetStatus    `json:"clusters"`
	DNS       []DNSStatus       `json:"dns"`           // DNS nodes that others look at
	BGP       []AnnouncerStatus `json:"bgp,omitempty"` // nodes that announce, or did
	Overrides []OverrideStatus  `json:"overrides"`
	Vantages  []VantageStatus   `json:"vantages"` // whose reports count here now
	Alone     bool              `json:"alone"`    // this control plane hears no other vantage, though there are some: local view
	Geo       GeoStatus         `json:"geo"`
	Activity  Activity          `json:"activity"`
	Spill     *SpillStatus      `json:"spill,omitempty"` // none: no leader has said anything yet
}

// TargetStatus is a PoP's or a cluster's.
type TargetStatus struct {
	Name     string         `json:"name"`
	City     string         `json:"city"`
	Country  string         `json:"country"`
	Address  []string       `json:"address"`
	State    topology.State `json:"state"`
	Health   health.Verdict `json:"health"`
	Answered bool           `json:"answered"` // clients may be sent here now
	Why      string         `json:"why,omitempty"`
	Load     *LoadStatus    `json:"load,omitempty"` // of a PoP that tells, or that the leader has a share for
}

// DNSStatus is a DNS node's.
type DNSStatus struct {
	Name    string         `json:"name"`
	Address string         `json:"address"` // and port at which it is asked
	Health  health.Verdict `json:"health"`
}

// VantageStatus is a node that looks at targets, and what it sees.
type VantageStatus struct {
	Name       string        `json:"name"`
	Region     string        `json:"region,omitempty"`   // the continent's code
	Doubted    string        `json:"doubted,omitempty"`  // why it is not believed
	Degraded   string        `json:"degraded,omitempty"` // why it cannot do all of its work, as it says itself
	Shedding   bool          `json:"shedding,omitempty"` // it refuses requests because it is overloaded
	Statements []VantageSees `json:"statements"`
}

// VantageSees is what a vantage says of a target.
type VantageSees struct {
	Target string        `json:"target"` // kind and name
	Status health.Status `json:"status"`
	Code   health.Code   `json:"code,omitempty"`
	Reason string        `json:"reason"`
	Since  time.Time     `json:"since"`
	Seen   time.Time     `json:"seen"`
	Steps  health.Steps  `json:"steps"` // in nanoseconds
}

// VantagesOf tells what vantages say, for Service.Vantages.
func VantagesOf(reports []*health.Report, doubted []health.Doubt) []VantageStatus {
	all := []VantageStatus{}
	for _, r := range reports {
		v := VantageStatus{Name: r.Name, Region: r.Region, Degraded: r.Self.Degraded, Shedding: r.Self.Shedding, Statements: []VantageSees{}}
		for _, d := range doubted {
			if d.Vantage == r.Name {
				v.Doubted = fmt.Sprintf("it says of %d of %d targets that they are down; others contradict %d times", d.Failing, d.Of, d.Contradicted)
			}
		}
		for _, s := range r.Statements {
			v.Statements = append(v.Statements, VantageSees{s.Target.String(), s.Status, s.Code, s.Reason, s.Since, s.Seen, s.Steps})
		}
		all = append(all, v)
	}
	return all
}

// OverrideStatus is an override with its name.
type OverrideStatus struct {
	Name string `json:"name"`
	*topology.Override
	Expired bool `json:"expired"`
}

// Status tells the state of everything. The error is ErrNotReady before the first topology.
func (s *Service) Status(context.Context) (*Status, error) {
	view, snap := s.View(), s.Snapshot()
	if view == nil {
		return nil, errNoView
	}
	if snap == nil { // nobody follows
		snap = view.Table.Snapshot()
	}
	status := &Status{
		Revision: snap.Revision, Good: snap.Good, Faults: some(snap.Faults), Ignored: some(snap.Ignored),
		PoPs: []TargetStatus{}, Clusters: []TargetStatus{}, DNS: []DNSStatus{}, Overrides: s.overridesOf(snap),
	}
	status.Vantages = []VantageStatus{}
	if s.Vantages != nil {
		status.Vantages = s.Vantages()
	}
	if s.BGP != nil {
		status.BGP = s.BGP()
	}
	status.Alone = s.Alone != nil && s.Alone()
	if s.Geo != nil {
		status.Geo = s.Geo()
	}
	if s.Activity != nil {
		status.Activity = s.Activity()
	}
	var newest health.Verdicts
	if s.Verdicts != nil {
		newest = s.Verdicts()
	}
	verdict := func(kind health.Kind, name string) health.Verdict {
		target := health.Target{Kind: kind, Name: name}
		v := view.State.Verdicts()[target]
		if n := newest[target]; n.Status == v.Status { // what is in effect, as it was seen last
			v = n
		}
		v.Status = cmp.Or(v.Status, health.Unknown)
		return v
	}
	for i := range view.Table.PoPs() {
		name, pop := view.Table.PoP(router.Choice(i))
		ok, why := view.State.Standing(router.Choice(i))
		target := TargetStatus{
			Name: name, City: pop.Location.City, Country: pop.Location.Country, State: pop.State,
			Health: verdict(health.PoP, name), Answered: ok, Why: why,
		}
		for _, a := range pop.Addresses {
			target.Address = append(target.Address, netip.AddrPortFrom(a, pop.Port).String())
		}
		status.PoPs = append(status.PoPs, target)
	}
	s.loaded(status)
	clusters := view.Table.Snapshot().Topology.Clusters
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		cluster := clusters[name]
		takes, why := clusterStanding(view, name)
		status.Clusters = append(status.Clusters, TargetStatus{
			Name: name, City: cluster.Location.City, Country: cluster.Location.Country, Address: cluster.Endpoints,
			State: cluster.State, Health: verdict(health.Cluster, name), Answered: takes, Why: why,
		})
	}
	if s.DNS != nil {
		at := s.DNS()
		for _, name := range slices.Sorted(maps.Keys(at)) {
			status.DNS = append(status.DNS, DNSStatus{Name: name, Address: at[name], Health: verdict(health.DNS, name)})
		}
	}
	return status, nil
}

// clusterStanding returns whether a cluster of a view gets envelopes, and why not, or what operators have decided about it.
func clusterStanding(view *router.View, name string) (takes bool, why string) {
	decision := view.State.Decisions().Cluster(name)
	verdict := view.State.Verdicts()[health.Target{Kind: health.Cluster, Name: name}]
	forced, is := decision.Verdict()
	switch cluster := view.Table.Snapshot().Topology.Clusters[name]; {
	case cluster == nil:
		return false, "not in the topology"
	case cluster.State != topology.Active:
		return false, string(cluster.State) + " in the topology"
	case decision.Drained():
		return false, decision.Drain.String()
	case is:
		return forced == topology.ForceUp, decision.Force.String()
	case verdict.Status == health.Down:
		return false, "down: " + verdict.Reason
	}
	return true, ""
}

// overridesOf lists the overrides of a snapshot.
func (s *Service) overridesOf(snap *topology.Snapshot) []OverrideStatus {
	list, now := []OverrideStatus{}, s.Now()
	for _, name := range slices.Sorted(maps.Keys(snap.Overrides)) {
		o := snap.Overrides[name]
		list = append(list, OverrideStatus{name, o, !now.Before(o.Expires)})
	}
	return list
}

// some returns a list that is not nil, since clients are told lists.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
