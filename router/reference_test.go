package router

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// reference decides the slow and obvious way: from the topology, network by network and PoP by PoP, without a table.
type reference struct {
	top      *topology.Topology
	geo      networks
	measured []rtt.Measurement
	in       Inputs
}

// refPoP is a PoP as one client sees it.
type refPoP struct {
	name     string
	tier     int // of preference
	failover int
	us       uint32 // with costs
	group    int
}

func (r *reference) place(addr netip.Addr) *Place {
	for _, n := range r.geo {
		if n.prefix.Contains(addr) {
			return n.place
		}
	}
	return nil
}

// predicted returns the round-trip time from a place, or the world's nodes, in µs.
func (r *reference) predicted(place *Place, name string) uint32 {
	if place == nil {
		place = &nowhere
	}
	pair := [2]topology.Location{place.Location, r.top.PoPs[name].Location}
	if _, known := predictions[pair]; !known {
		predictions[pair] = predict(place, pair[1])
	}
	return predictions[pair]
}

// predictions are kept, since random worlds have few places.
var (
	predictions = map[[2]topology.Location]uint32{}
	nowhere     = Place{Location: topology.Location{Country: "nowhere"}}
)

func predict(place *Place, to topology.Location) uint32 {
	if place != &nowhere {
		return uint32(math.Round(rtt.Default().Milliseconds(place.Location, to) * 1000))
	}
	var sum, weight float64
	for _, metro := range rtt.Metros() {
		sum += metro.Weight * math.Round(rtt.Default().Milliseconds(metro.Location, to)*1000)
		weight += metro.Weight
	}
	return uint32(math.Round(sum / weight))
}

// measurement returns what the longest measured prefix around a client says of a PoP.
func (r *reference) measurement(addr netip.Addr, pop string) (rtt.Entry, bool) {
	longest := -1
	for _, m := range r.measured {
		if m.Prefix.Contains(addr) {
			longest = max(longest, m.Prefix.Bits())
		}
	}
	for _, m := range r.measured {
		if m.Prefix.Contains(addr) && m.Prefix.Bits() == longest && m.PoP == pop {
			return rtt.Entry{Samples: uint16(m.Samples), Microseconds: uint32(m.RTT.Microseconds())}, true
		}
	}
	return rtt.Entry{}, false
}

func fits(rule *topology.Rule, place *Place, addr netip.Addr) bool {
	var country, continent string
	var asn uint32
	if place != nil {
		country, continent, asn = place.Country, place.Continent, place.ASN
	}
	return (rule.Countries == nil || slices.Contains(rule.Countries, country)) &&
		(rule.Continents == nil || slices.Contains(rule.Continents, continent)) &&
		(rule.ASNs == nil || slices.Contains(rule.ASNs, asn)) &&
		(rule.Prefixes == nil || slices.ContainsFunc(rule.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }))
}

func (r *reference) bucket(addr netip.Addr) bucket { return bucketOf(addressOf(addr), addr.Is4()) }

