package router

import (
	"encoding/binary"
	"slices"
)

// variant is what the rules that fit a client make of a ranking.
type variant struct {
	rules   []int    // of the policy, that fit
	allowed []uint64 // a bit for each choice that may be answered; nil for all candidates
	count   int      // of candidates that may be answered
	tier    []uint8  // by Choice: preferred ones have low tiers; nil when none is preferred
	must    bool     // a rule says so
}

func (v *variant) allows(c Choice) bool { return v.allowed == nil || v.allowed[c/64]>>(c%64)&1 == 1 }

// lastTier is that of choices which nobody prefers.
const lastTier = 255

// matcher finds the variant of each origin for one ranking. It is not safe for concurrent use.
type matcher struct {
	table   *Table
	ranking *ranking
	choices map[string]Choice
	byASN   bool        // some rule names an ASN
	sets    []prefixSet // of each rule
	known   map[clients]uint32
	numbers map[string]uint32 // of variants, by the rules that fit
}

// clients are those whom rules cannot tell apart.
type clients struct {
	country, continent string
	asn, cut           uint32
}

func newMatcher(t *Table, r *ranking, choices map[string]Choice) *matcher {
	m := &matcher{table: t, ranking: r, choices: choices, known: map[clients]uint32{}, numbers: map[string]uint32{"": 0}}
	for _, rule := range r.policy.Rules {
		m.byASN = m.byASN || len(rule.ASNs) > 0
		set := prefixSet{}
		for _, p := range rule.Prefixes {
			set[p] = true
		}
		m.sets = append(m.sets, set)
	}
	r.variants = []*variant{m.variant(nil)}
	return m
}

// variantOf returns the number of the variant for an origin.
func (m *matcher) variantOf(o origin) uint32 {
	if len(m.ranking.policy.Rules) == 0 {
		return 0
	}
	who := clients{cut: o.cut}
	if place := m.table.atlas.places[o.place]; place != nil {
		who.country, who.continent = place.Country, place.Continent
		if m.byASN {
			who.asn = place.ASN
		}
	}
	number, known := m.known[who]
	if !known {
		number = m.find(who)
		m.known[who] = number
	}
	return number
}

func (m *matcher) find(who clients) uint32 {
	var rules []int
	var key []byte
	for i := range m.ranking.policy.Rules {
		if m.fits(i, who) {
			rules, key = append(rules, i), binary.BigEndian.AppendUint32(key, uint32(i))
		}
	}
	number, known := m.numbers[string(key)]
	if !known {
		number = uint32(len(m.ranking.variants))
		m.ranking.variants = append(m.ranking.variants, m.variant(rules))
		m.numbers[string(key)] = number
	}
	return number
}

// fits reports whether clients are among those of a rule.
func (m *matcher) fits(i int, who clients) bool {
	rule := &m.ranking.policy.Rules[i]
	return (len(rule.Countries) == 0 || slices.Contains(rule.Countries, who.country)) &&
		(len(rule.Continents) == 0 || slices.Contains(rule.Continents, who.continent)) &&
		(len(rule.ASNs) == 0 || slices.Contains(rule.ASNs, who.asn)) &&
		(len(rule.Prefixes) == 0 || who.cut > 0 && m.sets[i].holds(m.table.cuts.prefixes[who.cut]))
}

// variant puts rules together: what must be is what all of them allow, what must not be is what any of them forbids, and
// what is preferred by several counts by the first.
func (m *matcher) variant(rules []int) *variant {
	v := &variant{rules: rules, count: len(m.ranking.candidates)}
	if len(rules) == 0 {
		return v
	}
	v.allowed = make([]uint64, len(m.table.pops)/64+1)
	for _, c := range m.ranking.candidates {
		v.allowed[c/64] |= 1 << (c % 64)
	}
	preferred := uint8(0)
	for _, i := range rules {
		rule := &m.ranking.policy.Rules[i]
		if len(rule.Must) > 0 {
			v.must = true
			only := make([]uint64, len(v.allowed))
			for _, c := range numbersOf(rule.Must, m.choices) {
				only[c/64] |= 1 << (c % 64)
			}
			for i := range v.allowed {
				v.allowed[i] &= only[i]
			}
		}
		for _, c := range numbersOf(rule.MustNot, m.choices) {
			v.allowed[c/64] &^= 1 << (c % 64)
		}
		if m.ranking.vip && len(rule.MustNot) > 0 { // routing knows no rules
			for c := m.table.popCount; c < len(m.table.pops); c++ {
				v.allowed[c/64] &^= 1 << (c % 64)
			}
		}
		for _, c := range numbersOf(rule.Prefer, m.choices) {
			if v.tier == nil {
				v.tier = slices.Repeat([]uint8{lastTier}, len(m.table.pops))
			}
			if v.tier[c] == lastTier && preferred < lastTier {
				v.tier[c], preferred = preferred, preferred+1
			}
		}
	}
	v.count = 0
	for _, c := range m.ranking.candidates {
		if v.allows(c) {
			v.count++
		}
	}
	return v
}
