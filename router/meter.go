package router

import (
	"net/netip"

	"github.com/isochrone/isochrone/router/rtt"
)

// Meter tells expected round-trip times by a table: measured where that is known, else predicted. It keeps what it knows of
// the last client's place, so it is fast for clients in the order of Table.Location. It is not safe for concurrent use.
type Meter struct {
	table    *Table
	location uint32
	us       []uint32
}

// Meter returns a new meter.
func (t *Table) Meter() *Meter {
	return &Meter{table: t, location: none, us: make([]uint32, len(t.pops))}
}

// Location returns a number that clients share who are at one place, and that place, nil when it is not known.
func (t *Table) Location(client netip.Addr) (uint32, *Place) {
	o := t.originOf(t.find(client))
	return t.atlas.location[o.place], t.atlas.places[o.place]
}

// find returns the number of the origin of a client.
func (t *Table) find(client netip.Addr) uint32 {
	a, space := addressOf(client.Unmap()), t.v6
	if client.Unmap().Is4() {
		space = t.v4
	}
	return space.origin[space.find(a)]
}

// Milliseconds returns the expected round-trip time between a client and a choice.
func (m *Meter) Milliseconds(client netip.Addr, c Choice) float64 {
	t := m.table
	o := t.originOf(t.find(client))
	if at := t.atlas.location[o.place]; at != m.location {
		m.location = at
		t.predict(at, m.us)
	}
	us := m.us[c]
	if o.measured != noPrefix {
		for _, e := range t.rttMap.Entries(int(o.measured)) {
			if t.rttMap.PoPs()[e.PoP] == t.pops[c].name {
				us, _ = rtt.Merge(us, e)
			}
		}
	}
	return inMS(us)
}
