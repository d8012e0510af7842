package world

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// How clients are put into networks.
const (
	someNetworks = 50_000 // up to so many clients have a network each
	perNetwork   = 40     // above, so many share one
	perAllotment = 16     // networks of one provider that stand side by side: a /20
	perKind      = 4      // providers of a metro with clients in data centres, and with others
)

// sizes are those of a metro's providers, in proportion: the second is half as large as the first, and so on (Zipf).
var sizes = []uint64{12, 6, 4, 3}

// addProviders makes the providers of all metros: some whose clients are in data centres, some who have clients at home. A provider in
// data centres is the same operator in all metros, one with homes in all of its country.
func (w *World) addProviders() {
	hosted, given := w.hostedPart()
	for i := range w.Metros {
		m := &w.Metros[i]
		part := m.Hosted
		if given {
			part = hosted
		}
		for n := range 2 * perKind {
			p := Provider{Metro: uint16(i), Hosted: n < perKind}
			if p.Hosted && part == 0 || !p.Hosted && part == 1 {
				continue
			}
			if p.ASN = 65_550 + uint32(n); !p.Hosted { // above those for documentation (RFC 5398)
				p.ASN = 70_000 + 10*(uint32(m.Country[0])<<8|uint32(m.Country[1])) + uint32(n)
			}
			p.salt = draw(w.Seed, uint64(p.ASN), saltOf(placeKey(m.Location)))
			w.Providers = append(w.Providers, p)
		}
	}
}

// hostedPart returns the part of clients in data centres, if the scenario gives one.
func (w *World) hostedPart() (part float64, given bool) {
	sum := 0.0
	for _, a := range w.Spec.Clients.Access {
		if sum += a.Part; a.Line == Datacentre.String() {
			part += a.Part
		}
	}
	return part / max(sum, 1e-9), len(w.Spec.Clients.Access) > 0
}

// allotment is a run of networks of one provider.
type allotment struct {
	provider  uint32
	nodes     []uint64 // of each network
	partial   bool
	orderedBy uint64
}

// addNetworks divides the clients of each provider into networks. A provider's networks stand side by side in runs of a /20; the runs of
// all are mixed, as address space is.
func (w *World) addNetworks() {
	networks := uint64(max(min(w.Nodes, someNetworks), w.Nodes/perNetwork))
	var runs []allotment
	for first := 0; first < len(w.Providers); {
		end := first
		for end < len(w.Providers) && w.Providers[end].Metro == w.Providers[first].Metro {
			end++
		}
		w.divideMetro(w.Providers[first:end])
		for i := first; i < end; i++ {
			if nodes := uint64(w.Providers[i].Nodes); nodes > 0 {
				of := min(max(1, (nodes*networks+uint64(w.Nodes)/2)/uint64(w.Nodes)), nodes)
				runs = w.allot(runs, uint32(i), divide(nodes, slices.Repeat([]uint64{1}, int(of))))
			}
		}
		first = end
	}
	slices.SortFunc(runs, func(a, b allotment) int {
		if a.partial != b.partial {
			return map[bool]int{true: 1, false: -1}[a.partial] // whole ones first, so that they begin at a /20
		}
		return cmp.Or(cmp.Compare(a.orderedBy, b.orderedBy), cmp.Compare(a.provider, b.provider))
	})
	for _, run := range runs {
		for _, nodes := range run.nodes {
			w.Networks = append(w.Networks, Network{Nodes: uint32(nodes), Provider: run.provider, Resolver: Own})
		}
	}
	w.addLines()
}

// divideMetro divides a metro's clients among its providers.
func (w *World) divideMetro(providers []Provider) {
	m := &w.Metros[providers[0].Metro]
	hosted, given := w.hostedPart()
	if !given {
		hosted = m.Hosted
	}
	kinds := divide(uint64(m.Nodes), []uint64{uint64(hosted * unit), unit - uint64(hosted*unit)})
	for _, kind := range []bool{true, false} {
		of := slices.DeleteFunc(slices.Clone(indices(providers)), func(i int) bool { return providers[i].Hosted != kind })
		if len(of) == 0 {
			continue
		}
		nodes := kinds[0]
		if !kind {
			nodes = kinds[1]
		}
		for i, n := range divide(nodes, sizes) {
			providers[of[i]].Nodes = int(n)
		}
	}
}

