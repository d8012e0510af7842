package router

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Choice is what can be answered: a PoP by its unicast addresses, or a VIP, the addresses that several PoPs announce. It is an index that means
// something within one Table only; what outlives a table is stored by name.
type Choice uint16

// ServiceID is the index of a service in one Table.
type ServiceID uint16

// Family is the kind of addresses that an answer needs, and so which PoPs compete for it.
type Family uint8

// The families. Either ranks the PoPs that have any address, for HTTPS records.
const (
	IPv4 Family = iota
	IPv6
	Either
	families
)

// String returns the DNS record type that the family is asked by.
func (f Family) String() string { return [...]string{"A", "AAAA", "HTTPS"}[f] }

// ErrTooLarge is returned for a topology with more PoPs, services or rankings than a table can number.
var ErrTooLarge = errors.New("topology too large")

// Table is topology, geo database and RTT map compiled: client prefix → block → class of ranked choices, with the scope
// of each. It is immutable and safe for concurrent use. It is large and is replaced when the topology, the database or
// the map changes; what changes more often is the State.
type Table struct {
	snapshot *topology.Snapshot
	model    *rtt.Model
	atlas    *Atlas
	rttMap   *rtt.Map   // nil for none
	pops     []tablePoP // by Choice: the PoPs, and behind them the VIPs
	popCount int        // of the PoPs alone
	services []tableService
	byName   map[string]ServiceID
	v4, v6   *space
	origins  []origin // of blocks; nil where the origin of a block is its place
	cuts     *cuts
	rankings []*ranking
	group    []salt     // of each choice, for groups
	share    []salt     // of each choice, for shares
	near     [][]Choice // by first choice of a class that does not list all: all choices, the nearest to it first
	targets  *rtt.Targets
	mean     []uint32 // of each choice: predicted RTT in µs to the world's nodes
}

// origin is what is known of a block's addresses.
type origin struct {
	place    uint32
	measured int32  // prefix of the RTT map, or noPrefix
	cut      uint32 // prefix that rules name, or 0
}

const noPrefix = -1

type tablePoP struct {
	name string
	*topology.PoP
	salt uint64 // of its name
	*vip        // nil for a PoP
}

type tableService struct {
	name string
	*topology.Service
	salt       salt               // for the canary
	candidates []Choice           // the PoPs that offer the service, disabled ones included
	rankings   [families]*ranking // nil where no candidate has an address of the family
	canary     [families]*ranking // nil without a canary

	canaryDiffers bool     // its candidates are others: one of the two policies has a VIP, or another one
	pool          []Choice // what is answered when all are down
}

// Compile makes a table, on all processors. The RTT map may be nil. The arguments become part of the table and must not change
// afterwards. The error is ErrTooLarge.
func Compile(snap *topology.Snapshot, atlas *Atlas, measured *rtt.Map) (*Table, error) {
	return compile(snap, atlas, measured, runtime.GOMAXPROCS(0), nil)
}

// compile makes a table, which shares what it can with an older one, or nil.
func compile(snap *topology.Snapshot, atlas *Atlas, measured *rtt.Map, workers int, old *Table) (*Table, error) {
	t := &Table{snapshot: snap, model: rtt.Default(), atlas: atlas, rttMap: measured, byName: map[string]ServiceID{}}
	if n := len(snap.Topology.PoPs); n >= math.MaxUint16 {
		return nil, fmt.Errorf("%w: %d PoPs, at most 65534 can be compiled", ErrTooLarge, n)
	}
	if n := len(snap.Topology.Services); n > math.MaxUint16 {
		return nil, fmt.Errorf("%w: %d services, at most 65535 can be compiled", ErrTooLarge, n)
	}
	choices, locations := map[string]Choice{}, []topology.Location(nil)
	for _, name := range slices.Sorted(maps.Keys(snap.Topology.PoPs)) {
		choices[name] = Choice(len(t.pops))
		pop := snap.Topology.PoPs[name]
		t.pops = append(t.pops, tablePoP{name, pop, saltOf(name), nil})
	}
	t.popCount = len(t.pops)
	pops, choices := choices, t.addVIPs(choices)
	for _, pop := range t.pops {
		locations = append(locations, pop.Location)
		t.group, t.share = append(t.group, saltFor(pop.salt, forGroup)), append(t.share, saltFor(pop.salt, forShare))
	}
	t.addServices(pops, choices)
	if t.inherit(old) {
		return t, nil
	}
	t.targets = t.model.Targets(locations)
	t.mean = t.meanRTTs()
	t.cover()
	if err := t.rankAll(choices, min(workers, maxWorkers)); err != nil {
		return nil, err
	}
	return t, nil
}

