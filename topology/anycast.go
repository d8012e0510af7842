package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// AnycastMode says who gets the addresses that several PoPs announce.
type AnycastMode string

// The modes. In both, clients get PoPs' own addresses as long as no PoP that announces is well.
const (
	AnycastAll    AnycastMode = "anycast" // everybody
	AnycastHybrid AnycastMode = "hybrid"  // clients outside of Unicast get them as A and AAAA; HTTPS records name PoPs
)

// Anycast says that clients get addresses which several PoPs announce by BGP, rather than those of one PoP. Which PoP a client comes to is
// then for routing to say. Clients for whom rules say where they must, or must not, be sent get PoPs' own addresses, since routing knows no
// rules.
type Anycast struct {
	Mode    AnycastMode    `yaml:"mode" json:"mode"`                                // default anycast
	VIPs    []netip.Addr   `yaml:"vips,flow" json:"vips"`                           // 1..4, each among the vips of PoPs of the service; a family's all in each answer
	Unicast []netip.Prefix `yaml:"unicast,omitempty,flow" json:"unicast,omitempty"` // clients whom routing carries to a bad place, at most 10000 prefixes; mode hybrid alone
}

// The bounds of an Anycast.
const (
	maxServiceVIPs = 4
	maxUnicast     = 10_000
)

// Announcers returns the PoPs that announce some of the addresses, sorted. In a valid topology they announce all.
func (a *Anycast) Announcers(t *Topology) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.PoPs)) {
		if slices.ContainsFunc(t.PoPs[name].VIPs, func(vip netip.Addr) bool { return slices.Contains(a.VIPs, vip) }) {
			names = append(names, name)
		}
	}
	return names
}

func (c *checker) anycast(field string, a *Anycast) {
	oneOf(c, field+".mode", a.Mode, AnycastAll, AnycastHybrid)
	c.addresses(field+".vips", a.VIPs)
	within(c, field+".vips", len(a.VIPs), 1, maxServiceVIPs)
	if a.Mode != AnycastHybrid && len(a.Unicast) > 0 {
		c.fault(field+".unicast", "is for mode hybrid: in mode %s everybody gets the VIPs", a.Mode)
	}
	if len(a.Unicast) > maxUnicast {
		c.fault(field+".unicast", "has %d prefixes, at most %d are taken", len(a.Unicast), maxUnicast)
	}
	seen := map[netip.Prefix]bool{}
	for i, prefix := range a.Unicast {
		at := fmt.Sprintf("%s.unicast[%d]", field, i)
		if c.prefix(at, prefix); seen[prefix] {
			c.fault(at, "%v stands here twice", prefix)
		}
		seen[prefix] = true
	}
}

// crossAnycast checks that whoever announces one of the addresses announces all, offers the service, and listens on the port of the others: the
// client does not choose to whom it comes.
func (c *checker) crossAnycast(t *Topology, field string, a *Anycast, s *Service) {
	announcers := a.Announcers(t)
	if len(announcers) == 0 {
		c.fault(field+".vips", "no PoP has them (%v) among its vips", a.VIPs)
	}
	for _, name := range announcers {
		pop, first := t.PoPs[name], announcers[0]
		if !s.offeredBy(name) {
			c.fault(field+".vips", "pops.%s has them among its vips, and does not offer the service: clients whom routing carries there would be refused", name)
		}
		for _, vip := range a.VIPs {
			if !slices.Contains(pop.VIPs, vip) {
				c.fault(field+".vips", "pops.%s has some of them among its vips, but not %v: want all or none", name, vip)
			}
		}
		if pop.Port != t.PoPs[first].Port {
			c.fault(field+".vips", "pops.%s listens on port %d, pops.%s on %d: want one port of all who announce them", first, t.PoPs[first].Port, name, pop.Port)
		}
	}
}
