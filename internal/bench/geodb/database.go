package main

import (
	"compress/gzip"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"os"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

// network is a network of a database: in a country, at a place in it.
type network struct {
	prefix  netip.Prefix
	country *country
	place
}

// readNetworks returns the networks of a gzipped database, each at its country's centroid, and when it was built.
func readNetworks(source string, countries map[string]country) (networks []network, built int64) {
	file, err := os.Open(source)
	check(err)
	defer file.Close()
	zip, err := gzip.NewReader(file)
	check(err)
	text, err := io.ReadAll(zip)
	check(err)
	db, err := maxminddb.OpenBytes(text)
	check(err)
	defer db.Close()
	known, unknown := map[string]*country{}, map[string]int{}
	for code, c := range countries {
		known[code] = &c
	}
	for result := range db.Networks() {
		var record struct {
			Country struct {
				Code string `maxminddb:"iso_code"`
			} `maxminddb:"country"`
		}
		check(result.Decode(&record))
		if c := known[record.Country.Code]; c != nil {
			networks = append(networks, network{result.Prefix(), c, c.place})
		} else {
			unknown[record.Country.Code]++
		}
	}
	log.Printf("%d networks of %d countries; left out, for want of a centroid: %v", len(networks), len(countries), unknown)
	return networks, int64(db.Metadata.BuildEpoch)
}

// writeDatabase writes networks in the City schema.
func writeDatabase(path string, networks []network, built int64) {
	// gdnsd computes distances only for a type with "City" in it; geoip2-golang knows only the vendor's own types.
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType:            "GeoLite2-City",
		Description:             map[string]string{"en": "Benchmark data in the City schema; places are invented"},
		BuildEpoch:              built,
		IncludeReservedNetworks: true,
	})
	check(err)
	type where struct {
		*country
		place
	}
	records := map[where]mmdbtype.Map{}
	for _, n := range networks {
		at := where{n.country, n.place}
		if records[at] == nil {
			records[at] = mmdbtype.Map{
				"continent": mmdbtype.Map{"code": mmdbtype.String(n.country.continent)},
				"country":   mmdbtype.Map{"iso_code": mmdbtype.String(n.country.code)},
				"location": mmdbtype.Map{
					"latitude": mmdbtype.Float64(n.lat), "longitude": mmdbtype.Float64(n.lon),
				},
			}
		}
		ip := &net.IPNet{IP: n.prefix.Addr().AsSlice(), Mask: net.CIDRMask(n.prefix.Bits(), n.prefix.Addr().BitLen())}
		err := tree.Insert(ip, records[at])
		if aliased := (*mmdbwriter.AliasedNetworkError)(nil); errors.As(err, &aliased) {
			continue // 6to4 and the like: the tree answers these with the IPv4 address inside
		}
		check(err)
	}
	write(path, func(w io.Writer) {
		_, err := tree.WriteTo(w)
		check(err)
	})
	ipv4 := 0
	for _, n := range networks {
		if n.prefix.Addr().Is4() {
			ipv4++
		}
	}
	log.Printf("%s: %d networks of IPv4, %d of IPv6, %d places", path, ipv4, len(networks)-ipv4, len(records))
}
