package scenario

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/internal/spelling"
	"github.com/isochrone/isochrone/topology"
)

// The bounds of a scenario.
const (
	MaxPoPs          = 500
	MaxClusters      = 100
	MaxClients       = 100_000_000
	MaxPacketClients = 10_000 // of the packet level
	maxDuration      = 32 * 24 * time.Hour
	maxSeeds         = 100
	maxEvents        = 1000
	maxRate          = 1000
	maxPublicSites   = 200
	maxBody          = 16 << 20
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checker collects faults.
type checker struct{ faults []topology.Fault }

func (c *checker) fault(path, format string, args ...any) {
	c.faults = append(c.faults, topology.Fault{Path: path, Message: fmt.Sprintf(format, args...)})
}

// within checks a number's range; NaN is in none.
func within[T int | float64](c *checker, path string, v, low, high T) {
	if !(v >= low && v <= high) {
		c.fault(path, "%v is not in %v..%v", v, low, high)
	}
}

func (c *checker) duration(path string, d Duration, low, high time.Duration) {
	if time.Duration(d) < low || time.Duration(d) > high {
		c.fault(path, "%v is not in %v..%v", d, low, high)
	}
}

// word checks a word of a closed list.
func word[T ~string](c *checker, path string, v T, known ...T) {
	if !slices.Contains(known, v) {
		names := make([]string, len(known))
		for i, k := range known {
			names[i] = string(k)
		}
		c.fault(path, "%q is not known; %s", v, spelling.Suggest(string(v), names))
	}
}

func (c *checker) place(path, text string) {
	if _, err := PlaceOf(text); err != nil {
		c.fault(path, "%v", err)
	}
}

// Validate returns all that is wrong with a scenario whose defaults are filled in. Whether the PoPs that events name exist is known when the
// world is built.
func (s *Scenario) Validate() []topology.Fault {
	c := &checker{}
	if !nameForm.MatchString(s.Name) {
		c.fault("scenario", "%q is not a name: want lower-case letters, digits and hyphens, at most 63", s.Name)
	}
	if len(s.Scales) == 0 {
		c.fault("scales", "is empty: want packet, flow, analytic or placement")
	}
	for i, scale := range s.Scales {
		word(c, fmt.Sprintf("scales[%d]", i), scale, Scales...)
		once(c, "scales", s.Scales, i)
	}
	if len(s.Policies) == 0 {
		c.fault("policies", "is empty: leave it out for ours alone")
	}
	for i, policy := range s.Policies {
		word(c, fmt.Sprintf("policies[%d]", i), policy, PolicyNames...)
		once(c, "policies", s.Policies, i)
	}
	c.duration("duration", s.Duration, 0, maxDuration)
	c.duration("step", s.Step, 100*time.Millisecond, time.Hour)
	c.seeds("seeds", s.Seeds)
	if len(s.Seeds) == 0 {
		c.fault("seeds", "is empty: leave it out for one seed")
	}
	c.world(&s.World)
	c.variants(s)
	if slices.Contains(s.Scales, Packet) && s.World.Clients.Count > MaxPacketClients {
		c.fault("world.clients.count", "%d is not in 1..%d, which the packet level takes", s.World.Clients.Count, MaxPacketClients)
	}
	c.timeline(s)
	for i, claim := range s.Claims {
		if claim.What == "" || claim.Value == "" || claim.Source == "" {
			c.fault(fmt.Sprintf("claims[%d]", i), "want what, value and source")
		}
	}
	for i, a := range s.Asserts {
		if err := s.CheckAssertion(a.That); err != nil {
			c.fault(fmt.Sprintf("assert[%d].that", i), "%v", err)
		}
	}
	if s.Short != nil {
		c.short(s)
	}
	return c.faults
}

// PolicyNames are all policies.
var PolicyNames = []PolicyName{Ours, Nearest, Random, Country, Distance, Anycast, FastRoute, Oracle}

// KnownPolicy returns an error that names those that are near, if there is no policy of a name.
func KnownPolicy(name string) error {
	c := &checker{}
	if word(c, "", PolicyName(name), PolicyNames...); len(c.faults) > 0 {
		return errors.New(c.faults[0].Message)
	}
	return nil
}

func once[T comparable](c *checker, path string, list []T, i int) {
	if slices.Contains(list[:i], list[i]) {
		c.fault(fmt.Sprintf("%s[%d]", path, i), "%v stands here twice", list[i])
	}
}

func (c *checker) seeds(path string, seeds []uint64) {
	if len(seeds) > maxSeeds {
		c.fault(path, "has %d entries, at most %d are taken", len(seeds), maxSeeds)
		return
	}
	for i := range seeds {
		once(c, path, seeds, i)
	}
}

func (c *checker) world(w *World) {
	switch {
	case w.File != "" && w.PoPs != nil:
		c.fault("world.pops", "stands beside topology, which has its own: want one of both")
	case w.File == "" && w.Topology == nil && w.PoPs == nil:
		c.fault("world.pops", "is missing: want pops with at or count, or topology with a file")
	}
	if p := w.PoPs; p != nil {
		c.pops(p)
	}
	if w.Clusters != nil {
		c.clusters(w)
	} else if w.PoPs != nil {
		c.fault("world.clusters", "is missing: want at with one place or more")
	}
	if w.Policy != nil {
		c.faults = append(c.faults, w.Policy.Check("world.policy")...)
	}
	within(c, "world.answers", w.Answers, 0, 4)
	if d := time.Duration(w.TTL); d != 0 && (d < time.Second || d > 24*time.Hour || d%time.Second != 0) {
		c.fault("world.ttl", "%v is not a whole number of seconds in 1s..24h", w.TTL)
	}
	word(c, "world.scopes", w.Scopes, ScopesOurs, ScopesEcho, ScopesMerge)
	word(c, "world.geo", w.Geo, GeoCity, GeoCountry, GeoExact)
	c.clients(&w.Clients)
	c.network(&w.Network)
}

func (c *checker) pops(p *PoPs) {
	switch {
	case len(p.At) > 0 && p.Count != 0:
		c.fault("world.pops.count", "stands beside at: want one of both")
	case len(p.At) == 0:
		within(c, "world.pops.count", p.Count, 1, MaxPoPs)
	case len(p.At) > MaxPoPs:
		c.fault("world.pops.at", "has %d entries, at most %d are taken", len(p.At), MaxPoPs)
	}
	for i, at := range p.At {
		c.place(fmt.Sprintf("world.pops.at[%d]", i), at)
	}
	for i, site := range p.Sites {
		c.place(fmt.Sprintf("world.pops.sites[%d]", i), site)
		once(c, "world.pops.sites", p.Sites, i)
	}
	switch {
	case len(p.Sites) > 0 && len(p.At) > 0:
		c.fault("world.pops.sites", "stands beside at: want one of both")
	case len(p.Sites) > 0 && p.Count > len(p.Sites):
		c.fault("world.pops.count", "%d is more than there are sites, %d", p.Count, len(p.Sites))
	}
	within(c, "world.pops.capacity", p.Capacity, 0, 1e6)
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(p.Shares)) {
		within(c, "world.pops.shares."+name, p.Shares[name], 0, 1)
		sum += p.Shares[name]
	}
	if sum > 1.000001 {
		c.fault("world.pops.shares", "the shares add up to %v, more than 1", sum)
	}
	if len(p.Shares) > 0 && p.Capacity == 0 {
		c.fault("world.pops.shares", "there is no capacity that they are shares of")
	}
}