// order lists the PoPs that a client may be sent to, in its order.
func (r *reference) order(service *topology.Service, policy *topology.Policy, f Family, addr netip.Addr) []refPoP {
	place := r.place(addr)
	var order []refPoP
	for _, name := range slices.Sorted(maps.Keys(r.top.PoPs)) {
		if service.PoPs != nil && !slices.Contains(service.PoPs, name) {
			continue
		}
		if !slices.ContainsFunc(r.top.PoPs[name].Addresses, func(a netip.Addr) bool { return f == Either || a.Is4() == (f == IPv4) }) {
			continue
		}
		p := refPoP{name: name, tier: 1000, us: r.predicted(place, name)}
		if entry, ok := r.measurement(addr, name); ok && policy.Rank != topology.RankByPredicted {
			p.us, _ = rtt.Merge(p.us, entry)
		}
		p.us += uint32(time.Duration(policy.Costs[name]).Microseconds())
		if policy.Rank == topology.RankByFailover || place == nil {
			if p.failover = slices.Index(policy.Failover, name); p.failover < 0 {
				p.failover = len(policy.Failover)
			}
		}
		allowed, preferred := true, 0
		for i := range policy.Rules {
			rule := &policy.Rules[i]
			if !fits(rule, place, addr) {
				continue
			}
			allowed = allowed && (len(rule.Must) == 0 || slices.Contains(rule.Must, name)) && !slices.Contains(rule.MustNot, name)
			if at := slices.Index(rule.Prefer, name); at >= 0 {
				p.tier = min(p.tier, preferred+at)
			}
			preferred += len(rule.Prefer)
		}
		if allowed {
			order = append(order, p)
		}
	}
	var salt uint64
	if place == nil {
		place = &Place{}
	}
	salt = mix(uint64(int64(place.LatDeg*1e4))<<32 ^ uint64(int64(place.LonDeg*1e4)))
	tie := func(name string) uint64 { return mix(saltOf(name) ^ salt) }
	slices.SortFunc(order, func(a, b refPoP) int {
		for _, pair := range [][2]uint64{
			{uint64(a.tier), uint64(b.tier)}, {uint64(a.failover), uint64(b.failover)}, {uint64(a.us), uint64(b.us)}, {tie(a.name), tie(b.name)},
		} {
			if pair[0] != pair[1] {
				return map[bool]int{true: -1, false: 1}[pair[0] < pair[1]]
			}
		}
		return 0
	})
	vip := 0
	if a := policy.Anycast; a != nil && !(f == Either && a.Mode == topology.AnycastHybrid) &&
		slices.ContainsFunc(a.VIPs, func(a netip.Addr) bool { return f == Either || a.Is4() == (f == IPv4) }) &&
		!slices.ContainsFunc(a.Unicast, func(p netip.Prefix) bool { return p.Contains(addr) }) &&
		!slices.ContainsFunc(policy.Rules, func(rule topology.Rule) bool {
			return fits(&rule, r.place(addr), addr) && len(rule.Must)+len(rule.MustNot) > 0
		}) {
		order, vip = slices.Insert(order, 0, refPoP{name: vipName(a), tier: -1}), 1
	}
	// The first eight are in the client's own order, the others in that of the first one's PoP.
	if len(order) > ranked {
		first, rest := r.top.PoPs[order[vip].name].Location, order[ranked:]
		slices.SortFunc(rest, func(a, b refPoP) int { return map[bool]int{true: -1, false: 1}[a.name < b.name] })
		far := func(p refPoP) int { return int(r.predicted(&Place{Location: first}, p.name)) }
		slices.SortStableFunc(rest, func(a, b refPoP) int { return far(a) - far(b) })
	}
	var head refPoP
	for i := range order {
		p := &order[i]
		same := i > 0 && i < ranked && p.tier == head.tier && p.failover == head.failover && time.Duration(p.us-head.us)*time.Microsecond <= time.Duration(policy.Within)
		if p.group = i; same {
			p.group = order[i-1].group
		} else {
			head = *p
		}
	}
	return order
}

// override returns the newest override of a kind on a PoP, if it has not ended.
func (r *reference) override(kind topology.OverrideKind, pop string) *topology.Override {
	var newest *topology.Override
	for _, name := range slices.Sorted(maps.Keys(r.in.Overrides)) {
		o := r.in.Overrides[name]
		if o.Kind == kind && o.PoP == pop && r.in.Now.Before(o.Expires) && (newest == nil || !o.Created.Before(newest.Created)) {
			newest = o
		}
	}
	return newest
}

