package router

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/topology"
)

// Atlas is a geo database in the form that tables are compiled from: both address spaces, divided into blocks of one place.
// It is immutable and safe for concurrent use; tables share it. It is made anew only when the database changes.
type Atlas struct {
	places    []*Place // by number; the first is nil and stands for "unknown"
	location  []uint32 // of each place, its number in locations
	locations []spot   // distinct ones; the first stands for "unknown"
	v4, v6    *space   // their origins are places
}

// spot is what of a place decides how far it is from PoPs, and whose verdicts count there.
type spot struct {
	lat, lon float64
	country  string
	region   region
}

func (s spot) at() topology.Location {
	return topology.Location{LatDeg: s.lat, LonDeg: s.lon, Country: s.country}
}

// region is a part of the world for which verdicts are reached: a continent, or 0 where none is known.
type region uint8

// regions is the number of regions.
const regions = 8

func regionOf(continent string) region {
	return region(slices.Index(topology.Continents, continent) + 1)
}

// unknown is the number of the place, and of the location, of clients whose place is not known.
const unknown = 0

// NewAtlas reads a whole geo database, and what others know better. The places that they yield become part of the atlas.
func NewAtlas(geo Geo, overlays ...Overlay) (*Atlas, error) {
	a := &Atlas{places: []*Place{nil}, location: []uint32{unknown}, locations: []spot{{}}}
	v4, v6 := spaceBuilder{v4: true}, spaceBuilder{}
	numbers, spots := map[*Place]uint32{}, map[spot]uint32{}
	for network, place := range geo.Networks() {
		number, known := numbers[place]
		if !known {
			number = a.add(place, spots)
			numbers[place] = number
		}
		builder := &v6
		if network.Addr().Is4() {
			builder = &v4
		}
		if !builder.add(network, number) {
			return nil, fmt.Errorf("geo database: network %v is out of order or overlaps the one before it", network)
		}
	}
	a.v4, a.v6 = v4.finish(), v6.finish()
	if len(overlays) > 0 {
		a.lay(overlays, spots)
	}
	return a, nil
}

// add numbers a place.
func (a *Atlas) add(place *Place, spots map[spot]uint32) uint32 {
	s := spot{place.LatDeg, place.LonDeg, place.Country, regionOf(place.Continent)}
	if !place.Located() {
		s = spot{}
	}
	location, known := spots[s]
	if s == (spot{}) {
		location = unknown
	} else if !known {
		location = uint32(len(a.locations))
		spots[s] = location
		a.locations = append(a.locations, s)
	}
	a.places, a.location = append(a.places, place), append(a.location, location)
	return uint32(len(a.places) - 1)
}

// lay puts overlays over the blocks, the later ones over the earlier ones.
func (a *Atlas) lay(overlays []Overlay, spots map[spot]uint32) {
	type pile struct {
		place uint32 // below
		over  *Place
	}
	piles := map[pile]uint32{}
	for _, space := range []**space{&a.v4, &a.v6} {
		var layers [][]segment
		var places [][]*Place
		for _, overlay := range overlays {
			prefixes, of := sorted(overlay)
			layers = append(layers, segmentsOf(len(prefixes), func(i int) netip.Prefix { return prefixes[i] }, (*space).v4))
			places = append(places, of)
		}
		*space = (*space).divide(layers, func(place uint32, numbers []int32) uint32 {
			for i, number := range numbers {
				if number == noPrefix {
					continue
				}
				p := pile{place, places[i][number]}
				merged, known := piles[p]
				if !known {
					merged = a.add(p.over.over(a.places[place]), spots)
					piles[p] = merged
				}
				place = merged
			}
			return place
		})
	}
}

// sorted returns an overlay's prefixes with their places, in address order, the wider one first.
func sorted(overlay Overlay) (prefixes []netip.Prefix, places []*Place) {
	type entry struct {
		prefix netip.Prefix
		place  *Place
	}
	var entries []entry
	for prefix, place := range overlay.Networks() {
		entries = append(entries, entry{prefix, place})
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return a.prefix.Compare(b.prefix) })
	for _, e := range entries {
		prefixes, places = append(prefixes, e.prefix), append(places, e.place)
	}
	return prefixes, places
}

// Blocks returns how many blocks the address spaces of IPv4 and IPv6 are divided into.
func (a *Atlas) Blocks() (v4, v6 int) { return a.v4.blocks(), a.v6.blocks() }

// Places returns how many distinct places the atlas knows.
func (a *Atlas) Places() int { return len(a.places) - 1 }
