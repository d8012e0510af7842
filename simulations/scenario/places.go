package scenario

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/isochrone/isochrone/topology"
)

//go:embed places.csv
var placesCSV string

// Place is a city where PoPs, exchanges and cloud regions commonly stand.
type Place struct {
	topology.Location
	IATA string // three capitals, of the city's airport; Falkenstein has none
}

// Places returns the built-in places, 113 of them. The slice must not be changed.
var Places = sync.OnceValue(func() []Place {
	reader := csv.NewReader(strings.NewReader(placesCSV))
	reader.FieldsPerRecord = 7
	rows, err := reader.ReadAll()
	if err != nil {
		panic("scenario: places.csv: " + err.Error())
	}
	var places []Place
	for _, row := range rows[1:] {
		place, err := locationOf(row[3], row[4], row[1])
		if err != nil {
			panic("scenario: places.csv: " + err.Error())
		}
		place.City = row[0]
		places = append(places, Place{place, row[2]})
	}
	return places
})

var placesByIATA = sync.OnceValue(func() map[string]Place {
	places := map[string]Place{}
	for _, p := range Places() {
		if p.IATA != "" {
			places[p.IATA] = p
		}
	}
	return places
})

// PlaceOf returns the built-in place of an IATA code, or the place that is written as "lat,lon,CC", with an empty IATA code.
func PlaceOf(text string) (Place, error) {
	if place, ok := placesByIATA()[strings.ToUpper(text)]; ok {
		return place, nil
	}
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return Place{}, fmt.Errorf("%q is neither the IATA code of a built-in place, such as SIN, nor a place such as 1.29,103.85,SG", text)
	}
	at, err := locationOf(strings.TrimSpace(parts[0]), strings.TrimSpace(parts[1]), strings.TrimSpace(parts[2]))
	if err != nil {
		return Place{}, fmt.Errorf("%q: %w", text, err)
	}
	at.City = text
	return Place{Location: at}, nil
}

func locationOf(lat, lon, country string) (topology.Location, error) {
	at := topology.Location{Country: country}
	for _, part := range []struct {
		text string
		into *float64
		most float64
	}{{lat, &at.LatDeg, 90}, {lon, &at.LonDeg, 180}} {
		v, err := strconv.ParseFloat(part.text, 64)
		if err != nil || !(v >= -part.most && v <= part.most) {
			return at, fmt.Errorf("%q is not in -%v..%v", part.text, part.most, part.most)
		}
		*part.into = v
	}
	if len(country) != 2 || country != strings.ToUpper(country) {
		return at, fmt.Errorf("%q is not a country code such as SG", country)
	}
	return at, nil
}