// decide returns the PoPs for a client, and the outcome.
func (r *reference) decide(name string, f Family, addr netip.Addr) ([]string, Outcome) {
	service := r.top.Services[name]
	policy, b := &service.Steering.Policy, r.bucket(addr)
	if canary := service.Steering.Canary; canary != nil && canary.Share > 0 && b.draw(saltFor(saltOf(name), forCanary)) < drawsOf(canary.Share) {
		policy = &canary.Policy
	}
	exists := func(policy *topology.Policy) bool {
		without := *policy
		without.Rules = nil
		if a := without.Anycast; a != nil {
			without.Anycast = &topology.Anycast{Mode: a.Mode, VIPs: a.VIPs}
		}
		return len(r.order(service, &without, f, addr)) > 0
	}
	if !exists(policy) {
		others := slices.DeleteFunc(service.Steering.Policies(), func(p *topology.Policy) bool { return !exists(p) })
		if len(others) == 0 {
			return nil, NoFamily
		}
		policy = others[0]
	}
	without := *policy
	without.Rules, without.Anycast = nil, nil
	all := r.order(service, &without, f, addr)
	var barred, down func(name string) bool
	everyAnnouncer := func(vip string, is func(string) bool) bool {
		for name, p := range r.top.PoPs {
			if len(p.VIPs) > 0 && strings.HasPrefix(vip, vipPrefix+p.VIPs[0].String()) && !is(name) {
				return false
			}
		}
		return true
	}
	barred = func(name string) bool {
		if strings.HasPrefix(name, vipPrefix) {
			return everyAnnouncer(name, barred)
		}
		if r.top.PoPs[name].State != topology.Active {
			return true
		}
		return r.override(topology.Drain, name) != nil
	}
	down = func(name string) bool {
		if strings.HasPrefix(name, vipPrefix) {
			return everyAnnouncer(name, func(name string) bool { return barred(name) || down(name) })
		}
		if o := r.override(topology.Force, name); o != nil {
			return o.Verdict == topology.ForceDown
		}
		v := r.in.Verdicts[health.Target{Kind: health.PoP, Name: name}]
		if place := r.place(addr); place != nil && place.Continent != "" && v.Status != health.Degraded {
			if own, ok := v.Regions[place.Continent]; ok {
				return own.Status == health.Down
			}
		}
		return v.Status == health.Down
	}
	downEverywhere := func(name string) bool {
		if o := r.override(topology.Force, name); o != nil {
			return o.Verdict == topology.ForceDown
		}
		v := r.in.Verdicts[health.Target{Kind: health.PoP, Name: name}]
		if v.Status != health.Down {
			return false
		}
		for _, own := range v.Regions {
			if own.Status != health.Down {
				return false
			}
		}
		return true
	}
	lucky := func(name string) bool {
		if strings.HasPrefix(name, vipPrefix) {
			return true
		}
		share, limited := r.in.Shares[name]
		if v := r.in.Verdicts[health.Target{Kind: health.PoP, Name: name}]; r.override(topology.Force, name) == nil {
			if v.Status == health.Degraded {
				share, limited = 0, true
			} else if age := r.in.Now.Sub(v.Recovered); !v.Recovered.IsZero() && age < 54*time.Second {
				back := float64(int(age/(6*time.Second))+1) / 10
				if !limited || back < share {
					share, limited = back, true
				}
			}
		}
		if o := r.override(topology.Pin, name); o != nil {
			share, limited = *o.Share, true
		}
		return !limited || share >= 1 || b.draw(saltFor(saltOf(name), forShare)) < drawsOf(share)
	}
	order := r.order(service, policy, f, addr)
	anycast := lucky
	lucky = func(name string) bool {
		return anycast(name) && r.turned(order, name, b)
	}
	want := service.Steering.Answers
	if f == Either {
		want = httpsAnswers
	}
	take := func(may func(string) bool) []string {
		var taken []string
		for i := 0; i < len(order); {
			var members []string
			group := order[i].group
			for ; i < len(order) && order[i].group == group; i++ {
				if may(order[i].name) {
					members = append(members, order[i].name)
				}
			}
			scoreOf := func(name string) uint64 {
				var weights []uint64
				if len(policy.Weights) > 0 {
					weights = []uint64{uint64(max(policy.Weights[name], 1))}
				}
				return score(b.draw(saltFor(saltOf(name), forGroup)), weights, 0)
			}
			slices.SortStableFunc(members, func(a, b string) int {
				return map[bool]int{true: -1, false: 1}[scoreOf(a) < scoreOf(b)]
			})
			taken = append(taken, members...)
		}
		return taken[:min(len(taken), want)]
	}
	well, some, wellSomewhere := 0, 0, 0
	for name := range r.top.PoPs {
		if (service.PoPs == nil || slices.Contains(service.PoPs, name)) && !barred(name) {
			some++
			if !down(name) {
				well++
			}
			if !downEverywhere(name) {
				wellSomewhere++
			}
		}
	}
	panics := well*100 < some*service.Steering.Panic
	usable := func(name string) bool { return !barred(name) && (panics || !down(name)) }
	if taken := take(func(name string) bool { return usable(name) && (down(name) || lucky(name)) }); len(taken) > 0 {
		return taken, Answered
	}
	if taken := take(usable); len(taken) > 0 {
		return taken, Answered
	}
	open := take(func(name string) bool { return !barred(name) })
	switch pool, isPool := service.Steering.WhenAllDown.Pool(); {
	case service.Steering.WhenAllDown == topology.FailEmpty && wellSomewhere == 0 && some > 0 && !panics:
		return nil, Empty
	case len(open) == 0:
		return nil, NoneAllowed
	case service.Steering.WhenAllDown == topology.FailOpen:
		return open, Answered
	case isPool:
		var taken []string
		for _, name := range service.Steering.Pools[pool] {
			if !barred(name) && slices.ContainsFunc(all, func(p refPoP) bool { return p.name == name }) && len(taken) < want {
				taken = append(taken, name)
			}
		}
		if len(taken) > 0 {
			return taken, Answered
		}
		return nil, NoneAllowed
	}
	return nil, NoneAllowed
}

