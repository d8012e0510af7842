package world

import (
	"math"
	"strings"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// exact, in World.ways, marks a way that no factor of a network applies to.
const exact = 1 << 31

// The distribution of detours, in µs.
const (
	leastDetour = 10_000
	meanDetour  = 30_000 // above the least
	mostDetour  = 200_000
)

// The parts of the variance of a factor's logarithm.
const (
	ofProvider = 0.75
	ofNetwork  = 1 - ofProvider
)

// addTruth makes the tables of round-trip times.
func (w *World) addTruth() {
	spread, detours := value(w.Spec.Network.Spread, 0.11), value(w.Spec.Network.Detours, 0.03)
	w.network = factorTable(spread * math.Sqrt(ofNetwork))
	shared, whole := factorTable(spread*math.Sqrt(ofProvider)), factorTable(spread)
	links := w.newLinks()
	var pops []topology.Location
	for _, p := range w.PoPs {
		pops = append(pops, p.Location)
	}
	us := w.predicted(pops)
	w.ways = make([]uint32, len(w.Providers)*len(w.PoPs))
	for m := range w.Metros {
		names := namesOf(w.Metros[m].IATA, w.Metros[m].City)
		for p := range w.PoPs {
			known, isExact, measured := links.between(names, links.pops[p])
			for g := range w.Providers {
				if int(w.Providers[g].Metro) != m {
					continue
				}
				way := &w.ways[g*len(w.PoPs)+p]
				if isExact {
					*way = known | exact
					continue
				}
				salt := draw(w.Seed, w.Providers[g].salt, w.placeSalts[p])
				*way = us[m][p]
				if measured {
					*way = known
				}
				*way = times(*way, at(shared, draw(salt, forFactor)))
				if !measured && below(draw(salt, forDetour), detours) {
					*way += min(mostDetour, leastDetour+uint32(meanDetour*at(exponential(), draw(salt, forDetourSize))>>factorBits))
				}
			}
		}
	}
	w.addSites(pops)
	w.addBackbone(pops, links, whole)
}

func value(v *float64, otherwise float64) float64 {
	if v == nil {
		return otherwise
	}
	return *v
}

// addSites predicts the ways from public resolvers.
func (w *World) addSites(pops []topology.Location) {
	targets := rtt.Default().Targets(pops)
	w.sites = make([]uint32, w.siteCount*len(pops))
	for i := range w.siteCount {
		targets.Microseconds(w.Resolvers[len(w.Providers)+i].Location, w.sites[i*len(pops):(i+1)*len(pops)])
	}
}

// addBackbone makes the ways among PoPs and to clusters.
func (w *World) addBackbone(pops []topology.Location, links *links, factors *[1 << tableBits]uint32) {
	ends, names, salts := pops, links.pops, w.popSalts
	for _, c := range w.Clusters {
		ends = append(ends, c.Location)
		names = append(names, namesOf(c.Name, iataAt(c.Location), c.City))
		salts = append(salts, saltOf(c.Name))
	}
	targets, row := rtt.Default().Targets(ends), make([]uint32, len(ends))
	for p := range pops {
		targets.Microseconds(pops[p], row)
		for e := range ends {
			known, isExact, measured := links.between(names[p], names[e])
			if measured || isExact {
				row[e] = known
			}
			if !isExact { // the same in both directions
				row[e] = times(row[e], at(factors, draw(w.Seed, forBackbone, min(salts[p], salts[e]), max(salts[p], salts[e]))))
			}
		}
		w.between = append(w.between, row[:len(pops)]...)
		w.backbone = append(w.backbone, row[len(pops):]...)
	}
}

// RTT returns the true median round-trip time between a network's clients and a PoP, in µs, with the access line. It allocates nothing.
func (w *World) RTT(network, pop int) uint32 {
	n := &w.Networks[network]
	return w.way(network, int(n.Provider), pop) + n.AccessUS
}

func (w *World) way(network, provider, pop int) uint32 {
	way := w.ways[provider*len(w.PoPs)+pop]
	if way&exact != 0 {
		return way &^ exact
	}
	return times(way, at(w.network, mix(w.Seed+uint64(network)*golden^w.popSalts[pop])))
}

// RTTs writes the true round-trip times between a network's clients and all PoPs, in µs, into a slice of their number.
func (w *World) RTTs(network int, into []uint32) {
	n := &w.Networks[network]
	for p := range into {
		into[p] = w.way(network, int(n.Provider), p) + n.AccessUS
	}
}

// Best returns the PoP with the least true round-trip time, the first of equal ones, among those that are up; nil stands for all. It is -1 if
// none is.
func (w *World) Best(network int, up []bool) (pop int, us uint32) {
	pop, us = -1, math.MaxUint32
	n := &w.Networks[network]
	for p := range w.PoPs {
		if up != nil && !up[p] {
			continue
		}
		if v := w.way(network, int(n.Provider), p) + n.AccessUS; v < us {
			pop, us = p, v
		}
	}
	return pop, us
}

// ToCluster returns the true median round-trip time between a PoP and a cluster in µs.
func (w *World) ToCluster(pop, cluster int) uint32 { return w.backbone[pop*len(w.Clusters)+cluster] }

// Between returns the true median round-trip time between two PoPs in µs. It is symmetric.
func (w *World) Between(a, b int) uint32 { return w.between[a*len(w.PoPs)+b] }

// NearestCluster returns the cluster with the least round-trip time from a PoP among those that are up; nil stands for all. It is -1 if none is.
func (w *World) NearestCluster(pop int, up []bool) (cluster int, us uint32) {
	cluster, us = -1, math.MaxUint32
	for c := range w.Clusters {
		if v := w.ToCluster(pop, c); (up == nil || up[c]) && v < us {
			cluster, us = c, v
		}
	}
	return cluster, us
}

// links are what a scenario knows of single links.
type links struct {
	world *World
	fixed map[[2]string]uint32
	pops  [][]string // names by which each PoP is known
}

func (w *World) newLinks() *links {
	l := &links{world: w, fixed: map[[2]string]uint32{}}
	for link, d := range w.Spec.Network.RTT {
		a, b, _ := strings.Cut(strings.ToLower(link), ",")
		a, b = strings.TrimSpace(a), strings.TrimSpace(b)
		l.fixed[[2]string{min(a, b), max(a, b)}] = uint32(int64(d) / 1000)
	}
	for _, p := range w.PoPs {
		l.pops = append(l.pops, namesOf(p.Name, iataAt(p.Location), p.City))
	}
	return l
}

// namesOf returns the names by which a site may be known, in lower case, without empty ones.
func namesOf(names ...string) []string {
	var known []string
	for _, name := range names {
		if name != "" {
			known = append(known, strings.ToLower(name))
		}
	}
	return known
}

// between returns what is known of the way between two sites in µs: exactly, or measured by the operator.
func (l *links) between(a, b []string) (us uint32, isExact, measured bool) {
	if len(l.fixed) == 0 && l.world.Spec.Network.Measured.Len() == 0 {
		return 0, false, false
	}
	for _, x := range a {
		for _, y := range b {
			if us, ok := l.fixed[[2]string{min(x, y), max(x, y)}]; ok {
				return us, true, false
			}
		}
	}
	for _, x := range a {
		for _, y := range b {
			if us, ok := l.world.Spec.Network.Measured.Microseconds(x, y); ok {
				return us, false, true
			}
		}
	}
	return 0, false, false
}