func indices[T any](list []T) []int {
	all := make([]int, len(list))
	for i := range all {
		all[i] = i
	}
	return all
}

// allot cuts a provider's networks into runs.
func (w *World) allot(runs []allotment, provider uint32, nodes []uint64) []allotment {
	for i := 0; i < len(nodes); i += perAllotment {
		part := nodes[i:min(i+perAllotment, len(nodes))]
		runs = append(runs, allotment{provider, part, len(part) < perAllotment, draw(w.Providers[provider].salt, forOrder, uint64(i))})
	}
	return runs
}

// addResolvers says who asks for each network's clients: its provider's resolver in the metro, a public one, or they by themselves.
func (w *World) addResolvers() error {
	spec := &w.Spec.Clients.Resolvers
	for i, p := range w.Providers {
		w.Resolvers = append(w.Resolvers, Resolver{
			Addr: netip.AddrFrom4([4]byte{12, byte(i >> 8), byte(i), 53}), Location: w.Metros[p.Metro].Location, Farm: 1, provider: uint32(i), site: -1,
		})
	}
	at := spec.At
	if len(at) == 0 {
		at = scenario.PublicSites
	}
	var sites []topology.Location
	for i, text := range at {
		place, err := scenario.PlaceOf(text)
		if err != nil {
			return invalid("world.clients.resolvers.at[%d]: %v", i, err)
		}
		sites = append(sites, place.Location)
	}
	w.siteCount = len(sites)
	for kind := range 2 { // of those that send no subnet, and of those that do
		for i, site := range sites {
			w.Resolvers = append(w.Resolvers, Resolver{
				Addr: netip.AddrFrom4([4]byte{9, byte(kind), byte(i), 53}), Location: site, Public: true, ECS: kind == 1, Farm: max(1, spec.Farm), site: i,
			})
		}
	}
	w.toSites = w.predicted(sites)
	nearest := w.nearestSites(sites)
	for i := range w.Networks {
		n := &w.Networks[i]
		u, p := draw(w.Seed, forResolver, uint64(i)), w.Providers[n.Provider]
		switch public := len(w.Providers) + nearest[p.Metro]; {
		case below(u, spec.Own):
			n.Resolver = Own
		case below(u, spec.Own+spec.Public):
			n.Resolver = int32(public)
		case below(u, spec.Own+spec.Public+spec.ECS):
			n.Resolver = int32(public + len(sites))
		default:
			n.Resolver = int32(n.Provider)
		}
	}
	return nil
}

// nearestSites returns the nearest site for each metro.
func (w *World) nearestSites(sites []topology.Location) []int {
	nearest := make([]int, len(w.Metros))
	for m, us := range w.toSites {
		for i := range sites {
			if us[i] < us[nearest[m]] {
				nearest[m] = i
			}
		}
	}
	return nearest
}

// ToResolver returns the round-trip time between a network and its resolver in µs, with the access line.
func (w *World) ToResolver(network int) uint32 {
	n := &w.Networks[network]
	if n.Resolver == Own {
		return 0
	}
	r := &w.Resolvers[n.Resolver]
	if !r.Public {
		return n.AccessUS + 1000 // in the provider's own network
	}
	return n.AccessUS + w.toSites[w.Providers[n.Provider].Metro][r.site]
}

// FromResolver returns the round-trip time between a resolver and a PoP in µs.
func (w *World) FromResolver(resolver, pop int) uint32 {
	r := &w.Resolvers[resolver]
	if r.Public {
		return w.sites[r.site*len(w.PoPs)+pop]
	}
	return w.ways[int(r.provider)*len(w.PoPs)+pop] &^ exact
}
