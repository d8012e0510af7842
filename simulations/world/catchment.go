package world

import (
	"cmp"
	"slices"

	"github.com/isochrone/isochrone/topology"
)

// How routing errs. Of the clients that anycast serves badly, Calder et al. ("Analyzing the Performance of an Anycast CDN", IMC 2015) found
// about half to be 100 ms and more off.
const (
	farUS      = 25_000
	veryFarUS  = 100_000
	veryFar    = 0.45 // of those that are far
	nearBlur   = 0.15 // of the logarithm of what routing takes for distance, of providers whom it serves well
	farBlur    = 0.5  // of others
	noAnnounce = -1
)

// addCatchments orders, for each provider, the PoPs that announce by what routing prefers. Routing does not know round-trip times: it goes by
// what neighbours and policies make of distance. Providers with the part of the clients that the scenario calls far come to a PoP that is 25 ms
// or more farther than their best one; all others come to their best one or one that is less than that farther. When its PoP is not there, a
// provider comes to the next one in its order.
func (w *World) addCatchments() {
	var pops []int
	for p := range w.PoPs {
		if len(w.Topology.PoPs[w.PoPs[p].Name].VIPs) > 0 && w.Topology.PoPs[w.PoPs[p].Name].State != topology.Disabled {
			pops = append(pops, p)
		}
	}
	w.announcers = len(pops)
	if len(pops) == 0 {
		return
	}
	near, far := factorTable(nearBlur), factorTable(farBlur)
	w.order = make([]uint16, 0, len(w.Providers)*len(pops))
	seen := make([]uint32, len(w.PoPs))
	for g := range w.Providers {
		order := slices.Clone(pops)
		for _, p := range pops {
			seen[p] = times(w.providerWay(g, p), at(near, draw(w.Seed, forPerception, w.Providers[g].salt, w.popSalts[p])))
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(seen[a], seen[b]) })
		if best := w.providerBest(g, pops); w.providerWay(g, order[0]) >= w.providerWay(g, best)+farUS {
			order = first(order, best)
		}
		for _, p := range order {
			w.order = append(w.order, uint16(p))
		}
	}
	w.mislead(pops, far)
}

// first puts one of a list first.
func first(list []int, one int) []int {
	i := slices.Index(list, one)
	copy(list[1:i+1], list[:i])
	list[0] = one
	return list
}

func (w *World) providerWay(provider, pop int) uint32 {
	return w.ways[provider*len(w.PoPs)+pop] &^ exact
}

func (w *World) providerBest(provider int, pops []int) int {
	return slices.MinFunc(pops, func(a, b int) int { return cmp.Compare(w.providerWay(provider, a), w.providerWay(provider, b)) })
}

// mislead chooses the providers whom routing serves badly, in random order, until they have the wanted part of the clients, and where they come to.
func (w *World) mislead(pops []int, blur *[1 << tableBits]uint32) {
	order := indices(w.Providers)
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(draw(w.Seed, forFar, w.Providers[a].salt), draw(w.Seed, forFar, w.Providers[b].salt)), cmp.Compare(a, b))
	})
	left, all, very := int64(w.Spec.Network.Catchment.Far*float64(w.Nodes)), int64(0), int64(0)
	for _, g := range order {
		nodes, salt := int64(w.Providers[g].Nodes), draw(w.Seed, forFarPick, w.Providers[g].salt)
		if nodes == 0 || nodes > left {
			continue
		}
		best := w.providerWay(g, w.providerBest(g, pops))
		var near, far []int
		for _, p := range pops {
			switch off := int64(w.providerWay(g, p)) - int64(best); {
			case off >= veryFarUS:
				far = append(far, p)
			case off >= farUS:
				near = append(near, p)
			}
		}
		all += nodes
		if len(near) == 0 || len(far) > 0 && float64(very+nodes/2) < veryFar*float64(all) {
			near = far
			very += nodes
		}
		if len(near) == 0 {
			all, very = all-nodes, very-nodes
			continue
		}
		seen := func(p int) uint32 { return times(w.providerWay(g, p), at(blur, draw(salt, w.popSalts[p]))) }
		to := slices.MinFunc(near, func(a, b int) int { return cmp.Compare(seen(a), seen(b)) })
		row := w.order[g*w.announcers : (g+1)*w.announcers]
		i := slices.Index(row, uint16(to))
		copy(row[1:i+1], row[:i])
		row[0] = uint16(to)
		left -= nodes
	}
}

// Catchment returns the PoP to which routing carries a network's packets for the VIP, among the PoPs that announce it now; nil stands for all.
// While a route flip is on, it is the next one. It is -1 if none announces it. It allocates nothing.
func (w *World) Catchment(network int, announces []bool, flipped bool) int {
	g, found := int(w.Networks[network].Provider), noAnnounce
	for _, p := range w.order[g*w.announcers : (g+1)*w.announcers] {
		if announces != nil && !announces[p] {
			continue
		}
		if found = int(p); !flipped {
			return found
		}
		flipped = false
	}
	return found
}

// Flipped reports whether a network is among the part of the clients whose catchment an event moves. Networks of one /20 are moved together.
func (w *World) Flipped(network, event int, part float64) bool {
	return below(draw(w.Seed, forFlip, uint64(event), uint64(network/perAllotment)), part)
}
