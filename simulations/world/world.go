package world

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// World is a world that was built. Slices must not be changed.
type World struct {
	Spec      scenario.World
	Seed      uint64
	Topology  *topology.Topology // valid, with one service that counts
	Service   string             // that one's name
	PoPs      []Site             // in the order of their names, which is that of the router's choices
	Clusters  []Site             // in the order of their names
	Metros    []Metro
	Providers []Provider
	Networks  []Network // by number; see scenario.Prefix
	Resolvers []Resolver
	Atlas     *router.Atlas // what the geo database knows
	Nodes     int           // of all networks

	popNumbers map[string]int
	placeSalts []uint64 // of each PoP, of its place
	popSalts   []uint64
	sites      []uint32 // µs, by place of public resolvers and PoP
	siteCount  int
	toSites    [][]uint32 // µs, by metro and place of public resolvers
	ways       []uint32   // µs, by provider and PoP, with exact in the highest bit
	backbone   []uint32   // µs, by PoP and cluster
	between    []uint32   // µs, by PoP and PoP
	network    *[1 << tableBits]uint32
	order      []uint16 // by provider: PoPs that announce, in the order in which routing prefers them
	announcers int
}

// Site is a PoP or a cluster.
type Site struct {
	Name string
	topology.Location
}

// Metro is a place of clients.
type Metro struct {
	topology.Location
	IATA      string  // of a built-in place, or empty
	Hosted    float64 // part of its clients in data centres
	Continent string
	Nodes     int
	share     uint64 // of the clients, in 1/unit
}

// Provider is one operator's networks in one metro.
type Provider struct {
	Metro  uint16
	ASN    uint32
	Hosted bool // its clients are in data centres
	Nodes  int
	salt   uint64
}

// Network is a /24 of clients.
type Network struct {
	Nodes    uint32
	Provider uint32
	Resolver int32  // number in World.Resolvers, or Own
	AccessUS uint32 // round trip over the access line, in µs
	Line     Line
}

// Own, as the number of a network's resolver, says that its clients resolve names by themselves.
const Own = -1

// Resolver is who asks for clients.
type Resolver struct {
	Addr netip.Addr
	topology.Location
	Public   bool
	ECS      bool // it sends the client's subnet
	Farm     int  // machines behind its address, each with a cache of its own
	provider uint32
	site     int // of public ones
}

// Build makes a world. The error is a *scenario.InvalidError.
func Build(spec scenario.World, seed uint64) (*World, error) {
	w := &World{Spec: spec, Seed: mix(seed + golden), popNumbers: map[string]int{}}
	if err := w.addMetros(); err != nil {
		return nil, err
	}
	if err := w.addTopology(); err != nil {
		return nil, err
	}
	t := w.Topology
	for i, name := range slices.Sorted(maps.Keys(t.PoPs)) {
		w.PoPs = append(w.PoPs, Site{name, t.PoPs[name].Location})
		w.popNumbers[name] = i
		w.popSalts = append(w.popSalts, saltOf(name))
		w.placeSalts = append(w.placeSalts, saltOf(placeKey(t.PoPs[name].Location)))
	}
	for _, name := range slices.Sorted(maps.Keys(t.Clusters)) {
		w.Clusters = append(w.Clusters, Site{name, t.Clusters[name].Location})
	}
	w.addProviders()
	w.addNetworks()
	if err := w.addResolvers(); err != nil {
		return nil, err
	}
	w.addTruth()
	w.addCatchments()
	atlas, err := router.NewAtlas(geo{w})
	if err != nil {
		return nil, fmt.Errorf("build the world's atlas: %w", err)
	}
	w.Atlas = atlas
	return w, nil
}

// placeKey is the same for sites of one place.
func placeKey(l topology.Location) string { return fmt.Sprintf("%.1f,%.1f", l.LatDeg, l.LonDeg) }

// PoP returns the number of a PoP, and false for a name that is none.
func (w *World) PoP(name string) (int, bool) {
	n, ok := w.popNumbers[name]
	return n, ok
}

// Metro returns where a network is.
func (w *World) Metro(network int) *Metro {
	return &w.Metros[w.Providers[w.Networks[network].Provider].Metro]
}

// Asker returns the address from which the network's questions come.
func (w *World) Asker(network int) netip.Addr {
	if r := w.Networks[network].Resolver; r != Own {
		return w.Resolvers[r].Addr
	}
	b := scenario.Prefix(network).Addr().As4()
	return netip.AddrFrom4([4]byte{b[0], b[1], b[2], 53})
}

// Check returns what of a timeline names nothing that is in the world.
func (w *World) Check(timeline []scenario.Event) []topology.Fault {
	var faults []topology.Fault
	for i := range timeline {
		e := &timeline[i]
		named := func(field, name string, other bool) {
			if _, ok := w.popNumbers[name]; !ok && !other {
				faults = append(faults, topology.Fault{Path: fmt.Sprintf("timeline[%d].%s", i, field), Message: fmt.Sprintf("there is no PoP %q", name)})
			}
		}
		for _, name := range e.Lose {
			named("lose", name, name == scenario.Largest)
		}
		for _, name := range e.Drain {
			named("drain", name, name == scenario.Largest)
		}
		for _, name := range e.Partition {
			named("partition", name, name == scenario.Largest || slices.Contains(topology.Continents, name) ||
				slices.ContainsFunc(w.Clusters, func(c Site) bool { return c.Name == name }))
		}
		if e.BrownOut != nil {
			named("brown_out.pop", e.BrownOut.PoP, e.BrownOut.PoP == scenario.Largest)
		}
		if e.Flap != nil {
			named("flap.pop", e.Flap.PoP, e.Flap.PoP == scenario.Largest)
		}
	}
	return faults
}

// divide divides a whole number by shares of unit: what is left over goes to the largest fractions, of equal ones to the first.
func divide(whole uint64, shares []uint64) []uint64 {
	sum := uint64(0)
	for _, s := range shares {
		sum += s
	}
	parts, order, left := make([]uint64, len(shares)), make([]int, len(shares)), whole
	for i, s := range shares {
		parts[i], order[i] = whole*s/sum, i
		left -= parts[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(whole*shares[b]%sum, whole*shares[a]%sum) })
	for _, i := range order[:left] {
		parts[i]++
	}
	return parts
}

// unit is what shares of clients are counted in.
const unit = 1_000_000_000

// sharesOf returns weights as whole numbers of unit in all, about.
func sharesOf(weights []float64) []uint64 {
	sum := 0.0
	for _, v := range weights {
		sum += v
	}
	shares := make([]uint64, len(weights))
	for i, v := range weights {
		shares[i] = uint64(v / sum * unit)
	}
	return shares
}
