package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Policy is the order in which a client's PoPs are answered. Its parts are put together so: rules say which PoPs may be
// answered at all, and which come first; rank orders them; those whose costs lie within a band share their clients.
type Policy struct {
	Rank     RankBy              `yaml:"rank" json:"rank"`                             // default rtt
	Within   Duration            `yaml:"within,omitempty" json:"within,omitempty"`     // PoPs that are so near to the nearest share its clients; those that are equally near always do; 0..1s
	Weights  map[string]int      `yaml:"weights,omitempty" json:"weights,omitempty"`   // of PoPs that share clients, 1..1000, default 1
	Costs    map[string]Duration `yaml:"costs,omitempty" json:"costs,omitempty"`       // by which a PoP counts as farther away, 0..10s
	Failover []string            `yaml:"failover,omitempty" json:"failover,omitempty"` // order of PoPs by rank failover, and for clients whose place is unknown
	Rules    []Rule              `yaml:"rules,omitempty" json:"rules,omitempty"`
	Anycast  *Anycast            `yaml:"anycast,omitempty" json:"anycast,omitempty"` // none: clients get PoPs' own addresses
}

// RankBy says by what PoPs are ordered.
type RankBy string

// The ways to order PoPs.
const (
	RankByRTT       RankBy = "rtt"       // round-trip time: measured where it was, else predicted
	RankByPredicted RankBy = "predicted" // predicted round-trip time
	RankByFailover  RankBy = "failover"  // the failover order, and behind it by round-trip time
)

// Rule says for some clients which PoPs they may be sent to. A client is one of them if it has one of the countries, and of
// the continents, and of the ASNs, and of the prefixes; a list that is empty is for all. All rules that fit take effect.
type Rule struct {
	Name       string         `yaml:"name,omitempty" json:"name,omitempty"`                  // for explain
	Countries  []string       `yaml:"countries,omitempty,flow" json:"countries,omitempty"`   // ISO 3166-1 alpha-2
	Continents []string       `yaml:"continents,omitempty,flow" json:"continents,omitempty"` // AF, AN, AS, EU, NA, OC, SA
	ASNs       []uint32       `yaml:"asns,omitempty,flow" json:"asns,omitempty"`             // of an ASN database
	Prefixes   []netip.Prefix `yaml:"prefixes,omitempty,flow" json:"prefixes,omitempty"`     // that hold the client's address
	Must       []string       `yaml:"must,omitempty,flow" json:"must,omitempty"`             // no PoPs but these, whatever their health
	MustNot    []string       `yaml:"must_not,omitempty,flow" json:"must_not,omitempty"`     // never these
	Prefer     []string       `yaml:"prefer,omitempty,flow" json:"prefer,omitempty"`         // these before others, the first that fits first
}

// Canary is another policy for a share of a service's clients.
type Canary struct {
	Share  float64 `yaml:"share" json:"share"` // of the clients, 0..1
	Policy `yaml:",inline"`
}

// Continents are the codes of continents.
var Continents = []string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"}

// The bounds of a policy.
const (
	maxWithin = time.Second
	maxCost   = 10 * time.Second
	maxWeight = 1000
	maxRules  = 1000
)

// eachList calls each for every list of PoPs with the field that it stands in.
func (s *Steering) eachList(each func(field string, names []string)) {
	s.Policy.eachList("", each)
	if s.Canary != nil {
		s.Canary.eachList("canary.", each)
	}
	for _, pool := range slices.Sorted(maps.Keys(s.Pools)) {
		each("pools."+pool, s.Pools[pool])
	}
}

// Policies returns the policy, and that of the canary if there is one.
func (s *Steering) Policies() []*Policy {
	if s.Canary != nil {
		return []*Policy{&s.Policy, &s.Canary.Policy}
	}
	return []*Policy{&s.Policy}
}

func (p *Policy) eachList(prefix string, each func(field string, names []string)) {
	each(prefix+"failover", p.Failover)
	each(prefix+"weights", slices.Sorted(maps.Keys(p.Weights)))
	each(prefix+"costs", slices.Sorted(maps.Keys(p.Costs)))
	for i, r := range p.Rules {
		field := fmt.Sprintf("%srules[%d].", prefix, i)
		each(field+"must", r.Must)
		each(field+"must_not", r.MustNot)
		each(field+"prefer", r.Prefer)
	}
}

func (c *checker) steering(s *Steering) {
	if pool, ok := s.WhenAllDown.Pool(); !ok {
		if s.WhenAllDown != FailOpen && s.WhenAllDown != FailEmpty {
			c.fault("steering.when_all_down", "%q is not open, empty or pool:NAME", s.WhenAllDown)
		}
	} else if len(s.Pools[pool]) == 0 {
		c.fault("steering.when_all_down", "there is no pool %q in steering.pools, or it is empty", pool)
	}
	within(c, "steering.panic", s.Panic, 0, 100)
	if s.Spill != nil {
		c.spill("steering.spill", s.Spill)
	}
	c.policy("steering.", &s.Policy)
	if s.Canary != nil {
		if !(s.Canary.Share >= 0 && s.Canary.Share <= 1) {
			c.fault("steering.canary.share", "%v is not in 0..1", s.Canary.Share)
		}
		c.policy("steering.canary.", &s.Canary.Policy)
	}
}

func (c *checker) policy(field string, p *Policy) {
	oneOf(c, field+"rank", p.Rank, RankByRTT, RankByPredicted, RankByFailover)
	if p.Rank == RankByFailover && len(p.Failover) == 0 {
		c.fault(field+"failover", "is empty, and rank is failover")
	}
	c.duration(field+"within", p.Within, maxWithin)
	for name, weight := range p.Weights {
		within(c, field+"weights."+name, weight, 1, maxWeight)
	}
	for name, cost := range p.Costs {
		c.duration(field+"costs."+name, cost, maxCost)
	}
	if p.Anycast != nil {
		c.anycast(field+"anycast", p.Anycast)
	}
	if len(p.Rules) > maxRules {
		c.fault(field+"rules", "has %d entries, at most %d are taken", len(p.Rules), maxRules)
	}
	for i := range p.Rules {
		c.rule(fmt.Sprintf("%srules[%d]", field, i), &p.Rules[i])
	}
}

func (c *checker) duration(field string, d Duration, high time.Duration) {
	if d < 0 || time.Duration(d) > high {
		c.fault(field, "%v is not in 0s..%v", d, high)
	}
}

func (c *checker) rule(field string, r *Rule) {
	for i, country := range r.Countries {
		if !countryISO.MatchString(country) {
			c.fault(fmt.Sprintf("%s.countries[%d]", field, i), "%q is not a country code of two capitals", country)
		}
	}
	for i, continent := range r.Continents {
		oneOf(c, fmt.Sprintf("%s.continents[%d]", field, i), continent, Continents...)
	}
	for i, prefix := range r.Prefixes {
		c.prefix(fmt.Sprintf("%s.prefixes[%d]", field, i), prefix)
	}
	if len(r.Must)+len(r.MustNot)+len(r.Prefer) == 0 {
		c.fault(field, "does nothing: want must, must_not or prefer")
	}
}
