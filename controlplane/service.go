package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// The errors by which a caller decides; each is wrapped with what was asked for.
var (
	ErrNotFound = errors.New("not found")
	ErrInvalid  = errors.New("invalid request")
	ErrNotReady = errors.New("not ready: no valid topology has been read yet")
)

// Service is the control plane's typed service. Its methods may be called concurrently.
type Service struct {
	View     func() *router.View       // current; nil before the first
	Snapshot func() *topology.Snapshot // newest; nil before the first
	Activity func() Activity
	Geo      func() GeoStatus
	Now      func() time.Time
}

// Counts are totals since a component's start, by name.
type Counts map[string]uint64

// Activity is what the components of this process have done.
type Activity struct {
	DNS      Counts            `json:"dns"`
	PoPs     map[string]Counts `json:"pops"`
	Clusters map[string]Counts `json:"clusters"`
}

// GeoStatus tells what the geo database is.
type GeoStatus struct {
	Type            string    `json:"type"`
	Built           time.Time `json:"built"`
	CountryOnly     bool      `json:"country_only"`               // places are countries, not cities
	CoarseCountries []string  `json:"coarse_countries,omitempty"` // where a country is too coarse a place
}

// Status is the state of everything, for people and scripts.
type Status struct {
	Revision  int64            `json:"revision"`          // of the store, newest read
	Good      int64            `json:"topology_revision"` // of the topology in force
	Faults    []topology.Fault `json:"faults"`            // why a newer topology is not in force
	Ignored   []topology.Fault `json:"ignored"`           // overrides and keys without effect
	PoPs      []TargetStatus   `json:"pops"`
	Clusters  []TargetStatus   `json:"clusters"`
	Overrides []OverrideStatus `json:"overrides"`
	Geo       GeoStatus        `json:"geo"`
	Activity  Activity         `json:"activity"`
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
	if view == nil || snap == nil {
		return nil, ErrNotReady
	}
	status := &Status{
		Revision: snap.Revision, Good: snap.Good, Faults: snap.Faults, Ignored: snap.Ignored,
		Geo: s.Geo(), Activity: s.Activity(),
	}
	verdict := func(kind health.Kind, name string) health.Verdict {
		v := view.State.Verdicts()[health.Target{Kind: kind, Name: name}]
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
	clusters := view.Table.Snapshot().Topology.Clusters
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		cluster, v := clusters[name], verdict(health.Cluster, name)
		status.Clusters = append(status.Clusters, TargetStatus{
			Name: name, City: cluster.Location.City, Country: cluster.Location.Country, Address: cluster.Endpoints,
			State: cluster.State, Health: v, Answered: cluster.State == topology.Active && v.Status != health.Down,
		})
	}
	now := s.Now()
	for _, name := range slices.Sorted(maps.Keys(snap.Overrides)) {
		o := snap.Overrides[name]
		status.Overrides = append(status.Overrides, OverrideStatus{name, o, !now.Before(o.Expires)})
	}
	return status, nil
}

// ExplainRequest asks why clients are answered as they are.
type ExplainRequest struct {
	Service string
	Client  string   // an address or a prefix
	Family  string   // A (default), AAAA or HTTPS
	If      []string // what is supposed, as router.Suppose takes it
}

// Explain decides as the DNS server would, and says why. The errors are ErrInvalid, ErrNotFound and ErrNotReady.
func (s *Service) Explain(_ context.Context, request ExplainRequest) (*router.Trace, error) {
	view := s.View()
	if view == nil {
		return nil, ErrNotReady
	}
	client, err := parseClient(request.Client)
	if err != nil {
		return nil, err
	}
	family, ok := map[string]router.Family{"": router.IPv4, "A": router.IPv4, "AAAA": router.IPv6, "HTTPS": router.Either}[request.Family]
	if !ok {
		return nil, fmt.Errorf("%w: family %q is not one of A, AAAA, HTTPS", ErrInvalid, request.Family)
	}
	if len(request.If) > 0 {
		if view, err = router.Suppose(view, request.If...); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	id, ok := view.Table.Service(request.Service)
	if !ok {
		names := slices.Sorted(maps.Keys(view.Table.Snapshot().Topology.Services))
		return nil, fmt.Errorf("service %q %w; the services are %q", request.Service, ErrNotFound, names)
	}
	trace := new(router.Trace)
	router.Decide(view, id, family, client, trace)
	return trace, nil
}

// parseClient reads an address or a prefix.
func parseClient(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w: client %q is neither an address such as 203.0.113.7 nor a prefix such as 203.0.113.0/24", ErrInvalid, text)
	}
	return prefix.Masked(), nil
}

// Topology returns the topology in force. The error is ErrNotReady before the first.
func (s *Service) Topology(context.Context) (*topology.Topology, error) {
	snap := s.Snapshot()
	if snap == nil {
		return nil, ErrNotReady
	}
	return snap.Topology, nil
}
