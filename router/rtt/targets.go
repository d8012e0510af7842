package rtt

import (
	"math"

	"github.com/isochrone/isochrone/topology"
)

// Targets are places to which the round-trip times from many other places are asked, all at a time. They are immutable and
// safe for concurrent use.
type Targets struct {
	model *Model
	at    []point
	zone  []zoneID
	exits [][]exit // by zone of the source: for all targets one after the other, where a way may leave the zone's land
	first [][]int  // by zone of the source: of each target, its first exit; with one more entry for the end
}

// exit is a hub of the source's zone, with the rest of the way from there.
type exit struct {
	hub  int     // in the order of Model.byZone
	rest float64 // ms from the hub to the target, without the constant
}

// Targets prepares places.
func (m *Model) Targets(places []topology.Location) *Targets {
	t := &Targets{model: m, exits: make([][]exit, len(m.byZone)), first: make([][]int, len(m.byZone))}
	for _, place := range places {
		to := m.To(place)
		t.at, t.zone = append(t.at, to.at), append(t.zone, to.zone)
		for zone := range m.byZone {
			t.first[zone] = append(t.first[zone], len(t.exits[zone]))
			t.exits[zone] = m.appendExits(t.exits[zone], zoneID(zone), to)
		}
	}
	for zone := range t.first {
		t.first[zone] = append(t.first[zone], len(t.exits[zone]))
	}
	return t
}

// appendExits appends the hubs of a zone by which the way to a target may lead. A hub from which the way goes on over the
// zone's own land is none: going over land to where it leads, without it, is never longer.
func (m *Model) appendExits(exits []exit, zone zoneID, to *Target) []exit {
	const rounding = 1e-9 // ms
	for i, h := range m.byZone[zone] {
		useful := to.zone != zone || to.via[h] < m.landCost*m.kilometres(m.hubs[h].at, to.at)-rounding
		for _, other := range m.byZone[zone] {
			if other != h && to.via[h] >= m.landCost*m.kilometres(m.hubs[h].at, m.hubs[other].at)+to.via[other]-rounding {
				useful = false
			}
		}
		if useful {
			exits = append(exits, exit{i, to.via[h]})
		}
	}
	return exits
}

// Microseconds predicts the round-trip times from a place to all targets, in whole microseconds, into a slice of their
// number.
func (t *Targets) Microseconds(from topology.Location, into []uint32) {
	var near [64]float64 // ms over land to the hubs of the source's zone, more than any zone has
	m, at := t.model, pointOf(from.LatDeg, from.LonDeg)
	zone := m.zoneOf(from.Country, at)
	land := near[:0]
	for _, h := range m.byZone[zone] {
		land = append(land, m.landCost*m.kilometres(at, m.hubs[h].at))
	}
	exits, first := t.exits[zone], t.first[zone]
	metroChord := 2 * math.Sin(m.metroKM/(2*m.earthKM))
	for i, to := range t.at {
		x, y, z := at.x-to.x, at.y-to.y, at.z-to.z
		square, way, constant := x*x+y*y+z*z, math.Inf(1), m.baseMS
		if t.zone[i] == zone || square < metroChord*metroChord {
			km := 2 * m.earthKM * math.Asin(min(1, math.Sqrt(square)/2))
			constant = m.constant(km)
			if t.zone[i] == zone {
				way = m.landCost * km
			}
		}
		for _, e := range exits[first[i]:first[i+1]] {
			way = min(way, land[e.hub]+e.rest)
		}
		into[i] = uint32(math.Round((constant + way) * 1000))
	}
}
