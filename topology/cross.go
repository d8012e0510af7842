package topology

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Validate checks how the objects of a topology fit together, and returns all faults.
func (t *Topology) Validate() []Fault {
	c := &checker{}
	used := map[netip.AddrPort]string{}
	unicast := map[netip.Addr]string{} // the PoP of each address
	for _, name := range slices.Sorted(maps.Keys(t.PoPs)) {
		for _, a := range t.PoPs[name].Addresses {
			unicast[a] = cmp.Or(unicast[a], name)
		}
	}
	endpoints := map[string]string{}
	for _, r := range t.Refs() {
		c.path = r.path()
		switch o := t.Object(r).(type) {
		case *Zone:
			c.crossZone(t, r.Name, o)
		case *Service:
			c.crossService(t, r.Name, o)
			c.crossNames(t, r.Name, o)
		case *PoP:
			for i, a := range o.Addresses {
				at := netip.AddrPortFrom(a, o.Port)
				if other, taken := used[at]; taken {
					c.fault(fmt.Sprintf("addresses[%d]", i), "%v is used by pops.%s already", at, other)
				}
				used[at] = r.Name
			}
			for i, vip := range o.VIPs {
				if other := unicast[vip]; other != "" {
					c.fault(fmt.Sprintf("vips[%d]", i), "%v is a unicast address of pops.%s: want an address that no PoP has for itself", vip, other)
				}
			}
		case *Cluster:
			for i, endpoint := range o.Endpoints {
				where := canonicalEndpoint(endpoint)
				if other := cmp.Or(endpoints[where], r.Name); other != r.Name {
					c.fault(fmt.Sprintf("endpoints[%d]", i), "%q is used by clusters.%s already: want each in one cluster", endpoint, other)
				}
				endpoints[where] = r.Name
			}
		}
	}
	return sortFaults(c.faults)
}

// canonicalEndpoint returns the same text for URLs that are different ways to write one.
func canonicalEndpoint(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return fmt.Sprintf("%s://%s:%s%s", u.Scheme, strings.ToLower(u.Hostname()), port, strings.TrimRight(u.Path, "/"))
}

func (c *checker) crossService(t *Topology, name string, s *Service) {
	inZone := false
	for zone := range t.Zones {
		inZone = inZone || isBelow(name, zone)
	}
	if !inZone {
		c.fault("", "%q lies in none of the zones", name)
	}
	known := func(field, kind string, names []string, exists func(string) bool) {
		for i, n := range names {
			switch {
			case !exists(n):
				c.fault(fmt.Sprintf("%s[%d]", field, i), "there is no %s %q", kind, n)
			case slices.Contains(names[:i], n):
				c.fault(fmt.Sprintf("%s[%d]", field, i), "%q stands here twice", n)
			}
		}
	}
	known("pops", "PoP", s.PoPs, func(n string) bool { return t.PoPs[n] != nil })
	known("clusters", "cluster", s.Clusters, func(n string) bool { return t.Clusters[n] != nil })
	offers := func(n string) bool { return t.PoPs[n] != nil && s.offeredBy(n) }
	s.Steering.eachList(func(field string, names []string) { known("steering."+field, "PoP of the service", names, offers) })
	if s.Steering.Anycast != nil {
		c.crossAnycast(t, "steering.anycast", s.Steering.Anycast, s)
	}
	if canary := s.Steering.Canary; canary != nil && canary.Anycast != nil {
		c.crossAnycast(t, "steering.canary.anycast", canary.Anycast, s)
	}
	reachable := false
	for n, p := range t.PoPs {
		reachable = reachable || len(p.Addresses) > 0 && offers(n)
	}
	if !reachable {
		c.fault("pops", "the service has no PoP with an address")
	}
	some, works := false, false
	for n, cluster := range t.Clusters {
		if len(s.Clusters) == 0 || slices.Contains(s.Clusters, n) {
			some, works = true, works || cluster.State != Disabled
		}
	}
	switch {
	case !some:
		c.fault("clusters", "the service has no cluster")
	case !works:
		c.fault("clusters", "all clusters of the service are disabled: want one that is active or draining")
	}
}

// isBelow reports whether a domain name is in a zone: its apex or below.
func isBelow(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }
