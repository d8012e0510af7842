package dataplane

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/dataplane/payload"
	"github.com/isochrone/isochrone/topology"
)

// offers are what a PoP takes by one topology. They are compiled when the first request meets the topology, and immutable then.
type offers struct {
	topology *topology.Topology
	pop      *topology.PoP // nil if the topology does not have this PoP, or has it disabled
	services map[string]*offer
	only     *offer // the one service that there is; nil if there are more, or none
	early    bool   // some service takes requests in 0-RTT
}

// offer is one service of a PoP.
type offer struct {
	name    string
	policy  *topology.Intake
	payload *payload.Checker
}

// offers returns what the PoP takes by a snapshot.
func (p *PoP) offers(snap *topology.Snapshot) *offers {
	if known := p.offered.Load(); known != nil && known.topology == snap.Topology {
		return known
	}
	made := &offers{topology: snap.Topology, services: map[string]*offer{}}
	if pop := snap.Topology.PoPs[p.config.Name]; pop != nil && pop.State != topology.Disabled {
		made.pop = pop
	}
	for name, service := range snap.Topology.Services {
		if service.PoPs != nil && !slices.Contains(service.PoPs, p.config.Name) {
			continue
		}
		checker, err := payload.Compile(&service.Intake)
		if err != nil { // validation has let it through
			p.config.Log.Error("a service is not offered", "service", name, "error", err)
			continue
		}
		made.services[name] = &offer{name: name, policy: &service.Intake, payload: checker}
		made.only = made.services[name]
		made.early = made.early || service.Intake.IdempotencyKey == topology.IdempotencyRequired
	}
	if len(made.services) != 1 {
		made.only = nil
	}
	p.offered.Store(made)
	return made
}

// service returns the service that a request's host names. Who names the PoP itself means the service below which its name stands; who
// names an address means the PoP's only service.
func (o *offers) service(pop, host string) *offer {
	if known := o.services[host]; known != nil {
		return known
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if own, ok := strings.CutPrefix(host, pop+"."); ok {
		host = own
	}
	if known := o.services[host]; known != nil {
		return known
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return o.only
	}
	return nil
}