// turned reports whether a PoP takes a client by what spill says of the first PoPs in its order.
func (r *reference) turned(order []refPoP, name string, b bucket) bool {
	if r.override(topology.Pin, name) != nil || strings.HasPrefix(name, vipPrefix) {
		return true
	}
	var leading Leading
	n := 0
	for _, p := range order[:min(len(order), ranked)] {
		if !strings.HasPrefix(p.name, vipPrefix) && n < len(leading) {
			leading[n] = p.name
			n++
		}
	}
	takes := r.in.Spill.Takes[leading]
	least, lost := map[string]float64{}, false
	for _, pop := range slices.Sorted(maps.Keys(r.in.Spill.Lost)) {
		instead, named := r.in.Spill.Lost[pop][leading]
		if !named || !r.lost(pop) {
			continue
		}
		one := map[string]float64{}
		for to, share := range instead {
			if to != pop {
				one[to] = share
			}
		}
		if share, limited := takes[pop]; limited {
			one[pop] = share
		}
		if lost {
			for to := range least {
				if share, limited := one[to]; limited {
					least[to] = max(least[to], share)
				} else {
					delete(least, to)
				}
			}
			continue
		}
		least, lost = one, true
	}
	if !lost {
		least = takes
	}
	share, limited := least[name]
	return !limited || share >= 1 || b.draw(saltFor(saltOf(name), forShare)) < drawsOf(share)
}

