package geo

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/isochrone/isochrone/router"
)

func defaultDB(t testing.TB) *DB {
	t.Helper()
	db, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestDefaultPlacesHostedNodesInTheirCountry(t *testing.T) {
	db := defaultDB(t)
	for addr, want := range map[string]string{
		"13.228.0.1":        "SG", // cloud regions
		"18.184.0.1":        "DE",
		"52.192.0.1":        "JP",
		"18.228.0.1":        "BR",
		"13.244.0.1":        "ZA",
		"3.80.0.1":          "US",
		"2a05:d014::1":      "DE",
		"::ffff:18.184.0.1": "DE",
	} {
		place, network, ok := db.Locate(netip.MustParseAddr(addr))
		if !ok || place.Country != want {
			t.Errorf("%s: got %+v (%v), want %s", addr, place, ok, want)
			continue
		}
		if !network.Contains(netip.MustParseAddr(addr).Unmap()) {
			t.Errorf("%s: network %v does not hold it", addr, network)
		}
	}
	if place, _, ok := db.Locate(netip.MustParseAddr("192.0.2.1")); ok {
		t.Errorf("a documentation address is in %+v", place)
	}
}

func TestDefaultTellsWhatIsCoarse(t *testing.T) {
	db := defaultDB(t)
	if info := db.Info(); !info.CountryOnly || info.Type != "GeoLite2-Country" || info.Built.Year() < 2026 || len(info.CoarseCountries) != 5 {
		t.Errorf("got %+v", info)
	}
	place, _, _ := db.Locate(netip.MustParseAddr("3.80.0.1"))
	if !place.Coarse || place.Continent != "NA" {
		t.Errorf("United States: got %+v, want a coarse place in NA", place)
	}
	if place, _, _ := db.Locate(netip.MustParseAddr("13.228.0.1")); place.Coarse {
		t.Errorf("Singapore: got %+v, want no coarse place", place)
	}
}

func TestNetworksAreInOrderAndShareTheirPlaces(t *testing.T) {
	db := defaultDB(t)
	var last netip.Prefix
	count, places := 0, map[*router.Place]bool{}
	for network, place := range db.Networks() {
		if last.IsValid() && (network.Addr().Less(last.Addr()) || network.Overlaps(last)) {
			t.Fatalf("%v comes after %v", network, last)
		}
		last = network
		places[place] = true
		count++
	}
	if count < 300_000 || len(places) > 260 {
		t.Errorf("got %d networks of %d places", count, len(places))
	}
	if err := db.Check(); err != nil {
		t.Error(err)
	}
}

// city makes a City database of one network, as its vendor would.
func city(t *testing.T, databaseType string) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: databaseType})
	if err != nil {
		t.Fatal(err)
	}
	insert := func(prefix string, record mmdbtype.Map) {
		_, network, err := net.ParseCIDR(prefix)
		if err == nil {
			err = tree.Insert(network, record)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	country := func(code string) mmdbtype.Map { return mmdbtype.Map{"iso_code": mmdbtype.String(code)} }
	insert("3.0.0.0/16", mmdbtype.Map{
		"city":      mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String("Dallas")}},
		"continent": mmdbtype.Map{"code": mmdbtype.String("NA")}, "country": country("US"),
		"location": mmdbtype.Map{"latitude": mmdbtype.Float64(32.78), "longitude": mmdbtype.Float64(-96.8)},
	})
	insert("3.1.0.0/16", mmdbtype.Map{"country": country("US")})
	insert("3.2.0.0/16", mmdbtype.Map{"registered_country": country("JP")})
	var file bytes.Buffer
	if _, err := tree.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestOpenCity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "city.mmdb")
	if err := os.WriteFile(path, city(t, "GeoLite2-City"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if info := db.Info(); info.CountryOnly || len(info.CoarseCountries) != 0 {
		t.Errorf("got %+v, want a database that knows cities", info)
	}
	dallas, _, _ := db.Locate(netip.MustParseAddr("3.0.0.1"))
	if dallas == nil || dallas.City != "Dallas" || dallas.LatDeg != 32.78 || dallas.Coarse {
		t.Errorf("got %+v, want Dallas at its own place", dallas)
	}
	states, _, _ := db.Locate(netip.MustParseAddr("3.1.0.1"))
	if states == nil || states.Country != "US" || !states.Coarse {
		t.Errorf("got %+v, want the coarse place of the United States", states)
	}
	japan, _, _ := db.Locate(netip.MustParseAddr("3.2.0.1"))
	if japan == nil || japan.Country != "JP" {
		t.Errorf("got %+v, want the registered country, JP", japan)
	}
}

func TestOpenRefusesWhatIsNoGeoDatabase(t *testing.T) {
	for name, data := range map[string][]byte{
		"text.mmdb":      []byte("not a database"),
		"asn.mmdb":       city(t, "GeoLite2-ASN"),
		"own-type.mmdb":  city(t, "my own database"),
		"truncated.gz":   builtIn[:len(builtIn)/2],
		"truncated.mmdb": city(t, "GeoLite2-City")[:300],
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want ErrUnusable and the path", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

func BenchmarkOpenAndRead(b *testing.B) {
	for b.Loop() {
		for range defaultDB(b).Networks() {
		}
	}
}
