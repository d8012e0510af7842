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

// maxAddresses bounds the unicast addresses of a PoP, and the anycast ones.
const maxAddresses = 64

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
	c.intake(&s.Intake)
	if s.Health != nil {
		c.serviceHealth(s.Health)
	}
}

func (c *checker) pop(name string, p *PoP) {
	c.label(name)
	if name == explainLabel {
		c.fault("", "is a reserved name: explain.SERVICE tells how a service's answers come about")
	}
	c.location(p.Location)
	c.addresses("addresses", p.Addresses)
	c.addresses("vips", p.VIPs)
	c.announces(p.Announces)
	if p.BGP != nil {
		c.bgp("bgp.", p.BGP, p.Announces, p.Addresses)
	}
	for i, vip := range p.VIPs {
		if !slices.ContainsFunc(p.Announces, func(prefix netip.Prefix) bool { return prefix.Contains(vip) }) {
			c.fault(fmt.Sprintf("vips[%d]", i), "%v lies in no prefix that the PoP announces (%v): want one that holds it in announces", vip, p.Announces)
		}
	}
	within(c, "capacity_rps", p.CapacityRPS, 0, math.MaxInt32)
	if p.SlowStart != nil {
		c.duration("slow_start", *p.SlowStart, time.Hour)
	}
	c.receiptKeys(p.ReceiptKeys)
	oneOf(c, "state", p.State, Active, Draining, Disabled)
}

// addresses checks the addresses of one PoP.
func (c *checker) addresses(list string, addresses []netip.Addr) {
	if len(addresses) > maxAddresses {
		c.fault(list, "has %d entries, at most %d are taken", len(addresses), maxAddresses)
		return
	}
	for i, a := range addresses {
		field := fmt.Sprintf("%s[%d]", list, i)
		switch {
		case a.Is4In6():
			c.fault(field, "%v is an IPv4 address in IPv6 form: write %v", a, a.Unmap())
		case a.Zone() != "":
			c.fault(field, "%v has a zone, which clients cannot use", a)
		case a.IsUnspecified() || a.IsMulticast():
			c.fault(field, "%v is no address of a host", a)
		case slices.Contains(addresses[:i], a):
			c.fault(field, "%v stands here twice", a)
		}
	}
}

func (c *checker) cluster(name string, cl *Cluster) {
	c.label(name)
	c.location(cl.Location)
	if len(cl.Endpoints) == 0 {
		c.fault("endpoints", "is empty: want at least one URL")
	}
	for i, endpoint := range cl.Endpoints {
		u, err := url.Parse(endpoint)
		if slices.Contains(cl.Endpoints[:i], endpoint) {
			c.fault(fmt.Sprintf("endpoints[%d]", i), "%q stands here twice", endpoint)
		}
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			c.fault(fmt.Sprintf("endpoints[%d]", i), "%q is not a URL such as https://cluster.example.net", endpoint)
		}
	}
	within(c, "capacity_rps", cl.CapacityRPS, 0, math.MaxInt32)
	within(c, "max_in_flight", cl.MaxInFlight, 1, 10_000)
	if cl.Public != "" {
		c.public(cl.Public)
	}
	if cl.Health != nil {
		c.clusterHealth(cl.Health)
	}
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