// lost reports whether a PoP is down or barred, gets nothing, or comes back.
func (r *reference) lost(name string) bool {
	p := r.top.PoPs[name]
	if p == nil {
		return false
	}
	if p.State != topology.Active || r.override(topology.Drain, name) != nil {
		return true
	}
	pin, force := r.override(topology.Pin, name), r.override(topology.Force, name)
	v := r.in.Verdicts[health.Target{Kind: health.PoP, Name: name}]
	switch {
	case force != nil && force.Verdict == topology.ForceDown, force == nil && v.Status == health.Down:
		return true
	case pin != nil:
		return *pin.Share == 0
	case force != nil:
		share, limited := r.in.Shares[name]
		return limited && share == 0
	}
	share, limited := r.in.Shares[name]
	age := r.in.Now.Sub(v.Recovered)
	return v.Status == health.Degraded || limited && share == 0 || !v.Recovered.IsZero() && age < 54*time.Second
}

// randomPlaces are where clients and PoPs of random worlds are.
var randomPlaces = []*Place{
	singapore, frankfurt, virginia, tokyo, saoPaulo, johannesburg, at(19.08, 72.88, "IN"), at(-33.87, 151.21, "AU"), at(55.76, 37.62, "RU"), at(6.52, 3.38, "NG"),
	{Location: singapore.Location, Continent: "AS", ASN: 64500}, {Location: frankfurt.Location, Continent: "EU", ASN: 64501},
}

// randomTopology has up to fifteen PoPs, some of them side by side, and a service of a random policy.
func randomTopology(r *rand.Rand) *topology.Topology {
	top := &topology.Topology{PoPs: map[string]*topology.PoP{}, Services: map[string]*topology.Service{}}
	var names []string
	for i := range 1 + r.IntN(15) {
		p := &topology.PoP{Location: randomPlaces[r.IntN(10)].Location, State: topology.Active}
		if r.IntN(5) > 0 {
			p.Addresses = append(p.Addresses, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		if r.IntN(3) > 0 {
			p.Addresses = append(p.Addresses, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}))
		}
		if r.IntN(10) == 0 {
			p.State = topology.Draining
		}
		if r.IntN(3) == 0 {
			p.VIPs = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}[:1+r.IntN(2)]
		}
		names = append(names, fmt.Sprintf("pop%d", i))
		top.PoPs[names[i]] = p
	}
	some := func() []string {
		var few []string
		for range r.IntN(4) {
			few = append(few, names[r.IntN(len(names))])
		}
		slices.Sort(few)
		return slices.Compact(few)
	}
	policy := func() topology.Policy {
		p := topology.Policy{
			Rank:   []topology.RankBy{topology.RankByRTT, topology.RankByRTT, topology.RankByPredicted, topology.RankByFailover}[r.IntN(4)],
			Within: topology.Duration(r.IntN(3)) * topology.Duration(30*time.Millisecond), Failover: some(),
			Weights: map[string]int{}, Costs: map[string]topology.Duration{},
		}
		for _, name := range some() {
			p.Weights[name] = 1 + r.IntN(5)
		}
		for _, name := range some() {
			p.Costs[name] = topology.Duration(r.IntN(100)) * topology.Duration(time.Millisecond)
		}
		for range r.IntN(4) {
			var rule topology.Rule
			switch r.IntN(4) {
			case 0:
				rule.Countries = []string{"SG", "DE"}
			case 1:
				rule.Continents = []string{"AS"}
			case 2:
				rule.ASNs = []uint32{64500}
			case 3:
				rule.Prefixes = []netip.Prefix{randomPrefix(r), randomPrefix(r)}
			}
			switch r.IntN(3) {
			case 0:
				rule.Must = some()
			case 1:
				rule.MustNot = some()
			case 2:
				rule.Prefer = some()
			}
			p.Rules = append(p.Rules, rule)
		}
		if r.IntN(3) == 0 {
			p.Anycast = &topology.Anycast{Mode: topology.AnycastAll, VIPs: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}[:1+r.IntN(2)]}
			if r.IntN(2) == 0 {
				p.Anycast.Mode, p.Anycast.Unicast = topology.AnycastHybrid, []netip.Prefix{randomPrefix(r), randomPrefix(r)}
			}
		}
		return p
	}
	service := &topology.Service{Steering: topology.Steering{
		Answers: 1 + r.IntN(4), WhenAllDown: []topology.WhenAllDown{topology.FailOpen, topology.FailOpen, topology.FailEmpty, "pool:last"}[r.IntN(4)],
		Pools: map[string][]string{"last": some()}, Policy: policy(), Panic: []int{0, 0, 50}[r.IntN(3)],
	}}
	if r.IntN(3) == 0 {
		service.PoPs = append(some(), names[0])
		for _, name := range names {
			if !slices.Contains(service.PoPs, name) {
				top.PoPs[name].VIPs = nil // who announces them offers the service
			}
		}
	}
	if r.IntN(3) == 0 {
		service.Steering.Canary = &topology.Canary{Share: []float64{0, 0.3, 1}[r.IntN(3)], Policy: policy()}
	}
	top.Services["intake.example"] = service
	return top
}

