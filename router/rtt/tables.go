package rtt

import (
	"embed"
	"encoding/csv"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/isochrone/isochrone/topology"
)

//go:embed *.csv
var embeddedTables embed.FS

// params are the model's numbers; model_params.csv says what they mean.
type params struct {
	baseMS, landFactor, seaFactor, landingMS, fibreMSPerKM, metroBaseMS, metroKM, earthKM float64
}

// Metro is a metropolitan area with reachable Ethereum and Polygon nodes.
type Metro struct {
	topology.Location
	Weight float64 // its share of the nodes
	Hosted float64 // part of them in hosting networks
}

// Metros returns where the world's nodes are. The slice must not be changed.
var Metros = sync.OnceValue(func() []Metro {
	rows, err := readTable(embeddedTables, "node_metros.csv", 8)
	if err != nil {
		panic("rtt: embedded tables: " + err.Error())
	}
	metros := make([]Metro, len(rows))
	for i, row := range rows {
		metros[i].City, metros[i].Country = row.text[0], row.text[1]
		metros[i].LatDeg, metros[i].LonDeg, metros[i].Hosted, metros[i].Weight = row.number(2), row.number(3), row.number(6), row.number(7)
		if row.err != nil {
			panic("rtt: embedded tables: " + row.err.Error())
		}
	}
	return metros
})

// parseTables reads the tables and computes the cheapest way between any two hubs.
func parseTables(files fs.FS) (*Model, error) {
	m := &Model{zones: map[string]zoneID{}}
	if err := m.readParams(files); err != nil {
		return nil, err
	}
	numbers := map[string]zoneID{"": atSea}
	zone := func(name string) zoneID {
		if _, known := numbers[name]; !known {
			numbers[name] = zoneID(len(m.byZone))
			m.byZone = append(m.byZone, nil)
		}
		return numbers[name]
	}
	hubs, err := readTable(files, "model_hubs.csv", 4)
	if err != nil {
		return nil, err
	}
	index := map[string]int{}
	for i, row := range hubs {
		h := hub{name: row.text[0], zone: zone(row.text[3]), at: pointOf(row.number(1), row.number(2))}
		if row.err != nil {
			return nil, row.err
		}
		index[h.name] = i
		m.hubs = append(m.hubs, h)
		if h.zone != atSea {
			m.byZone[h.zone] = append(m.byZone[h.zone], i)
		}
	}
	countries, err := readTable(files, "model_zones.csv", 2)
	if err != nil {
		return nil, err
	}
	for _, row := range countries {
		if _, known := numbers[row.text[1]]; !known {
			return nil, fmt.Errorf("%s: zone %q has no hub", row.where, row.text[1])
		}
		m.zones[row.text[0]] = numbers[row.text[1]]
	}
	links, err := readTable(files, "model_links.csv", 4)
	if err != nil {
		return nil, err
	}
	if err := m.readLinks(links, index); err != nil {
		return nil, err
	}
	m.join()
	return m, nil
}

func (m *Model) readParams(files fs.FS) error {
	rows, err := readTable(files, "model_params.csv", 4)
	if err != nil {
		return err
	}
	wanted := map[string]*float64{
		"base_ms": &m.baseMS, "land_factor": &m.landFactor, "sea_factor": &m.seaFactor, "landing_ms": &m.landingMS,
		"fibre_rtt_ms_per_km": &m.fibreMSPerKM, "metro_base_ms": &m.metroBaseMS, "metro_km": &m.metroKM, "earth_radius_km": &m.earthKM,
	}
	for _, row := range rows {
		value := wanted[row.text[0]]
		if value == nil {
			return fmt.Errorf("%s: %q is not a number of the model", row.where, row.text[0])
		}
		if *value = row.number(1); row.err != nil {
			return row.err
		}
		delete(wanted, row.text[0])
	}
	for name := range wanted {
		return fmt.Errorf("model_params.csv: %s is missing", name)
	}
	return nil
}

// link is a way between two hubs.
type link struct {
	a, b int
	sea  bool
	km   float64
}

func (m *Model) readLinks(rows []row, index map[string]int) error {
	for _, row := range rows {
		a, knowsA := index[row.text[0]]
		b, knowsB := index[row.text[1]]
		if !knowsA || !knowsB {
			return fmt.Errorf("%s: no hub %q or %q", row.where, row.text[0], row.text[1])
		}
		m.links = append(m.links, link{a, b, row.text[2] == "sea", row.number(3)})
		if row.err != nil {
			return row.err
		}
	}
	return nil
}

// join fills in the cheapest way between all hubs: over land within a zone, over the links otherwise (Floyd-Warshall).
func (m *Model) join() {
	m.landCost = m.fibreMSPerKM * m.landFactor
	n := len(m.hubs)
	d := make([][]float64, n)
	for i := range d {
		d[i] = slices.Repeat([]float64{math.Inf(1)}, n)
		for j := range d[i] {
			if m.hubs[i].zone == m.hubs[j].zone && m.hubs[i].zone != atSea {
				d[i][j] = m.landCost * m.kilometres(m.hubs[i].at, m.hubs[j].at)
			}
		}
		d[i][i] = 0
	}
	for _, l := range m.links {
		cost := m.landCost * l.km
		if l.sea {
			cost = m.fibreMSPerKM*m.seaFactor*l.km + m.landingMS
		}
		d[l.a][l.b] = min(d[l.a][l.b], cost)
		d[l.b][l.a] = d[l.a][l.b]
	}
	for k, via := range d {
		for i, row := range d {
			if first := row[k]; i != k && !math.IsInf(first, 1) {
				for j, rest := range via {
					if way := first + rest; way < row[j] {
						row[j] = way
					}
				}
			}
		}
	}
	m.between = d
}

// Numbers are those of the model that were fitted to measurements.
type Numbers struct {
	BaseMS     float64 `json:"base_ms"`     // constant of every pair at least 100 km apart
	LandFactor float64 `json:"land_factor"` // land kilometres count so many times their fibre light time
	SeaFactor  float64 `json:"sea_factor"`  // sea kilometres likewise
	LandingMS  float64 `json:"landing_ms"`  // added for each link by sea
}

// Numbers returns the model's.
func (m *Model) Numbers() Numbers { return Numbers{m.baseMS, m.landFactor, m.seaFactor, m.landingMS} }

// With returns a model with other numbers over the same tables, for who calibrates it.
func (m *Model) With(n Numbers) *Model {
	other := *m
	other.baseMS, other.landFactor, other.seaFactor, other.landingMS = n.BaseMS, n.LandFactor, n.SeaFactor, n.LandingMS
	other.join()
	return &other
}

// row is a line of a table.
type row struct {
	where string // file and line
	text  []string
	err   error // of the first field that is not a number
}

// number returns a field as a number; what is not one is kept as the row's error.
func (r *row) number(field int) float64 {
	v, err := strconv.ParseFloat(r.text[field], 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %q is not a number", r.where, r.text[field])
	}
	return v
}

// readTable reads a CSV file and leaves out its header.
func readTable(files fs.FS, name string, fields int) ([]row, error) {
	file, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := csv.NewReader(file)
	reader.FieldsPerRecord = fields
	records, err := reader.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var rows []row
	for i, record := range records[min(1, len(records)):] {
		rows = append(rows, row{where: fmt.Sprintf("%s, line %d", name, i+2), text: record})
	}
	return rows, nil
}
