package topology

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	label      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	hostLabel  = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?$`)
	countryISO = regexp.MustCompile(`^[A-Z]{2}$`)
)

// checker collects the faults of one object.
type checker struct {
	path   string
	faults []Fault
	read   map[string]*contents // of zones, while what a topology has is compared
}

func (c *checker) fault(field, format string, args ...any) {
	c.faults = append(c.faults, Fault{Path: join(c.path, field), Message: fmt.Sprintf(format, args...)})
}

// oneOf checks a word of a closed list.
func oneOf[T ~string](c *checker, field string, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		c.fault(field, "%q is not one of %q", value, allowed)
	}
}

// within checks a number's range.
func within[T int | int64 | float64](c *checker, field string, value, low, high T) {
	if !(value >= low && value <= high) { // false for NaN too
		c.fault(field, "%v is not in %v..%v", value, low, high)
	}
}

// seconds checks a time to live.
func (c *checker) seconds(field string, value Duration, high time.Duration) {
	if d := time.Duration(value); d < time.Second || d > high || d%time.Second != 0 {
		c.fault(field, "%v is not a whole number of seconds in 1s..%v", value, high)
	}
}

// checkObject checks one object by itself.
func checkObject(r Ref, o Object) []Fault {
	c := &checker{path: r.path()}
	if c.faults = checkSchema(c.path+".schema", schemaOf(o)); IsTooNew(schemaOf(o)) {
		return c.faults
	}
	switch o := o.(type) {
	case *Zone:
		c.zone(r.Name, o)
	case *Service:
		c.service(r.Name, o)
	case *PoP:
		c.pop(r.Name, o)
	case *Cluster:
		c.cluster(r.Name, o)
	}
	return c.faults
}

func (c *checker) zone(name string, z *Zone) {
	c.domain("", name)
	c.seconds("ttl", z.TTL, 7*24*time.Hour)
	c.seconds("negative_ttl", z.NegativeTTL, 24*time.Hour)
	c.domain("hostmaster", z.Hostmaster)
	if len(z.Nameservers) == 0 {
		c.fault("nameservers", "is empty: want at least one host name with its addresses")
	}
	for host, addrs := range z.Nameservers {
		c.domain("nameservers."+host, host)
		if len(addrs) == 0 && isBelow(host, name) {
			c.fault("nameservers."+host, "has no address, which a name server inside its own zone needs")
		}
	}
	z.read = z.contents(name)
	for i, f := range z.read.faults {
		if i == maxRecordFaults {
			c.fault("records", "%d faults more", len(z.read.faults)-i)
			break
		}
		c.record(name, z, f.line, "%s", f.message)
	}
}

// record tells a fault of a line of a zone.
func (c *checker) record(zone string, z *Zone, line int, format string, args ...any) {
	text := z.Records[line]
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	c.faults = append(c.faults, Fault{
		Path: fmt.Sprintf("zones.%s.records[%d]", zone, line), Message: fmt.Sprintf("%q: ", text) + fmt.Sprintf(format, args...),
	})
}

func (c *checker) service(name string, s *Service) {
	c.domain("", name)
	c.seconds("steering.ttl", s.Steering.TTL, 24*time.Hour)
	within(c, "steering.answers", s.Steering.Answers, 1, 4)
	oneOf(c, "steering.ecs", s.Steering.ECS, UseECS, IgnoreECS)
	c.steering(&s.Steering)
	oneOf(c, "intake.ack", s.Intake.Ack, AckSpool, AckCluster)
	within(c, "intake.max_body_bytes", s.Intake.MaxBodyBytes, 1, 16<<20)
	for i, field := range s.Intake.RequiredFields {
		if field == "" {
			c.fault(fmt.Sprintf("intake.required_fields[%d]", i), "is empty")
		}
	}
	if n := len(s.Intake.RequiredFields); n > 64 {
		c.fault("intake.required_fields", "has %d entries, at most 64 are taken", n)
	}
}

func (c *checker) pop(name string, p *PoP) {
	c.label(name)
	if name == explainLabel {
		c.fault("", "is a reserved name: explain.SERVICE tells how a service's answers come about")
	}
	c.location(p.Location)
	for i, a := range p.Addresses {
		field := fmt.Sprintf("addresses[%d]", i)
		switch {
		case a.Is4In6():
			c.fault(field, "%v is an IPv4 address in IPv6 form: write %v", a, a.Unmap())
		case a.Zone() != "":
			c.fault(field, "%v has a zone, which clients cannot use", a)
		case a.IsUnspecified() || a.IsMulticast():
			c.fault(field, "%v is no address of a host", a)
		case slices.Contains(p.Addresses[:i], a):
			c.fault(field, "%v stands here twice", a)
		}
	}
	within(c, "capacity_rps", p.CapacityRPS, 0, math.MaxInt32)
	oneOf(c, "state", p.State, Active, Draining, Disabled)
}

func (c *checker) cluster(name string, cl *Cluster) {
	c.label(name)
	c.location(cl.Location)
	if len(cl.Endpoints) == 0 {
		c.fault("endpoints", "is empty: want at least one URL")
	}
	for i, endpoint := range cl.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			c.fault(fmt.Sprintf("endpoints[%d]", i), "%q is not a URL such as https://cluster.example.net", endpoint)
		}
	}
	within(c, "capacity_rps", cl.CapacityRPS, 0, math.MaxInt32)
	oneOf(c, "state", cl.State, Active, Draining, Disabled)
}

func (c *checker) label(name string) {
	if !label.MatchString(name) {
		c.fault("", "%q is not a name: want lower-case letters, digits and hyphens, at most 63", name)
	}
}

// domain checks a domain name without a trailing dot.
func (c *checker) domain(field, name string) {
	ok := name != "" && len(name) <= 253
	for part := range strings.SplitSeq(name, ".") {
		ok = ok && hostLabel.MatchString(part)
	}
	if !ok {
		c.fault(field, "%q is not a domain name such as intake.example.net, in lower case and without a dot at the end", name)
	}
}

func (c *checker) location(l Location) {
	within(c, "location.lat", l.LatDeg, -90, 90)
	within(c, "location.lon", l.LonDeg, -180, 180)
	if !countryISO.MatchString(l.Country) {
		c.fault("location.country", "%q is not a country code such as SG (ISO 3166-1 alpha-2)", l.Country)
	}
}

// Validate checks how the objects of a topology fit together, and returns all faults.
func (t *Topology) Validate() []Fault {
	c := &checker{}
	used := map[netip.AddrPort]string{}
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
		}
	}
	return sortFaults(c.faults)
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
	reachable := false
	for n, p := range t.PoPs {
		reachable = reachable || len(p.Addresses) > 0 && offers(n)
	}
	if !reachable {
		c.fault("pops", "the service has no PoP with an address")
	}
	if len(t.Clusters) == 0 {
		c.fault("clusters", "the service has no cluster")
	}
}

// isBelow reports whether a domain name is in a zone: its apex or below.
func isBelow(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }
