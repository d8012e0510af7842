package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// index is what the names of a table's zones stand for. It is made once for a table.
type index struct {
	zones map[string]*zone // by name, in lower case, without a trailing dot
	names map[string]*owner
}

// zone is a zone with what its apex answers.
type zone struct {
	name string
	*topology.Zone
	nameservers []string
	serial      uint32
}

// owner is a name that exists. The zero owner is an empty non-terminal.
type owner struct {
	apex    bool
	steered bool
	service router.ServiceID
	addrs   []netip.Addr // static
	ttl     uint32       // of addrs
}

// newIndex collects the names of all zones: apexes, name servers, services, and <pop>.<service> for each PoP of a service.
func newIndex(t *router.Table) *index {
	snap := t.Snapshot()
	x := &index{zones: map[string]*zone{}, names: map[string]*owner{}}
	for name, z := range snap.Topology.Zones {
		x.zones[name] = &zone{name, z, slices.Sorted(maps.Keys(z.Nameservers)), uint32(snap.Good)}
		x.add(name).apex = true
		for host, addrs := range z.Nameservers {
			if x.zone(host) != nil || strings.HasSuffix(host, "."+name) {
				o := x.add(host)
				o.addrs, o.ttl = addrs, seconds(z.TTL)
			}
		}
	}
	for name, service := range snap.Topology.Services {
		id, _ := t.Service(name)
		o := x.add(name)
		o.steered, o.service = true, id
		for _, c := range t.Candidates(id) {
			pop, p := t.PoP(c)
			static := x.add(pop + "." + name)
			static.addrs, static.ttl = p.Addresses, seconds(service.Steering.TTL)
		}
	}
	for name := range x.names { // the names between an owner and its apex exist too (RFC 4592 section 2.2.2)
		for x.zones[name] == nil {
			_, parent, ok := strings.Cut(name, ".")
			if !ok {
				break
			}
			name = parent
			x.add(name)
		}
	}
	return x
}

// add returns the owner of a name, which exists from now on.
func (x *index) add(name string) *owner {
	if x.names[name] == nil {
		x.names[name] = &owner{}
	}
	return x.names[name]
}

// zone returns the closest zone that a name lies in, or nil.
func (x *index) zone(name string) *zone {
	for {
		if z := x.zones[name]; z != nil {
			return z
		}
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return nil
		}
		name = parent
	}
}

func seconds(d topology.Duration) uint32 { return uint32(int64(d) / 1e9) }