// randomBases are where random worlds have their networks; little is known outside.
var randomBases = []string{"10.0.0.0/8", "2001:db8::/32"}

// randomPrefix is inside of one of the bases, and at most 64 bits long.
func randomPrefix(r *rand.Rand) netip.Prefix {
	base := netip.MustParsePrefix(randomBases[r.IntN(2)])
	p, _ := randomAddress(r, base).Prefix(base.Bits() + 1 + r.IntN(20))
	return p
}

// randomInputs has PoPs that are down, drained, or get a share, and some about which operators think otherwise.
func randomInputs(r *rand.Rand, top *topology.Topology) Inputs {
	in := Inputs{Verdicts: health.Verdicts{}, Overrides: map[string]*topology.Override{}, Shares: map[string]float64{}, Now: start}
	odds := []int{2, 4, 1000}[r.IntN(3)] // one in so many is down
	for _, name := range slices.Sorted(maps.Keys(top.PoPs)) {
		switch {
		case r.IntN(odds) == 0:
			in.Verdicts[health.Target{Kind: health.PoP, Name: name}] = health.Verdict{Status: health.Down, Reason: "refused"}
		case r.IntN(10) == 0:
			in.Verdicts[health.Target{Kind: health.PoP, Name: name}] = health.Verdict{Status: health.Degraded, Reason: "no cluster"}
		case r.IntN(5) == 0:
			in.Verdicts[health.Target{Kind: health.PoP, Name: name}] = health.Verdict{Status: health.Up, Recovered: start.Add(-time.Duration(r.IntN(70)) * time.Second)}
		case r.IntN(4) == 0:
			in.Verdicts[health.Target{Kind: health.PoP, Name: name}] = health.Verdict{
				Status: []health.Status{health.Up, health.Down}[r.IntN(2)], Reason: "seen differently",
				Regions: map[string]health.RegionVerdict{"AS": {Status: health.Down}, "EU": {Status: []health.Status{health.Up, health.Down}[r.IntN(2)]}},
			}
		case r.IntN(12) == 0:
			in.Overrides[name] = &topology.Override{Kind: topology.Drain, PoP: name, Expires: start.Add(time.Hour)}
		case r.IntN(4) == 0:
			in.Shares[name] = []float64{0, 0.1, 0.5, 0.99, 1}[r.IntN(5)]
		}
		for i := range max(0, r.IntN(8)-5) { // of which some are about the same, and some over
			in.Overrides[fmt.Sprintf("%s-%d", name, i)] = randomOverride(r, name)
		}
	}
	return in
}

