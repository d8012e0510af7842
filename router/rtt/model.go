package rtt

import (
	"math"
	"sync"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// Model is the model with its tables. Use Default.
type Model struct {
	params
	hubs     []hub
	zones    map[string]zoneID // by country
	byZone   [][]int           // the hubs of each zone
	links    []link
	between  [][]float64 // the cheapest way between hubs in ms, without the constant
	landCost float64     // of a kilometre of land, in ms of round trip
}

// hub is a landing point of cables, or a waypoint at sea.
type hub struct {
	name string
	zone zoneID
	at   point
}

// zoneID is a mass of land whose networks reach each other over land, as a rule.
type zoneID int

// atSea is the zone of waypoints, which no place belongs to.
const atSea zoneID = -1

// Default returns the model of the embedded tables. It is made once.
var Default = sync.OnceValue(func() *Model {
	m, err := parseTables(embeddedTables)
	if err != nil {
		panic("rtt: embedded tables: " + err.Error())
	}
	return m
})

// RTT returns the predicted round-trip time between two places.
func (m *Model) RTT(a, b topology.Location) time.Duration {
	return time.Duration(m.Milliseconds(a, b) * float64(time.Millisecond))
}

// Milliseconds returns the predicted round-trip time between two places in milliseconds. It is symmetric.
func (m *Model) Milliseconds(a, b topology.Location) float64 {
	from, to := m.From(a), m.To(b)
	return to.From(&from)
}

// Source is a place from which round-trip times to many targets are asked.
type Source struct {
	at   point
	zone zoneID
	land []float64 // ms over land to each hub of the zone, in the order of Model.byZone
}

// Target is a place to which round-trip times from many sources are asked.
type Target struct {
	model *Model
	at    point
	zone  zoneID
	via   []float64 // ms from each hub to the target, without the constant
}

// From prepares a place as a source.
func (m *Model) From(a topology.Location) Source {
	s := Source{at: pointOf(a.LatDeg, a.LonDeg)}
	s.zone = m.zoneOf(a.Country, s.at)
	hubs := m.byZone[s.zone]
	s.land = make([]float64, len(hubs))
	for i, h := range hubs {
		s.land[i] = m.landCost * m.kilometres(s.at, m.hubs[h].at)
	}
	return s
}

// To prepares a place as a target.
func (m *Model) To(b topology.Location) *Target {
	end := m.From(b)
	t := &Target{model: m, at: end.at, zone: end.zone, via: make([]float64, len(m.hubs))}
	for from := range m.hubs {
		t.via[from] = math.Inf(1)
		for i, last := range m.byZone[end.zone] {
			t.via[from] = min(t.via[from], m.between[from][last]+end.land[i])
		}
	}
	return t
}

// Milliseconds returns the predicted round-trip time from a place in milliseconds.
func (t *Target) Milliseconds(a topology.Location) float64 {
	from := t.model.From(a)
	return t.From(&from)
}

// From returns the predicted round-trip time from a prepared place in milliseconds. It allocates nothing.
func (t *Target) From(s *Source) float64 {
	m, km, way := t.model, t.model.kilometres(s.at, t.at), math.Inf(1)
	if s.zone == t.zone {
		way = m.landCost * km
	}
	for i, h := range m.byZone[s.zone] {
		way = min(way, s.land[i]+t.via[h])
	}
	return m.constant(km) + way
}

// constant is what every pair costs besides its way: less for places in one metro.
func (m *Model) constant(km float64) float64 {
	if km >= m.metroKM {
		return m.baseMS
	}
	return m.metroBaseMS + (m.baseMS-m.metroBaseMS)*km/m.metroKM
}

// zoneOf returns the zone of a country; one that is not in the tables has the zone of its nearest hub.
func (m *Model) zoneOf(country string, at point) zoneID {
	if zone, ok := m.zones[country]; ok {
		return zone
	}
	nearest, zone := math.Inf(1), atSea
	for _, h := range m.hubs {
		if km := m.kilometres(at, h.at); h.zone != atSea && km < nearest {
			nearest, zone = km, h.zone
		}
	}
	return zone
}

// point is a place on the unit sphere.
type point struct{ x, y, z float64 }

func pointOf(latDeg, lonDeg float64) point {
	lat, lon := latDeg*math.Pi/180, lonDeg*math.Pi/180
	return point{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
}

// kilometres is the great-circle distance, by the chord, which is exact for near points too.
func (m *Model) kilometres(a, b point) float64 {
	x, y, z := a.x-b.x, a.y-b.y, a.z-b.z
	return 2 * m.earthKM * math.Asin(min(1, math.Sqrt(x*x+y*y+z*z)/2))
}
