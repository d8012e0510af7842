package flow

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
	"github.com/isochrone/isochrone/topology"
)

// ground is a world as the engine reads it. It does not change while an engine runs, but for what an edit says of PoPs.
type ground struct {
	*world.World
	pops      []site // in the order of their names
	clusters  []site
	resolvers []resolver
	clients   []float64 // by network
	metro     []int32   // by network
	region    []uint8   // by network: continent + 1, or 0
	crowds    []crowd
	crowded   []uint64 // by metro: a bit for each crowd that it is among
}

// site is where a PoP or a cluster is.
type site struct {
	name     string
	at       topology.Location
	region   uint8
	capacity float64 // posts a second; 0 is without bound
}

// resolver is who asks our servers for clients.
type resolver struct {
	addr     netip.Addr
	ecs      bool  // it sends the client's subnet, and our answers go by it
	machines int   // behind its address, each with a cache; 1 or more
	network  int32 // that its own packets are routed like
}

// regions is how many regions of clients there are: the continents, and 0 for none.
var regions = len(topology.Continents) + 1

func regionOf(continent string) uint8 {
	return uint8(slices.Index(topology.Continents, continent) + 1)
}

func newGround(w *world.World, timeline []scenario.Event) (*ground, error) {
	g := &ground{World: w, clients: make([]float64, len(w.Networks)), metro: make([]int32, len(w.Networks)), region: make([]uint8, len(w.Networks))}
	for _, s := range w.PoPs {
		pop := w.Topology.PoPs[s.Name]
		g.pops = append(g.pops, site{s.Name, s.Location, regionAt(w, s.Location), float64(pop.CapacityRPS)})
	}
	for _, s := range w.Clusters {
		g.clusters = append(g.clusters, site{s.Name, s.Location, regionAt(w, s.Location), 0})
	}
	for n := range w.Networks {
		metro := w.Providers[w.Networks[n].Provider].Metro
		g.clients[n], g.metro[n] = float64(w.Networks[n].Nodes), int32(metro)
		g.region[n] = regionOf(w.Metros[metro].Continent)
	}
	g.addResolvers(w)
	return g, g.addCrowds(timeline)
}

// addResolvers takes the world's resolvers. What is not routed like a provider's networks is routed like those nearest to it.
func (g *ground) addResolvers(w *world.World) {
	ecs := w.Topology.Services[w.Service].Steering.ECS != topology.IgnoreECS
	of := make([]int32, len(w.Resolvers)) // by resolver: the first network that it asks for
	for i := range of {
		of[i] = -1
	}
	byMetro := map[uint16]int32{}
	for n := len(w.Networks) - 1; n >= 0; n-- {
		provider := w.Networks[n].Provider
		byMetro[w.Providers[provider].Metro] = int32(n)
		if r := w.Networks[n].Resolver; r >= 0 && !w.Resolvers[r].Public {
			of[r] = int32(n)
		}
	}
	metros := slices.Sorted(maps.Keys(byMetro))
	for i, r := range w.Resolvers {
		network := of[i]
		if network < 0 {
			least := 0.0
			for _, m := range metros {
				if km := kilometres(r.Location, w.Metros[m].Location); network < 0 || km < least {
					network, least = byMetro[m], km
				}
			}
		}
		g.resolvers = append(g.resolvers, resolver{r.Addr, r.ECS && ecs, max(r.Farm, 1), network})
	}
}

// addCrowds finds which metros each crowd comes from.
func (g *ground) addCrowds(timeline []scenario.Event) error {
	g.crowded = make([]uint64, len(g.Metros))
	for i, event := range timeline {
		if event.Crowd == nil {
			continue
		}
		place, err := scenario.PlaceOf(event.Crowd.Near)
		if err != nil || len(g.crowds) == 64 {
			return fmt.Errorf("timeline[%d].crowd: %w (of crowds, 64 are taken)", i, err)
		}
		to := rtt.Default().To(place.Location)
		for m := range g.Metros {
			if int64(to.Milliseconds(g.Metros[m].Location)*1e6) <= int64(event.Crowd.Within) {
				g.crowded[m] |= 1 << len(g.crowds)
			}
		}
		g.crowds = append(g.crowds, newCrowd(&event))
	}
	return nil
}

// regionAt returns the region of a site: that of the nearest metro of its country, or of all.
func regionAt(w *world.World, at topology.Location) uint8 {
	best, least := -1, 0.0
	for m := range w.Metros {
		km := kilometres(at, w.Metros[m].Location)
		if w.Metros[m].Country != at.Country {
			km += 1e5
		}
		if best < 0 || km < least {
			best, least = m, km
		}
	}
	if best < 0 {
		return 0
	}
	return regionOf(w.Metros[best].Continent)
}

// asker is an address or a subnet that our servers choose an answer for.
type asker struct {
	client   netip.Prefix
	resolver int32 // whose cache keeps the answer, or world.Own: then each client's own does
	network  int32 // that its own packets are routed like
	ecs      bool
}

// askersOf lists who asks, and of each network its asker.
func askersOf(g *ground) (askers []asker, of []int32) {
	shared := make([]int32, len(g.resolvers)) // by resolver: its asker + 1
	of = make([]int32, len(g.Networks))
	for n := range g.Networks {
		switch r := g.Networks[n].Resolver; {
		case r == world.Own:
			askers = append(askers, asker{netip.PrefixFrom(g.Asker(n), 32), world.Own, int32(n), false})
		case g.resolvers[r].ecs:
			askers = append(askers, asker{scenario.Prefix(n), r, int32(n), true})
		default:
			if shared[r] == 0 {
				askers = append(askers, asker{netip.PrefixFrom(g.resolvers[r].addr, 32), r, g.resolvers[r].network, false})
				shared[r] = int32(len(askers))
			}
			of[n] = shared[r] - 1
			continue
		}
		of[n] = int32(len(askers) - 1)
	}
	return askers, of
}