// randomSpill has shares for many of the orders that clients may have, and for some while a PoP is lost.
func randomSpill(r *rand.Rand, names []string) Spill {
	var s Spill
	if r.IntN(2) == 0 {
		return s
	}
	names = append(slices.Clone(names), "")
	shares := []float64{0, 0.1, 0.5, 0.9}
	if r.IntN(2) == 0 {
		shares = []float64{0} // so that scopes are not those of buckets
	}
	takes := func(odds int) map[Leading]Takes {
		all := map[Leading]Takes{}
		for _, a := range names {
			for _, b := range names {
				for _, c := range names {
					if r.IntN(odds) > 0 {
						continue
					}
					some := Takes{}
					for range 1 + r.IntN(4) {
						some[names[r.IntN(len(names))]] = append(shares, 1)[r.IntN(len(shares)+1)]
					}
					for _, near := range []string{a, b} {
						if r.IntN(2) == 0 {
							some[near] = shares[r.IntN(len(shares))]
						}
					}
					all[Leading{a, b, c, names[r.IntN(len(names))]}] = some
				}
			}
		}
		return all
	}
	s.Takes, s.Lost = takes(2), map[string]map[Leading]Takes{}
	for _, name := range names {
		if r.IntN(3) == 0 {
			s.Lost[name] = takes(4)
		}
	}
	return s
}

// randomOverride forces a verdict on a PoP or pins its share, now or some time ago.
func randomOverride(r *rand.Rand, pop string) *topology.Override {
	o := &topology.Override{
		Kind: topology.Force, PoP: pop, Verdict: []topology.ForcedVerdict{topology.ForceUp, topology.ForceDown}[r.IntN(2)], Reason: "r", Author: "a",
		Created: start.Add(-time.Duration(r.IntN(3)) * time.Hour), Expires: start.Add(time.Duration(r.IntN(4)-1) * time.Hour),
	}
	if r.IntN(2) == 0 {
		o.Kind, o.Verdict, o.Share = topology.Pin, "", &[]float64{0, 0.1, 0.5, 1}[r.IntN(4)]
	}
	return o
}

func randomMeasurements(r *rand.Rand, top *topology.Topology) []rtt.Measurement {
	names := append(slices.Sorted(maps.Keys(top.PoPs)), "gone")
	var all []rtt.Measurement
	for range r.IntN(20) {
		prefix := randomPrefix(r)
		if slices.ContainsFunc(all, func(m rtt.Measurement) bool { return m.Prefix == prefix }) {
			continue
		}
		for _, name := range names[:1+r.IntN(len(names))] {
			if r.IntN(2) == 0 {
				all = append(all, rtt.Measurement{Prefix: prefix, PoP: name, RTT: time.Duration(r.IntN(200_000)) * time.Microsecond, Samples: 1 + r.IntN(30)})
			}
		}
	}
	return all
}

// TestDecideAgainstTheObviousWay asks random questions of random worlds. The table must answer as the reference does; every
// other client inside the scope must get the same answer, by the table and by the reference; and a trace tells the same.
func TestDecideAgainstTheObviousWay(t *testing.T) {
	const perWorld = 100
	r := rand.New(rand.NewPCG(*seed, 2))
	for n := range *questions / perWorld {
		checkWorld(t, r, n, perWorld)
	}
}

var (
	questions = flag.Int("questions", 20_000, "how `many` random questions are held against the reference")
	seed      = flag.Uint64("seed", 1, "`number` that random worlds are made of")
)

// earlier returns what a topology may have been before its last edit, which may have changed its rankings or not.
func earlier(r *rand.Rand, top *topology.Topology) *topology.Topology {
	names := slices.Sorted(maps.Keys(top.PoPs))
	name := names[r.IntN(len(names))]
	p, ref := *top.PoPs[name], topology.Ref{Kind: topology.PoPs, Name: name}
	switch r.IntN(8) {
	case 0:
		p.State = topology.Disabled
	case 1:
		p.CapacityRPS++
	case 2:
		p.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.200")}
	case 3:
		p.Addresses = nil
	case 4:
		p.Location = randomPlaces[r.IntN(10)].Location
	case 5:
		return top.With(nil, []topology.Ref{ref})
	case 6:
		return top.With(map[topology.Ref]topology.Object{{Kind: topology.PoPs, Name: "gone"}: &p}, nil)
	default:
		s := *top.Services["intake.example"]
		s.Steering.Rank, s.Steering.TTL = topology.RankByRTT, topology.Duration(time.Hour)
		return top.With(map[topology.Ref]topology.Object{{Kind: topology.Services, Name: "intake.example"}: &s}, nil)
	}
	return top.With(map[topology.Ref]topology.Object{ref: &p}, nil)
}

