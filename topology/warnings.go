package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// maxStrayKM is how far outside of its country a place may be without a warning: borders and coasts are coarse.
const maxStrayKM = 150

// Warnings tells what is likely not meant, though it is valid.
func (t *Topology) Warnings() []Fault {
	c := &checker{}
	for _, r := range t.Refs() {
		c.path = r.path()
		switch o := t.Object(r).(type) {
		case *Service:
			c.warnService(t, o)
		case *PoP:
			c.warnPlace(o.Location)
		case *Cluster:
			c.warnPlace(o.Location)
		}
	}
	return sortFaults(c.faults)
}

func (c *checker) warnService(t *Topology, s *Service) {
	var in, v4, v6, stated []string // of the PoPs that are in use
	for _, name := range slices.Sorted(maps.Keys(t.PoPs)) {
		p := t.PoPs[name]
		if !s.offeredBy(name) || p.State == Disabled || len(p.Addresses) == 0 {
			continue
		}
		in = append(in, name)
		if slices.ContainsFunc(p.Addresses, netip.Addr.Is4) {
			v4 = append(v4, name)
		}
		if slices.ContainsFunc(p.Addresses, netip.Addr.Is6) {
			v6 = append(v6, name)
		}
		if p.CapacityRPS > 0 {
			stated = append(stated, name)
		}
	}
	if len(in) == 1 {
		c.fault("pops", "%s is the only PoP of the service in use: when it is down, nothing is left to answer", in[0])
	}
	c.warnSome("pops", in, v4, "have an IPv4 address: clients that use IPv4 are not sent to the others")
	c.warnSome("pops", in, v6, "have an IPv6 address: clients that use IPv6 are not sent to the others")
	c.warnSome("pops", in, stated, "state capacity_rps: the others are never held to be full")
}

// warnSome warns when some of a service's PoPs have what others have not.
func (c *checker) warnSome(field string, all, some []string, what string) {
	if len(some) == 0 || len(some) == len(all) {
		return
	}
	others := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(some, name) })
	c.fault(field, "only %d of %d PoPs %s (%s)", len(some), len(all), what, fewNames(others))
}

// fewNames lists names, but not very many.
func fewNames(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (c *checker) warnPlace(l Location) {
	boxes := extents()[l.Country]
	if boxes == nil {
		c.fault("location.country", "%q is the code of no country that is known here (ISO 3166-1 alpha-2; that of the United Kingdom is GB)", l.Country)
		return
	}
	far := boxes.distanceKM(l.LatDeg, l.LonDeg)
	if far <= maxStrayKM {
		return
	}
	hint := ""
	for _, other := range [][2]float64{{l.LonDeg, l.LatDeg}, {-l.LatDeg, l.LonDeg}, {l.LatDeg, -l.LonDeg}, {-l.LatDeg, -l.LonDeg}} {
		if boxes.distanceKM(other[0], other[1]) <= maxStrayKM {
			hint = fmt.Sprintf("; did you mean lat: %v, lon: %v?", other[0], other[1])
			break
		}
	}
	c.fault("location", "lat: %v, lon: %v is %.0f km away from %s%s", l.LatDeg, l.LonDeg, far, l.Country, hint)
}
