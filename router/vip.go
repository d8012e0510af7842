package router

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/topology"
)

// vip is a choice that stands for addresses which several PoPs announce. It is well while one of them is.
type vip struct {
	announcers []Choice
}

// vipPrefix begins the names of VIPs among those of choices. No PoP has a colon in its name.
const vipPrefix = "vip:"

// vipName is the name of the choice for some addresses.
func vipName(a *topology.Anycast) string {
	var texts []string
	for _, addr := range a.VIPs {
		texts = append(texts, addr.String())
	}
	return vipPrefix + strings.Join(texts, "+")
}

// addVIPs adds a choice for each list of addresses that policies name, behind the PoPs.
func (t *Table) addVIPs(pops map[string]Choice) (choices map[string]Choice) {
	choices = maps.Clone(pops)
	top := t.snapshot.Topology
	for _, name := range slices.Sorted(maps.Keys(top.Services)) {
		for _, p := range top.Services[name].Steering.Policies() {
			if p.Anycast == nil {
				continue
			}
			name := vipName(p.Anycast)
			if _, known := choices[name]; known {
				continue
			}
			announcers := p.Anycast.Announcers(top)
			choices[name] = Choice(len(t.pops))
			t.pops = append(t.pops, tablePoP{name, standIn(top, p.Anycast, announcers), saltOf(name), &vip{numbersOf(announcers, pops)}})
		}
	}
	return choices
}

// standIn is a PoP with the addresses, for who makes records of a choice.
func standIn(top *topology.Topology, a *topology.Anycast, announcers []string) *topology.PoP {
	pop := &topology.PoP{Addresses: a.VIPs, State: topology.Active}
	for _, name := range announcers {
		pop.Port = top.PoPs[name].Port // one for all: validation requires it
		pop.CapacityRPS += top.PoPs[name].CapacityRPS
	}
	return pop
}

// withVIP returns a policy, and candidates, with the VIP of the policy. It comes first, for who may be answered it; rules that say where clients
// must be sent, or must not, leave it out. HTTPS records of a hybrid policy have none.
func withVIP(policy *topology.Policy, candidates []Choice, f Family, t *Table, choices map[string]Choice) (*topology.Policy, []Choice) {
	a := policy.Anycast
	if a == nil || f == Either && a.Mode == topology.AnycastHybrid {
		return policy, candidates
	}
	name := vipName(a)
	c := choices[name]
	if !t.pops[c].has(f) {
		return policy, candidates
	}
	if len(a.Unicast) > 0 {
		with := *policy
		with.Rules = append(slices.Clone(policy.Rules), topology.Rule{Name: "unicast", Prefixes: a.Unicast, MustNot: []string{name}})
		policy = &with
	}
	return policy, append(slices.Clone(candidates), c)
}

// IsVIP reports whether a choice stands for addresses that several PoPs announce.
func (t *Table) IsVIP(c Choice) bool { return t.pops[c].vip != nil }

// Announcers returns the PoPs that announce the addresses of a choice; none for a PoP. The slice must not be changed.
func (t *Table) Announcers(c Choice) []Choice {
	if v := t.pops[c].vip; v != nil {
		return v.announcers
	}
	return nil
}

// Choices returns how many choices there are: the PoPs, and behind them the VIPs.
func (t *Table) Choices() int { return len(t.pops) }

// anchor is the choice that the order of those is by whom a class does not list: its first PoP.
func (t *Table) anchor(k *class) Choice {
	if k.n > 1 && t.IsVIP(k.first[0]) {
		return k.first[1]
	}
	return k.first[0]
}

// standingOf is that of a VIP in a region: the best of its announcers', who need not have room.
func (v *vip) standingOf(standings []standing) standing {
	best := barred
	for _, c := range v.announcers {
		best = min(best, standings[c])
	}
	if best <= shared {
		return eligible
	}
	return best
}

// whyOf tells why a VIP may not be answered.
func (v *vip) whyOf(best standing, t *Table) string {
	if best <= shared {
		return ""
	}
	var names []string
	for _, c := range v.announcers {
		names = append(names, t.pops[c].name)
	}
	return fmt.Sprintf("no PoP that announces it is well: %s", strings.Join(names, ", "))
}

// sets are the prefixes of a rule, for rules that have many.
type prefixSet map[netip.Prefix]bool

// holds reports whether a prefix lies in one of the set.
func (s prefixSet) holds(inner netip.Prefix) bool {
	for bits := inner.Bits(); bits >= 0; bits-- {
		if outer, err := inner.Addr().Prefix(bits); err == nil && s[outer] {
			return true
		}
	}
	return false
}
