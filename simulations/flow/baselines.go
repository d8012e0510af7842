package flow

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// randomly answers each asker some PoP that is well, the same as long as it is (rendezvous hashing).
type randomly struct{}

func (randomly) decide(e *engine, v *view) (time.Duration, bool) {
	const chunk = 1024
	salts := make([]uint64, len(e.pops))
	for p := range salts {
		salts[p] = mix(uint64(p+1) * 0x9e3779b97f4a7c15)
	}
	e.each((len(e.askers)+chunk-1)/chunk, func(i int) {
		for a := i * chunk; a < min((i+1)*chunk, len(e.askers)); a++ {
			asker := &e.askers[a]
			region := e.region[asker.network]
			own := mix(e.seed ^ mix(uint64(number4(asker.client.Addr()))))
			best, most, any := 0, uint64(0), false
			for p, salt := range salts {
				if h := mix(own ^ salt); (!any || h > most) && e.well(p, region) {
					best, most, any = p, h, true
				}
			}
			v.answers[a] = answer{n: 1}
			v.answers[a].choices[0] = uint16(best)
		}
	})
	echo(e, v)
	return 0, false
}

// kilometres is the great-circle distance.
func kilometres(a, b topology.Location) float64 {
	const radius, degree = 6371.0, math.Pi / 180
	x := math.Sin((a.LatDeg - b.LatDeg) * degree / 2)
	y := math.Sin((a.LonDeg - b.LonDeg) * degree / 2)
	return 2 * radius * math.Asin(math.Sqrt(min(1, float64(x*x)+float64(float64(math.Cos(a.LatDeg*degree)*math.Cos(b.LatDeg*degree))*float64(y*y)))))
}

// nearestOf orders PoPs by their distance from a place, in whole kilometres.
func nearestOf(pops []site, at topology.Location, before func(p int) bool) []uint16 {
	order := make([]uint16, len(pops))
	far := make([]int, len(pops))
	for p := range pops {
		order[p], far[p] = uint16(p), int(kilometres(at, pops[p].at))
		if before != nil && before(p) {
			far[p] -= 1e6
		}
	}
	slices.SortFunc(order, func(a, b uint16) int { return cmp.Or(cmp.Compare(far[a], far[b]), cmp.Compare(a, b)) })
	return order
}

// byDistance answers the nearest PoPs by great circle, from where the geo database has the asker.
func byDistance(e *engine, table *router.Table) *ranked {
	orders, at := map[uint32][]uint16{}, make([][]uint16, len(e.askers))
	for a := range e.askers {
		number, place := table.Location(e.askers[a].client.Addr())
		if orders[number] == nil {
			from := topology.Location{}
			if place != nil {
				from = place.Location
			}
			orders[number] = nearestOf(e.pops, from, nil)
		}
		at[a] = orders[number]
	}
	return &ranked{e.answers, func(_ *engine, asker int) []uint16 { return at[asker] }}
}

// byCountry answers by a map from countries to PoPs: those in the country, then those nearest to the middle of its clients.
func byCountry(e *engine, table *router.Table) *ranked {
	type middle struct{ lat, east, north, weight float64 } // the longitude as a point on a circle
	middles := map[string]*middle{}
	for n, weight := range e.clients {
		at := e.Metros[e.metro[n]]
		m := middles[at.Country]
		if m == nil {
			m = &middle{}
			middles[at.Country] = m
		}
		m.lat += float64(weight * at.LatDeg)
		m.east += float64(weight * cosTurns(at.LonDeg/360))
		m.north += float64(weight * cosTurns(at.LonDeg/360-0.25))
		m.weight += weight
	}
	orders, at := map[string][]uint16{}, make([][]uint16, len(e.askers))
	for a := range e.askers {
		country := ""
		if _, place := table.Location(e.askers[a].client.Addr()); place != nil {
			country = place.Country
		}
		if orders[country] == nil {
			from := topology.Location{Country: country}
			if m := middles[country]; m != nil && m.weight > 0 {
				from.LatDeg, from.LonDeg = m.lat/m.weight, math.Atan2(m.north, m.east)*180/math.Pi
			}
			orders[country] = nearestOf(e.pops, from, func(p int) bool { return e.pops[p].at.Country == country })
		}
		at[a] = orders[country]
	}
	return &ranked{e.answers, func(_ *engine, asker int) []uint16 { return at[asker] }}
}

// carriedAll answers everybody one VIP that all PoPs announce.
type carriedAll struct{}

func (carriedAll) decide(e *engine, v *view) (time.Duration, bool) {
	for a := range v.answers {
		v.answers[a] = answer{n: 1}
		v.answers[a].choices[0] = uint16(len(e.pops))
	}
	return 0, false
}

// fastRoute is distributed shedding in layers (Flavel et al., "FastRoute", NSDI 2015, sections 3 and 4): all PoPs announce the first VIP, the third of
// them that can do most the second, and the tenth that can do most the third. A PoP that is nearly full has its DNS server, which only clients near it
// ask, answer a part of them the VIP of the next layer; no PoP knows of others.
type fastRoute struct {
	layers []layering
}

func newFastRoute(e *engine) *fastRoute {
	order := make([]int, len(e.pops))
	for p := range order {
		order[p] = p
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(e.pops[b].capacity, e.pops[a].capacity) })
	layer := func(n int) []bool {
		in := make([]bool, len(e.pops))
		for _, p := range order[:max(n, 1)] {
			in[p] = true
		}
		return in
	}
	e.vipsOf(layer(len(order)), layer((len(order)+2)/3), layer((len(order)+9)/10))
	return &fastRoute{make([]layering, len(e.pops))}
}

// When a PoP sheds more, and when less; and by how much of what it sheds already.
const (
	shedsAbove = 0.9
	keepsBelow = 0.8
	shedEvery  = 30 * time.Second
)

func (f *fastRoute) decide(e *engine, v *view) (time.Duration, bool) {
	next := slices.Clone(f.layers)
	for p := range f.layers {
		capacity := e.capacity(p)
		if capacity <= 0 {
			continue
		}
		part, l := e.load[p]/capacity, &next[p]
		second := e.vips[1][p]
		switch {
		case part > shedsAbove:
			more := 1 - shedsAbove/part
			l.second += float64((1 - l.second) * more)
			if second {
				l.third += float64((1 - l.third) * more)
			}
		case part < keepsBelow:
			l.second, l.third = max(0, l.second-0.02), max(0, l.third-0.02)
		}
	}
	f.layers = next
	v.layers = next
	carriedAll{}.decide(e, v)
	return e.now + shedEvery, true
}
