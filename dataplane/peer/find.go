package peer

import (
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/topology"
)

// Find returns where a PoP can be called: at its unicast addresses, under the name of the first service that it offers. One that offers
// none cannot be called, since it has no certificate.
func Find(t *topology.Topology, pop string) (at Address, ok bool) {
	p := t.PoPs[pop]
	if p == nil || len(p.Addresses) == 0 {
		return at, false
	}
	for name, service := range t.Services {
		if (len(service.PoPs) == 0 || slices.Contains(service.PoPs, pop)) && (at.Service == "" || name < at.Service) {
			at.Service = name
		}
	}
	for _, addr := range p.Addresses {
		at.Addrs = append(at.Addrs, netip.AddrPortFrom(addr, p.Port))
	}
	return at, at.Service != ""
}
