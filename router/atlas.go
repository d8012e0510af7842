package router

import (
	"fmt"
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

// NewAtlas reads a whole geo database. The places that it yields become part of the atlas.
func NewAtlas(geo Geo) (*Atlas, error) {
	a := &Atlas{places: []*Place{nil}, location: []uint32{unknown}, locations: []spot{{}}}
	v4, v6 := spaceBuilder{v4: true}, spaceBuilder{}
	numbers, spots := map[*Place]uint32{}, map[spot]uint32{}
	for network, place := range geo.Networks() {
		number, known := numbers[place]
		if !known {
			number = uint32(len(a.places))
			numbers[place] = number
			a.places = append(a.places, place)
			s := spot{place.LatDeg, place.LonDeg, place.Country, regionOf(place.Continent)}
			if _, known := spots[s]; !known {
				spots[s] = uint32(len(a.locations))
				a.locations = append(a.locations, s)
			}
			a.location = append(a.location, spots[s])
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
	return a, nil
}

// Blocks returns how many blocks the address spaces of IPv4 and IPv6 are divided into.
func (a *Atlas) Blocks() (v4, v6 int) { return a.v4.blocks(), a.v6.blocks() }

// Places returns how many distinct places the atlas knows.
func (a *Atlas) Places() int { return len(a.places) - 1 }