func (c *checker) clusters(w *World) {
	if w.PoPs == nil {
		c.fault("world.clusters", "stands beside topology, which has its own: want one of both")
	}
	within(c, "world.clusters.at", len(w.Clusters.At), 1, MaxClusters)
	for i, at := range w.Clusters.At {
		c.place(fmt.Sprintf("world.clusters.at[%d]", i), at)
		once(c, "world.clusters.at", w.Clusters.At, i)
	}
}

func (c *checker) clients(k *Clients) {
	const at = "world.clients."
	within(c, at+"count", k.Count, 1, MaxClients)
	sum := 0.0
	for i, near := range k.Near {
		c.place(fmt.Sprintf(at+"near[%d].place", i), near.Place)
		within(c, fmt.Sprintf(at+"near[%d].weight", i), near.Weight, 0, 1e9)
		sum += near.Weight
	}
	if len(k.Near) > 0 && !(sum > 0) {
		c.fault(at+"near", "the weights add up to nothing")
	}
	within(c, at+"rate", k.Rate, 0, maxRate)
	within(c, at+"body", k.Body, 1, maxBody)
	within(c, at+"diurnal", k.Diurnal, 0, 1)
	within(c, at+"fresh", k.Fresh, 0, 1)
	parts := 0.0
	for i, a := range k.Access {
		word(c, fmt.Sprintf(at+"access[%d].line", i), a.Line, Lines...)
		within(c, fmt.Sprintf(at+"access[%d].part", i), a.Part, 0, 1)
		parts += a.Part
	}
	if len(k.Access) > 0 && math.Abs(parts-1) > 0.001 {
		c.fault(at+"access", "the parts add up to %v, not to 1", parts)
	}
	r := &k.Resolvers
	within(c, at+"resolvers.own", r.Own, 0, 1)
	within(c, at+"resolvers.public", r.Public, 0, 1)
	within(c, at+"resolvers.ecs", r.ECS, 0, 1)
	if sum := r.Own + r.Public + r.ECS; sum > 1.000001 {
		c.fault(at+"resolvers", "the parts add up to %v, more than 1", sum)
	}
	within(c, at+"resolvers.farm", r.Farm, 1, 10_000)
	within(c, at+"resolvers.at", len(r.At), 1, maxPublicSites)
	for i, site := range r.At {
		c.place(fmt.Sprintf(at+"resolvers.at[%d]", i), site)
	}
}