// addServices lists the services with their rankings, which services of one policy and one set of candidates share.
func (t *Table) addServices(pops, choices map[string]Choice) {
	services, shared := t.snapshot.Topology.Services, map[string]*ranking{}
	ranking := func(policy *topology.Policy, candidates []Choice, f Family) *ranking {
		if policy, candidates = withVIP(policy, candidates, f, t, choices); len(candidates) == 0 {
			return nil
		}
		key := policyKey(policy, candidates)
		if shared[key] == nil {
			shared[key] = newRanking(t, policy, candidates, choices)
			shared[key].key = key
			t.rankings = append(t.rankings, shared[key])
		}
		return shared[key]
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		service := services[name]
		t.byName[name] = ServiceID(len(t.services))
		s := tableService{name: name, Service: service, salt: saltFor(saltOf(name), forCanary), candidates: candidatesOf(service, pops)}
		for family := range families {
			candidates := slices.DeleteFunc(slices.Clone(s.candidates), func(c Choice) bool { return !t.pops[c].has(family) })
			s.rankings[family] = ranking(&service.Steering.Policy, candidates, family)
			if service.Steering.Canary != nil {
				s.canary[family] = ranking(&service.Steering.Canary.Policy, candidates, family)
				if s.rankings[family] != nil && s.canary[family] != nil {
					s.canaryDiffers = s.canaryDiffers || !slices.Equal(s.rankings[family].candidates, s.canary[family].candidates)
				}
				if s.rankings[family] == nil { // whether there are addresses of a family is the same for all clients
					s.rankings[family] = s.canary[family]
				}
			}
		}
		if pool, ok := service.Steering.WhenAllDown.Pool(); ok {
			s.pool = numbersOf(service.Steering.Pools[pool], pops)
		}
		t.services = append(t.services, s)
	}
}

func candidatesOf(service *topology.Service, choices map[string]Choice) []Choice {
	if len(service.PoPs) == 0 {
		return slices.Sorted(maps.Values(choices))
	}
	candidates := numbersOf(service.PoPs, choices)
	slices.Sort(candidates)
	return slices.Compact(candidates)
}

// numbersOf returns the choices of those names that there are.
func numbersOf(names []string, choices map[string]Choice) []Choice {
	var numbers []Choice
	for _, name := range names {
		if c, ok := choices[name]; ok {
			numbers = append(numbers, c)
		}
	}
	return numbers
}

// has reports whether the PoP has an address of the family.
func (p tablePoP) has(f Family) bool {
	for _, a := range p.Addresses {
		if f == Either || a.Is4() == (f == IPv4) {
			return true
		}
	}
	return false
}

// meanRTTs predicts the round-trip times from the world's nodes, averaged over them.
func (t *Table) meanRTTs() []uint32 {
	one, sums, weight := make([]uint32, len(t.pops)), make([]float64, len(t.pops)), 0.0
	for _, metro := range rtt.Metros() {
		t.targets.Microseconds(metro.Location, one)
		for c, us := range one {
			sums[c] += metro.Weight * float64(us)
		}
		weight += metro.Weight
	}
	for c, sum := range sums {
		one[c] = uint32(math.Round(sum / weight))
	}
	t.nearestAnnouncer(one)
	return one
}

