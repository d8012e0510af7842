package router

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Choice is what can be answered: a PoP by its unicast addresses. It is an index that means something within one Table
// only; what outlives a table is stored by name.
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

// ErrTooLarge is returned for a topology with more PoPs than a Choice can number.
var ErrTooLarge = errors.New("topology too large")

// Table is topology, geo database and RTT model compiled: client prefix → block → class of ranked choices, with the scope
// of each. It is immutable and safe for concurrent use. It is large and is replaced when the topology, the database or
// the map changes; what changes more often is the State.
type Table struct {
	snapshot *topology.Snapshot
	model    *rtt.Model
	pops     []tablePoP // by Choice, in order of their names
	services []tableService
	byName   map[string]ServiceID
	places   []*Place // by place number; the first stands for "unknown"
	v4, v6   *space
}

type tablePoP struct {
	name string
	*topology.PoP
}

type tableService struct {
	name string
	*topology.Service
	candidates []Choice           // the PoPs that offer the service, disabled ones included
	rankings   [families]*ranking // nil where no candidate has an address of the family
}

// Compile makes a table. The snapshot and the places that geo yields become part of it and must not change afterwards.
func Compile(snap *topology.Snapshot, geo Geo, model *rtt.Model) (*Table, error) {
	t := &Table{snapshot: snap, model: model, byName: map[string]ServiceID{}, places: []*Place{nil}}
	if n := len(snap.Topology.PoPs); n > 1<<16-1 {
		return nil, fmt.Errorf("%w: %d PoPs, at most 65535 can be compiled", ErrTooLarge, n)
	}
	choices := map[string]Choice{}
	for _, name := range slices.Sorted(maps.Keys(snap.Topology.PoPs)) {
		choices[name] = Choice(len(t.pops))
		t.pops = append(t.pops, tablePoP{name, snap.Topology.PoPs[name]})
	}
	if err := t.cover(geo); err != nil {
		return nil, err
	}
	ranked := map[string]*ranking{} // what services with one policy and one set of candidates share
	costs := newCosts(model, t.pops, t.places)
	for _, name := range slices.Sorted(maps.Keys(snap.Topology.Services)) {
		service := snap.Topology.Services[name]
		t.byName[name] = ServiceID(len(t.services))
		t.services = append(t.services, tableService{name: name, Service: service})
		compiled := &t.services[len(t.services)-1]
		compiled.candidates = candidatesOf(service, choices)
		failover := make([]Choice, 0, len(service.Steering.Failover))
		for _, pop := range service.Steering.Failover {
			if c, ok := choices[pop]; ok {
				failover = append(failover, c)
			}
		}
		for family := range families {
			candidates := slices.DeleteFunc(slices.Clone(compiled.candidates), func(c Choice) bool {
				return !t.pops[c].has(family)
			})
			if len(candidates) == 0 {
				continue
			}
			policy := fmt.Sprint(candidates, failover)
			if ranked[policy] == nil {
				ranked[policy] = rank(t, costs, candidates, failover)
			}
			compiled.rankings[family] = ranked[policy]
		}
	}
	return t, nil
}

// cover makes both spaces from the networks of the database.
func (t *Table) cover(geo Geo) error {
	v4, v6 := spaceBuilder{v4: true}, spaceBuilder{}
	numbers := map[*Place]uint32{}
	for network, place := range geo.Networks() {
		number, known := numbers[place]
		if !known {
			number = uint32(len(t.places))
			numbers[place] = number
			t.places = append(t.places, place)
		}
		builder := &v6
		if network.Addr().Is4() {
			builder = &v4
		}
		if !builder.add(network, number) {
			return fmt.Errorf("geo database: network %v is out of order or overlaps the one before it", network)
		}
	}
	t.v4, t.v6 = v4.finish(), v6.finish()
	return nil
}

func candidatesOf(service *topology.Service, choices map[string]Choice) []Choice {
	if len(service.PoPs) == 0 {
		return slices.Sorted(maps.Values(choices))
	}
	var candidates []Choice
	for _, pop := range service.PoPs {
		if c, ok := choices[pop]; ok {
			candidates = append(candidates, c)
		}
	}
	slices.Sort(candidates)
	return slices.Compact(candidates)
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

// Service returns the id of a service by its host name, in lower case or not, without a trailing dot.
func (t *Table) Service(name string) (ServiceID, bool) {
	id, ok := t.byName[name]
	if !ok {
		id, ok = t.byName[strings.ToLower(name)]
	}
	return id, ok
}

// ServiceByID returns the name of a service and what the topology says of it.
func (t *Table) ServiceByID(id ServiceID) (string, *topology.Service) {
	return t.services[id].name, t.services[id].Service
}

// PoP returns the PoP that a choice stands for.
func (t *Table) PoP(c Choice) (string, *topology.PoP) { return t.pops[c].name, t.pops[c].PoP }

// PoPs returns how many choices the table knows; they are numbered from 0.
func (t *Table) PoPs() int { return len(t.pops) }

// Candidates returns the choices that offer a service, whatever their state. The slice must not be changed.
func (t *Table) Candidates(id ServiceID) []Choice { return t.services[id].candidates }

// Snapshot returns what the table was compiled from.
func (t *Table) Snapshot() *topology.Snapshot { return t.snapshot }

// Blocks returns how many blocks the address spaces of IPv4 and IPv6 are divided into.
func (t *Table) Blocks() (v4, v6 int) { return len(t.v4.starts), len(t.v6.starts) }