// Lines are the kinds of access line.
var Lines = []string{"datacentre", "fibre", "cable", "dsl"}

func (c *checker) network(n *Network) {
	const at = "world.network."
	if n.Spread != nil {
		within(c, at+"spread", *n.Spread, 0, 1)
	}
	if n.Detours != nil {
		within(c, at+"detours", *n.Detours, 0, 1)
	}
	within(c, at+"loss", n.Loss, 0, 0.5)
	within(c, at+"reorder", n.Reorder, 0, 0.5)
	within(c, at+"bandwidth", n.Bandwidth, 0, 1e12)
	within(c, at+"mtu", n.MTU, 1280, 9000)
	for _, link := range slices.Sorted(maps.Keys(n.RTT)) {
		if a, b, ok := strings.Cut(link, ","); !ok || strings.TrimSpace(a) == "" || strings.TrimSpace(b) == "" {
			c.fault(at+"rtt."+link, "want two names with a comma between them, such as sin,iad")
		}
		c.duration(at+"rtt."+link, n.RTT[link], 0, 10*time.Second)
	}
	within(c, at+"catchment.far", n.Catchment.Far, 0, 1)
}

func (c *checker) short(s *Scenario) {
	short := s.Short
	within(c, "short.clients", short.Clients, 0, s.World.Clients.Count)
	switch {
	case short.PoPs < 0 || short.PoPs > MaxPoPs:
		within(c, "short.pops", short.PoPs, 0, MaxPoPs)
	case short.PoPs > 0 && (s.World.PoPs == nil || s.World.PoPs.Count == 0):
		c.fault("short.pops", "the world's PoPs have no count that it could replace")
	}
	c.duration("short.duration", short.Duration, 0, max(0, time.Duration(s.Duration)))
	c.seeds("short.seeds", short.Seeds)
}

// ShortForm returns the scenario as it is run in CI: a copy, in which what Short says is changed. Events that begin after its end, and
// assertions for the full form alone, are left out.
func (s *Scenario) ShortForm() *Scenario {
	short := *s
	short.Short = nil
	short.Asserts = slices.DeleteFunc(slices.Clone(s.Asserts), func(a Assertion) bool { return a.Full })
	if s.Short == nil {
		return &short
	}
	if s.Short.Clients > 0 {
		short.World.Clients.Count = s.Short.Clients
		short.Variants = slices.Clone(s.Variants)
		for i := range short.Variants {
			world := *short.Variants[i].whole
			world.Clients.Count = s.Short.Clients
			short.Variants[i].whole = &world
		}
	}
	if s.Short.PoPs > 0 && s.World.PoPs != nil {
		pops := *s.World.PoPs
		pops.Count = s.Short.PoPs
		short.World.PoPs = &pops
	}
	if d := s.Short.Duration; d > 0 {
		short.Duration = d
		short.Timeline = slices.DeleteFunc(slices.Clone(s.Timeline), func(e Event) bool { return e.At >= d })
	}
	if len(s.Short.Seeds) > 0 {
		short.Seeds = s.Short.Seeds
	}
	return &short
}