// nearestAnnouncer gives each VIP the round-trip time to the nearest PoP that announces it: the best that routing can do.
func (t *Table) nearestAnnouncer(us []uint32) {
	for c := t.popCount; c < len(t.pops); c++ {
		us[c] = math.MaxUint32
		for _, announcer := range t.pops[c].announcers {
			us[c] = min(us[c], us[announcer])
		}
	}
}

// predict writes the predicted round-trip times from a location of the atlas to all choices, in microseconds.
func (t *Table) predict(location uint32, into []uint32) {
	if location == unknown {
		copy(into, t.mean)
		return
	}
	t.targets.Microseconds(t.atlas.locations[location].at(), into)
	t.nearestAnnouncer(into)
}

// Service returns the id of a service by its host name, in lower case or not, without a trailing dot.
func (t *Table) Service(name string) (ServiceID, bool) {
	id, ok := t.byName[name]
	if !ok {
		id, ok = t.byName[strings.ToLower(name)]
	}
	return id, ok
}

// Services returns how many services the table knows; they are numbered from 0.
func (t *Table) Services() int { return len(t.services) }

// ServiceByID returns the name of a service and what the topology says of it.
func (t *Table) ServiceByID(id ServiceID) (string, *topology.Service) {
	return t.services[id].name, t.services[id].Service
}

// PoP returns the PoP that a choice stands for. That of a VIP has its addresses, the port and the capacity of those who announce it, and no
// location; its name is vip: and the addresses.
func (t *Table) PoP(c Choice) (string, *topology.PoP) { return t.pops[c].name, t.pops[c].PoP }

// PoPs returns how many PoPs the table knows; they are the first choices, numbered from 0.
func (t *Table) PoPs() int { return t.popCount }

// Candidates returns the PoPs that offer a service, whatever their state. The slice must not be changed.
func (t *Table) Candidates(id ServiceID) []Choice { return t.services[id].candidates }

// DecidesAs reports whether two tables are of one topology and one compilation, and so differ at most in what their snapshots have
// besides the topology.
func (t *Table) DecidesAs(o *Table) bool {
	return t.targets == o.targets && t.snapshot.Topology == o.snapshot.Topology
}

// Snapshot returns what the table was compiled from.
func (t *Table) Snapshot() *topology.Snapshot { return t.snapshot }

// Size tells how large a table is.
type Size struct {
	Blocks4, Blocks6 int // of the address spaces
	Rankings         int // distinct policies with their candidates
	Classes          int // of all rankings together
	Bytes            int // what the table holds by itself, without topology, atlas and map
}

// Size tells how large the table is.
func (t *Table) Size() Size {
	s := Size{Blocks4: t.v4.blocks(), Blocks6: t.v6.blocks(), Rankings: len(t.rankings)}
	for _, r := range t.rankings {
		s.Classes += len(r.classes)
		s.Bytes += len(r.classes)*classBytes + 8*len(r.briefs) + scopes*(t.v4.blocks()+t.v6.blocks())
	}
	for _, near := range t.near {
		s.Bytes += 2 * len(near)
	}
	if t.origins != nil {
		s.Bytes += 12*len(t.origins) + 10*t.v4.blocks() + 20*t.v6.blocks() + 4*(len(t.v4.index)+len(t.v6.index))
	}
	return s
}

// locationOf returns the location of an origin.
func (t *Table) locationOf(origin uint32) uint32 {
	if t.origins != nil {
		origin = t.origins[origin].place
	}
	return t.atlas.location[origin]
}

// originOf returns what is known of a block.
func (t *Table) originOf(number uint32) origin {
	if t.origins == nil {
		return origin{place: number, measured: noPrefix}
	}
	return t.origins[number]
}
