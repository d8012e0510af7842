package topology

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// explainLabel is the name below a service that tells how its answers come about.
const explainLabel = "explain"

// maxName is the length of the longest domain name as it stands in a topology: 255 octets on the wire.
const maxName = 253

// ofServer are the types that the server answers at the names of a service by itself, or that would take the names from it.
var ofServer = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCNAME, dns.TypeNS, dns.TypeDS}

func (s *Service) offeredBy(pop string) bool { return len(s.PoPs) == 0 || slices.Contains(s.PoPs, pop) }

// zoneOf returns the closest zone that a name lies in, and false if it lies in none.
func (t *Topology) zoneOf(name string) (string, bool) {
	for ok := true; ok; name, ok = parentName(name) {
		if t.Zones[name] != nil {
			return name, true
		}
	}
	return "", false
}

// zoneContents returns what a zone's lines say. A zone that no document kept them with is read once for all checks.
func (c *checker) zoneContents(t *Topology, zone string) *contents {
	if c.read[zone] == nil {
		if c.read == nil {
			c.read = map[string]*contents{}
		}
		c.read[zone] = t.Zones[zone].contents(zone)
	}
	return c.read[zone]
}

// crossNames checks that nothing stands in the way of the names that the server makes for a service.
func (c *checker) crossNames(t *Topology, service string, s *Service) {
	made := []string{service, explainLabel + "." + service}
	for _, pop := range slices.Sorted(maps.Keys(t.PoPs)) {
		if !s.offeredBy(pop) {
			continue
		}
		name := pop + "." + service
		if len(name) > maxName {
			c.fault("", "with the name of PoP %s it is longer than the %d characters of a domain name", pop, maxName)
		}
		made = append(made, name)
	}
	if len(made[1]) > maxName {
		c.fault("", "with %s in front it is longer than the %d characters of a domain name", explainLabel, maxName)
	}
	for i, name := range made {
		if i > 0 && t.Zones[name] != nil {
			c.fault("", "%s is a name of this service, and a zone too", name)
		}
		if i > 0 && t.Services[name] != nil {
			c.fault("", "%s is a name of this service, and a service too", name)
		}
		zone, ok := t.zoneOf(name)
		if !ok {
			continue
		}
		z := t.Zones[zone]
		x := c.zoneContents(t, zone)
		for _, rrtype := range ofServer {
			if set := x.nodes[name].set(rrtype); set != nil {
				c.record(zone, z, set.line, "the server makes what %s answers for service %s: no %v can stand there", name, service, dns.Type(rrtype))
			}
		}
		if cut := x.cutAbove(name); cut != "" && i == 0 {
			c.record(zone, z, x.nodes[cut].set(dns.TypeNS).line, "delegates %s, and with it service %s", cut, service)
		}
	}
}

// crossZone checks a zone's name servers, its delegations to other zones of the topology, and what its records point to.
func (c *checker) crossZone(t *Topology, name string, z *Zone) {
	for _, host := range slices.Sorted(maps.Keys(z.Nameservers)) {
		c.nameserver(t, name, host, z.Nameservers[host])
	}
	x := c.zoneContents(t, name)
	hasChild := false
	for other := range t.Zones {
		hasChild = hasChild || other != name && isBelow(other, name)
	}
	for owner, n := range x.nodes {
		child := ""
		if hasChild {
			child, _ = t.zoneOf(owner)
		}
		if ds := n.set(dns.TypeDS); ds != nil && n.set(dns.TypeNS) == nil && child != owner && x.cutAbove(owner) == "" {
			c.record(name, z, ds.line, "%s is not delegated: DS stands beside NS", owner)
		}
		if child != "" && child != name && x.nodes[child].set(dns.TypeNS) == nil {
			c.belowChild(name, z, owner, child, n)
		}
	}
	for _, to := range x.targets {
		c.target(t, name, z, to)
	}
}

// belowChild checks a name that lies in another zone of the topology. Where the zone above does not delegate it, the server does.
func (c *checker) belowChild(name string, z *Zone, owner, child string, n *node) {
	for _, set := range n.sets {
		switch set.rrtype {
		case dns.TypeA, dns.TypeAAAA: // of a name server
		case dns.TypeDS:
			if owner == child {
				continue
			}
			fallthrough
		default:
			c.record(name, z, set.line, "%s lies in zone %s, which is served too: the record belongs there", owner, child)
		}
	}
}

// nameserver checks that a name server's host has its addresses from one place only, and is no alias.
func (c *checker) nameserver(t *Topology, name, host string, addrs []netip.Addr) {
	zone, ok := t.zoneOf(host)
	if !ok {
		return
	}
	x, z := c.zoneContents(t, zone), t.Zones[zone]
	n := x.nodes[host]
	for _, set := range [...]*recordSet{n.set(dns.TypeA), n.set(dns.TypeAAAA)} {
		if set != nil && len(addrs) > 0 {
			c.record(zone, z, set.line, "the addresses of %s stand in zones.%s.nameservers already: want them in one place", host, name)
		}
	}
	if set := n.set(dns.TypeCNAME); set != nil {
		c.record(zone, z, set.line, "%s is a name server of zone %s, which cannot be an alias (RFC 2181 section 10.3)", host, name)
	}
	cut := x.cutAbove(host)
	if cut == "" && n.set(dns.TypeNS) != nil && host != zone {
		cut = host
	}
	if cut != "" && len(addrs) > 0 {
		c.record(zone, z, x.nodes[cut].set(dns.TypeNS).line, "delegates %s, and with it name server %s of zone %s", cut, host, name)
	}
}

// target checks what an NS, MX or SRV record points to, as far as it is in a zone of the topology.
func (c *checker) target(t *Topology, name string, z *Zone, to target) {
	zone, ok := t.zoneOf(to.host)
	if !ok {
		return
	}
	if c.zoneContents(t, zone).nodes[to.host].set(dns.TypeCNAME) != nil {
		c.record(name, z, to.line, "points to %s, which is an alias (CNAME): want the name that has the addresses (RFC 2181 section 10.3)", to.host)
	}
}
