package geo

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// Table is an operator's own table of prefixes, to be laid over a geo database (router.Overlay). It is immutable.
type Table struct {
	prefixes []netip.Prefix
	places   []*router.Place
}

// tableColumns are those of the file. Either lat, lon and country are given, or none of them; city and asn may be empty.
var tableColumns = []string{"prefix", "lat", "lon", "country", "city", "asn"}

// maxTable bounds the rows of a table.
const maxTable = 2_000_000

// OpenTable reads a CSV file with the columns prefix, lat, lon, country, city and asn, in any order; city and asn may be left
// out. The error tells all faults, with their lines.
func OpenTable(path string) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	table, err := ReadTable(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return table, nil
}

// ReadTable reads what OpenTable does.
func ReadTable(in io.Reader) (*Table, error) {
	reader := csv.NewReader(in)
	head, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	columns := map[string]int{}
	for i, name := range head {
		if !slices.Contains(tableColumns, name) {
			return nil, fmt.Errorf("line 1: unknown column %q; known are %s", name, strings.Join(tableColumns, ", "))
		}
		columns[name] = i
	}
	for _, name := range tableColumns[:4] {
		if _, ok := columns[name]; !ok {
			return nil, fmt.Errorf("line 1: column %s is missing", name)
		}
	}
	var (
		table  Table
		faults []error
		known  = map[router.Place]*router.Place{}
		seen   = map[netip.Prefix]int{}
	)
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := reader.FieldPos(0)
		prefix, place, err := readRow(func(name string) string {
			if i, ok := columns[name]; ok {
				return strings.TrimSpace(row[i])
			}
			return ""
		})
		if other := seen[prefix]; err == nil && other > 0 {
			err = fmt.Errorf("%v stands in line %d already", prefix, other)
		}
		if err != nil {
			if faults = append(faults, fmt.Errorf("line %d: %w", line, err)); len(faults) == 20 {
				break
			}
			continue
		}
		seen[prefix] = line
		if known[place] == nil {
			known[place] = &place
		}
		table.prefixes, table.places = append(table.prefixes, prefix), append(table.places, known[place])
		if len(table.prefixes) > maxTable {
			return nil, fmt.Errorf("line %d: more than %d rows", line, maxTable)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &table, nil
}

// readRow reads one row.
func readRow(field func(string) string) (netip.Prefix, router.Place, error) {
	var place router.Place
	prefix, err := netip.ParsePrefix(field("prefix"))
	if err != nil || prefix.Masked() != prefix || prefix.Addr().Is4In6() {
		return prefix, place, fmt.Errorf("prefix: %q is not a prefix in canonical form such as 203.0.113.0/24", field("prefix"))
	}
	if text := field("asn"); text != "" {
		number, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return prefix, place, fmt.Errorf("asn: %q is not a number in 0..4294967295", text)
		}
		place.ASN = uint32(number)
	}
	lat, lon, country := field("lat"), field("lon"), field("country")
	if lat == "" && lon == "" && country == "" {
		if place.ASN == 0 {
			return prefix, place, errors.New("neither a place nor an ASN is given")
		}
		return prefix, place, nil
	}
	at, known := countryPlace(country)
	if !known {
		return prefix, place, fmt.Errorf("country: %q is not a country code of two capitals", country)
	}
	place.Location, place.Continent = topology.Location{Country: country, City: field("city")}, at.Continent
	for _, degrees := range []struct {
		name, text string
		limit      float64
		to         *float64
	}{{"lat", lat, 90, &place.LatDeg}, {"lon", lon, 180, &place.LonDeg}} {
		v, err := strconv.ParseFloat(degrees.text, 64)
		if err != nil || !(v >= -degrees.limit && v <= degrees.limit) {
			return prefix, place, fmt.Errorf("%s: %q is not in -%v..%v", degrees.name, degrees.text, degrees.limit, degrees.limit)
		}
		*degrees.to = v
	}
	return prefix, place, nil
}

// Networks implements router.Overlay.
func (t *Table) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i, prefix := range t.prefixes {
			if !yield(prefix, t.places[i]) {
				return
			}
		}
	}
}
