package packet

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/world"
	"github.com/isochrone/isochrone/topology"
)

// ground is where everything of a world stands in the network: who has which address, and how far it is from one to another.
type ground struct {
	world   *world.World
	loss    float64
	reorder float64

	mu sync.RWMutex
	at map[netip.Addr]*stand
}

// stand is what is at an address.
type stand struct {
	kind      kind
	number    int    // of the PoP, the cluster, the resolver, or the network
	name      string // of a PoP or a cluster; of a DNS node that of the cluster it is beside
	continent string
	topology.Location
}

type kind int

// The kinds of what has an address. A DNS node stands beside a cluster, and has its number.
const (
	popKind kind = iota
	clusterKind
	dnsKind
	resolverKind
	clientKind
)

func newGround(w *world.World) *ground {
	return &ground{world: w, at: map[netip.Addr]*stand{}, loss: w.Spec.Network.Loss, reorder: w.Spec.Network.Reorder}
}

// put notes what is at an address.
func (g *ground) put(addr netip.Addr, s stand) {
	if s.continent == "" {
		s.continent = geo.ContinentOf(s.Country)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at[addr] = &s
}

// stand returns what is at an address, or nil.
func (g *ground) stand(addr netip.Addr) *stand {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.at[addr]
}

// way is a Config's Way. Half of the round trip is on the way there and half on the way back; what varies of it is on the way from whom is of the
// lower kind in this order: client, resolver, PoP, DNS node, cluster.
func (g *ground) way(from, to *Host) (Way, error) {
	a, b := g.stand(from.Addr), g.stand(to.Addr)
	if a == nil || b == nil {
		return Way{}, fmt.Errorf("the simulated world has nothing at %v or %v", from.Addr, to.Addr)
	}
	w := Way{Loss: g.loss, Reorder: g.reorder}
	us, vary := g.between(a, b)
	if a.kind < b.kind || a.kind == b.kind && a.number > b.number {
		us, _ = g.between(b, a)
	} else {
		w.Vary = vary
	}
	w.Delay = time.Duration(us) * time.Microsecond / 2
	if us == 0 {
		w.Loss, w.Reorder = 0, 0
	}
	return w, nil
}

// between returns the median round trip in µs of two, of which the first is of the higher kind, and by how much it varies.
func (g *ground) between(a, b *stand) (us uint32, vary func(uint64) time.Duration) {
	w := g.world
	path := uint64(a.kind)<<56 ^ uint64(b.kind)<<48 ^ uint64(a.number)<<24 ^ uint64(b.number)
	switch {
	case a.kind == clientKind && b.kind == popKind:
		return w.RTT(a.number, b.number), func(sample uint64) time.Duration {
			return time.Duration(w.Jitter(a.number, b.number, sample)) * time.Microsecond
		}
	case a.kind == clientKind && b.kind == resolverKind:
		us = w.ToResolver(a.number)
	case a.kind == clusterKind && b.kind == popKind, a.kind == dnsKind && b.kind == popKind:
		us = w.ToCluster(b.number, a.number)
	case a.kind == popKind && b.kind == popKind:
		us = w.Between(a.number, b.number)
	case a.number == b.number && (a.kind == clusterKind || a.kind == dnsKind) && (b.kind == clusterKind || b.kind == dnsKind):
		return 0, nil // beside each other
	default:
		us = uint32(rtt.Default().RTT(a.Location, b.Location) / time.Microsecond)
	}
	if us == 0 {
		return 0, nil
	}
	return us, func(sample uint64) time.Duration {
		return time.Duration(w.PathJitter(us, path, sample)) * time.Microsecond
	}
}
