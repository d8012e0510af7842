package geo

import (
	_ "embed"
	"encoding/csv"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

//go:embed centroids.csv
var centroids string

// coarseCountries are so large that the PoP nearest to their middle is wrong for many of their clients.
var coarseCountries = []string{"AU", "BR", "CA", "RU", "US"}

// countryPlace returns the place that stands for a country, and false for a code that is none.
func countryPlace(code string) (router.Place, bool) {
	place, known := countries()[code]
	return place, known
}

// countries places every country: at the weighted mean of its metros, or else at its centroid.
var countries = sync.OnceValue(func() map[string]router.Place {
	reader := csv.NewReader(strings.NewReader(centroids))
	reader.Comment, reader.FieldsPerRecord = '#', 4
	rows, err := reader.ReadAll()
	if err != nil {
		panic("geo: centroids.csv: " + err.Error())
	}
	metros := map[string][]rtt.Metro{}
	for _, metro := range rtt.Metros() {
		metros[metro.Country] = append(metros[metro.Country], metro)
	}
	places := make(map[string]router.Place, len(rows))
	for _, row := range rows {
		lat, latErr := strconv.ParseFloat(row[2], 64)
		lon, lonErr := strconv.ParseFloat(row[3], 64)
		if latErr != nil || lonErr != nil {
			panic("geo: centroids.csv: " + strings.Join(row, ","))
		}
		if of := metros[row[0]]; len(of) > 0 {
			lat, lon = mean(of)
		}
		places[row[0]] = router.Place{
			Location:  topology.Location{LatDeg: lat, LonDeg: lon, Country: row[0]},
			Continent: row[1],
			Coarse:    slices.Contains(coarseCountries, row[0]),
		}
	}
	return places
})

// PlaceOf returns the place that stands for a country, by its ISO 3166-1 code, and false for a code that is none.
func PlaceOf(country string) (router.Place, bool) { return countryPlace(country) }

// ContinentOf returns the code of the continent of a country, by its ISO 3166-1 code, or nothing when it is not known.
func ContinentOf(country string) string { return countries()[country].Continent }

// mean returns the weighted mean of places on the sphere, in degrees rounded to a hundredth (about a kilometre).
func mean(metros []rtt.Metro) (latDeg, lonDeg float64) {
	var x, y, z float64
	for _, m := range metros {
		lat, lon := m.LatDeg*math.Pi/180, m.LonDeg*math.Pi/180
		x += m.Weight * math.Cos(lat) * math.Cos(lon)
		y += m.Weight * math.Cos(lat) * math.Sin(lon)
		z += m.Weight * math.Sin(lat)
	}
	round := func(radians float64) float64 { return math.Round(radians*180/math.Pi*100) / 100 }
	return round(math.Atan2(z, math.Hypot(x, y))), round(math.Atan2(y, x))
}
