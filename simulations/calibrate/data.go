package calibrate

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/isochrone/isochrone/topology"
)

//go:embed data/*.csv
var files embed.FS

// Region is a place from and to which round-trip times were measured.
type Region struct {
	Name string
	topology.Location
}

// Pair is what was measured between two regions, by their numbers.
type Pair struct {
	A, B int
	MS   float64
}

// Measurements are those of all pairs of the open regions.
type Measurements struct {
	Regions []Region // in the order of the folds: by the SHA-256 of "cv|" and the name, in hex
	Pairs   []Pair

	kilometres []float64 // great circle, of each pair
	logs       []float64 // of what was measured and 3 ms, of each pair
}

// Load returns the built-in measurements. They must not be changed.
var Load = sync.OnceValue(func() *Measurements {
	m, err := load()
	if err != nil {
		panic("calibrate: " + err.Error())
	}
	return m
})

func load() (*Measurements, error) {
	m := &Measurements{}
	rows, err := read("data/azure_regions.csv", 6)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row[5] != "open" {
			continue
		}
		lat, latErr := strconv.ParseFloat(row[3], 64)
		lon, lonErr := strconv.ParseFloat(row[4], 64)
		if err := cmp.Or(latErr, lonErr); err != nil {
			return nil, err
		}
		m.Regions = append(m.Regions, Region{row[0], topology.Location{LatDeg: lat, LonDeg: lon, Country: row[2], City: row[1]}})
	}
	slices.SortFunc(m.Regions, func(a, b Region) int { return cmp.Compare(foldKey(a.Name), foldKey(b.Name)) })
	numbers := map[string]int{}
	for i, r := range m.Regions {
		numbers[r.Name] = i
	}
	if rows, err = read("data/azure_rtt_p50.csv", 5); err != nil {
		return nil, err
	}
	for _, row := range rows {
		a, knowsA := numbers[row[0]]
		b, knowsB := numbers[row[1]]
		ms, err := strconv.ParseFloat(row[2], 64)
		if !knowsA || !knowsB || err != nil {
			return nil, fmt.Errorf("azure_rtt_p50.csv: %v", row)
		}
		m.Pairs = append(m.Pairs, Pair{a, b, ms})
		m.logs = append(m.logs, math.Log(ms+3))
		m.kilometres = append(m.kilometres, kilometres(m.Regions[a], m.Regions[b]))
	}
	return m, nil
}

// kilometres is the great-circle distance (haversine).
func kilometres(a, b Region) float64 {
	const radius, degree = 6371.0088, math.Pi / 180
	lat, lon := math.Sin((a.LatDeg-b.LatDeg)*degree/2), math.Sin((a.LonDeg-b.LonDeg)*degree/2)
	h := lat*lat + math.Cos(a.LatDeg*degree)*math.Cos(b.LatDeg*degree)*lon*lon
	return 2 * radius * math.Asin(min(1, math.Sqrt(h)))
}

func foldKey(region string) string {
	sum := sha256.Sum256([]byte("cv|" + region))
	return hex.EncodeToString(sum[:])
}

// read returns the rows of a table without its header.
func read(name string, fields int) ([][]string, error) {
	file, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := csv.NewReader(file)
	reader.FieldsPerRecord = fields
	rows, err := reader.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rows[1:], nil
}
