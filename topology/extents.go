package topology

import (
	_ "embed"
	"math"
	"strconv"
	"strings"
	"sync"
)

//go:embed extents.csv
var extentsText string

// extent is where the land of a country is: boxes of degrees that hold it, with some of its neighbours.
type extent []box

type box struct{ west, south, east, north float64 }

// extents are those of all countries, by code.
var extents = sync.OnceValue(func() map[string]extent {
	all := map[string]extent{}
	for line := range strings.Lines(extentsText) {
		code, rest, _ := strings.Cut(strings.TrimSpace(line), ",")
		if strings.HasPrefix(code, "#") {
			continue
		}
		fields := strings.Split(rest, ",")
		var degrees []float64
		for _, field := range fields {
			number, err := strconv.ParseFloat(field, 64)
			if err != nil {
				panic("topology: extents.csv: " + line)
			}
			degrees = append(degrees, number)
		}
		for i := 0; i+4 <= len(degrees); i += 4 {
			all[code] = append(all[code], box{degrees[i], degrees[i+1], degrees[i+2], degrees[i+3]})
		}
	}
	return all
})

// distanceKM returns about how far a place is outside of all boxes, 0 inside of one.
func (e extent) distanceKM(lat, lon float64) float64 {
	nearest := math.Inf(1)
	for _, b := range e {
		for _, turn := range []float64{-360, 0, 360} { // over the date line
			x := min(max(lon+turn, b.west), b.east)
			nearest = min(nearest, distanceKM(lat, lon+turn, min(max(lat, b.south), b.north), x))
		}
	}
	return nearest
}

// distanceKM is that of two places on a sphere of the earth's size (the haversine formula).
func distanceKM(lat1, lon1, lat2, lon2 float64) float64 {
	const radius, degree = 6371, math.Pi / 180
	sin := func(d float64) float64 { return math.Sin(d * degree / 2) }
	h := sin(lat2-lat1)*sin(lat2-lat1) + math.Cos(lat1*degree)*math.Cos(lat2*degree)*sin(lon2-lon1)*sin(lon2-lon1)
	return 2 * radius * math.Asin(math.Sqrt(min(h, 1)))
}
