package geo

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/isochrone/isochrone/router"
)

//go:embed country.mmdb.gz
var builtIn []byte

// maxSize bounds a database, packed or not, in bytes; the largest commercial ones have about a tenth of it.
const maxSize = 2 << 30

// ErrUnusable is returned for a file that is no geo database, or one of another kind.
var ErrUnusable = errors.New("not a usable geo database")

// DB is an open geo database. It is safe for concurrent use.
type DB struct {
	path     string
	reader   *maxminddb.Reader
	info     Info
	mu       sync.Mutex
	byEntry  map[uintptr]*router.Place // by the record's offset in the file
	interned map[router.Place]*router.Place
}

// Info tells what a database is.
type Info struct {
	Type            string // such as GeoLite2-City
	Built           time.Time
	CountryOnly     bool     // places are countries, not cities
	CoarseCountries []string // for a database that knows countries only: where that is too coarse to find the nearest PoP
}

// Default opens the built-in database.
func Default() (*DB, error) {
	data, err := readAll(bytes.NewReader(builtIn))
	if err != nil {
		return nil, err
	}
	return open("the built-in database", data)
}

// Open opens a database file, plain or compressed by gzip. The error is ErrUnusable, with the reason, for a file that is not
// a City, Enterprise or Country database.
func Open(path string) (*DB, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return open(path, data)
}

// readAll reads a database, and unpacks it where it is compressed by gzip.
func readAll(in io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxSize))
	if err != nil || !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, err
	}
	if data, err = gunzip(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return data, nil
}

func open(name string, data []byte) (*DB, error) {
	const wanted = "want a GeoLite2 or GeoIP2 database of type City, Enterprise or Country (mmdb)"
	known, err := geoip2.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s: %w", name, ErrUnusable, wanted, err)
	}
	meta := known.Metadata()
	if _, err := known.Country(netip.IPv6Unspecified()); err != nil {
		return nil, fmt.Errorf("%s: %w: %s, not %s: %w", name, ErrUnusable, wanted, meta.DatabaseType, err)
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrUnusable, err)
	}
	db := &DB{
		path: name, reader: reader,
		byEntry: map[uintptr]*router.Place{}, interned: map[router.Place]*router.Place{},
	}
	db.info = Info{
		Type: meta.DatabaseType, Built: time.Unix(int64(meta.BuildEpoch), 0).UTC(),
		CountryOnly: strings.HasSuffix(meta.DatabaseType, "Country"),
	}
	if db.info.CountryOnly {
		db.info.CoarseCountries = coarseCountries
	}
	return db, nil
}

func gunzip(packed []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	data.Grow(len(packed) * 5 / 2)
	if _, err := data.ReadFrom(io.LimitReader(reader, maxSize)); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// Info tells what the database is.
func (db *DB) Info() Info { return db.info }

// Networks yields the networks whose place is known, as router.Geo says. It stops at the first broken record of a damaged
// file; see Check.
func (db *DB) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for result := range db.reader.Networks() {
			place, err := db.place(result)
			if err != nil {
				return
			}
			if place != nil && !yield(result.Prefix(), place) {
				return
			}
		}
	}
}

// Check reads the whole database and returns an error for one that is damaged.
func (db *DB) Check() error {
	for result := range db.reader.Networks() {
		if _, err := db.place(result); err != nil {
			return fmt.Errorf("%s: %w: network %v: %w", db.path, ErrUnusable, result.Prefix(), err)
		}
	}
	return nil
}

// Locate returns the place of an address and the network that it is known of, and false when it is not known.
func (db *DB) Locate(addr netip.Addr) (*router.Place, netip.Prefix, bool) {
	result := db.reader.Lookup(addr.Unmap())
	place, err := db.place(result)
	return place, result.Prefix(), err == nil && place != nil
}

// place returns the place of a record, nil when the record tells none.
func (db *DB) place(result maxminddb.Result) (*router.Place, error) {
	if err := result.Err(); err != nil || !result.Found() {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	place, known := db.byEntry[result.Offset()]
	if known {
		return place, nil
	}
	var record geoip2.City // holds all fields of the Country type too
	if err := result.Decode(&record); err != nil {
		return nil, err
	}
	if found, ok := placeOf(&record); ok {
		if place = db.interned[found]; place == nil {
			place = &found
			db.interned[found] = place
		}
	}
	db.byEntry[result.Offset()] = place
	return place, nil
}

// placeOf returns the place that a record tells: its own location, or else its country's.
func placeOf(record *geoip2.City) (router.Place, bool) {
	code := record.Country.ISOCode
	if code == "" {
		code = record.RegisteredCountry.ISOCode
	}
	place, known := countryPlace(code)
	if record.Continent.Code != "" {
		place.Continent = record.Continent.Code
	}
	if record.Location.Latitude == nil || record.Location.Longitude == nil {
		return place, known
	}
	place.Country, place.City, place.Coarse = code, record.City.Names.English, false
	place.LatDeg, place.LonDeg = *record.Location.Latitude, *record.Location.Longitude
	return place, true
}