func checkWorld(t *testing.T, r *rand.Rand, n, questions int) {
	t.Helper()
	ref := &reference{top: randomTopology(r), geo: randomWorld(r)}
	ref.in, ref.measured = randomInputs(r, ref.top), randomMeasurements(r, ref.top)
	ref.in.Spill = randomSpill(r, slices.Sorted(maps.Keys(ref.top.PoPs)))
	measured, err := rtt.NewMap(ref.measured)
	if err != nil {
		t.Fatal(err)
	}
	table, err := compileMap(t, earlier(r, ref.top), ref.geo, measured).With(&topology.Snapshot{Topology: ref.top})
	if err != nil {
		t.Fatal(err)
	}
	view := &View{table, NewState(table, ref.in)}
	var (
		asks []Ask
		each []Answer
	)
	for range questions {
		family := Family(r.IntN(int(families)))
		inside := netip.MustParsePrefix(randomBases[r.IntN(2)])
		if r.IntN(20) == 0 {
			inside = netip.MustParsePrefix([]string{"0.0.0.0/0", "::/0"}[r.IntN(2)])
		}
		addr := randomAddress(r, inside)
		if r.IntN(2) == 0 { // as a resolver sends it: some first bits
			sent, _ := addr.Prefix(1 + r.IntN(addr.BitLen()))
			addr = sent.Addr()
		}
		got, a := ask(t, view, family, netip.PrefixFrom(addr, addr.BitLen()).String())
		asks, each = append(asks, Ask{0, family, netip.PrefixFrom(addr, addr.BitLen())}), append(each, a)
		want, outcome := ref.decide("intake.example", family, addr)
		var trace Trace
		traced := Decide(view, 0, family, netip.PrefixFrom(addr, addr.BitLen()), &trace)
		if !slices.Equal(got, want) || a.Outcome != outcome || traced != a || !slices.Equal(trace.Answer, got) {
			t.Fatalf("world %d, %v for %v: got %v (%v), want %v (%v); traced %+v\ntopology:\n%s\ninputs: %+v", n, family, addr, got, a.Outcome, want, outcome,
				trace, ref.top.Marshal(), ref.in)
		}
		if len(got) == 0 && outcome == Answered {
			t.Fatalf("world %d, %v for %v: an empty answer", n, family, addr)
		}
		scope := netip.PrefixFrom(addr, int(a.ScopeBits)).Masked()
		for i := range 8 {
			other := randomAddress(r, scope)
			if i < 3 { // near the edges, where it would break
				other = edge(scope, i == 0)
			}
			same, b := ask(t, view, family, netip.PrefixFrom(other, other.BitLen()).String())
			if !slices.Equal(same, got) || b.Outcome != a.Outcome {
				t.Fatalf("world %d, %v for %v: %v has scope %v, but %v gets %v\ntopology:\n%s", n, family, addr, got, scope, other, same, ref.top.Marshal())
			}
		}
	}
	all := make([]Answer, len(asks))
	DecideAll(view, asks, all)
	if !slices.Equal(all, each) {
		t.Fatalf("world %d: as a batch %v, one by one %v", n, all, each)
	}
}

// FuzzDecide makes worlds of numbers that the fuzzer finds.
func FuzzDecide(f *testing.F) {
	for n := range uint64(20) {
		f.Add(n, n)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) { checkWorld(t, rand.New(rand.NewPCG(a, b)), 0, 20) })
}

// edge returns the first or the last address of a prefix.
func edge(p netip.Prefix, first bool) netip.Addr {
	if first {
		return p.Addr()
	}
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
