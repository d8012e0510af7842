package geo

import (
	"fmt"
	"iter"
	"net/netip"
	"os"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/isochrone/isochrone/router"
)

// ASNs is an open ASN database, to be laid over a geo database (router.Overlay). It is safe for concurrent use.
type ASNs struct {
	reader *maxminddb.Reader
	Built  time.Time
}

// OpenASN opens a GeoLite2 or GeoIP2 database of type ASN, plain or compressed by gzip, and reads all of it. The error is
// ErrUnusable, with the reason, for a file that is none or is damaged.
func OpenASN(path string) (*ASNs, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: want a GeoLite2 or GeoIP2 database of type ASN (mmdb): %w", path, ErrUnusable, err)
	}
	a := &ASNs{reader, time.Unix(int64(reader.Metadata.BuildEpoch), 0).UTC()}
	some := false
	for result := range reader.Networks() {
		number, err := asn(result)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: network %v: %w", path, ErrUnusable, result.Prefix(), err)
		}
		some = some || number != 0
	}
	if !some {
		return nil, fmt.Errorf("%s: %w: want a GeoLite2 or GeoIP2 database of type ASN (mmdb), not %s", path, ErrUnusable, reader.Metadata.DatabaseType)
	}
	return a, nil
}

// asn returns the number of a record, 0 when it tells none.
func asn(result maxminddb.Result) (uint32, error) {
	if err := result.Err(); err != nil || !result.Found() {
		return 0, err
	}
	var number uint32
	err := result.DecodePath(&number, "autonomous_system_number")
	return number, err
}

// Networks implements router.Overlay.
func (a *ASNs) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		places := map[uint32]*router.Place{}
		for result := range a.reader.Networks() {
			number, err := asn(result)
			if err != nil || number == 0 {
				continue
			}
			if places[number] == nil {
				places[number] = &router.Place{ASN: number}
			}
			if !yield(result.Prefix(), places[number]) {
				return
			}
		}
	}
}
