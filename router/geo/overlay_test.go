package geo

import (
	"bytes"
	"errors"
	"iter"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// asnFile writes an ASN database.
func asnFile(t *testing.T, networks map[string]uint32) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-ASN", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for prefix, number := range networks {
		err := tree.Insert(ipNet(t, prefix), mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(number)})
		if err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := tree.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "asn.mmdb")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSources(t *testing.T) {
	sources := Sources{
		Places: write(t, "city.mmdb", string(city(t, "GeoLite2-City"))),
		ASNs:   asnFile(t, map[string]uint32{"3.0.0.0/17": 64500, "3.0.128.0/17": 64501, "192.0.2.0/24": 64502}),
		Table: write(t, "table.csv", "prefix,lat,lon,country,city,asn\n"+
			"3.0.0.0/20,1.29,103.85,SG,Singapore,\n3.0.4.0/24,50.1,8.7,DE,,64999\n3.0.200.0/24,,,,,65000\n2001:db8::/32,35.7,139.7,JP,Tokyo,\n"),
	}
	atlas, info, err := sources.Load()
	if err != nil || info.CountryOnly {
		t.Fatal(info, err)
	}
	table := tableOf(t, atlas)
	for _, test := range []struct {
		client, city, country string
		asn                   uint32
	}{
		{"3.0.64.1", "Dallas", "US", 64500}, {"3.0.130.1", "Dallas", "US", 64501}, {"3.0.1.1", "Singapore", "SG", 64500},
		{"3.0.4.1", "", "DE", 64999}, {"3.0.5.1", "Singapore", "SG", 64500}, {"3.0.200.1", "Dallas", "US", 65000},
		{"192.0.2.1", "", "", 64502}, {"2001:db8::1", "Tokyo", "JP", 0},
	} {
		_, place := table.Location(netip.MustParseAddr(test.client))
		if place == nil || place.City != test.city || place.Country != test.country || place.ASN != test.asn {
			t.Errorf("%s: got %+v", test.client, place)
		}
	}
	if location, place := table.Location(netip.MustParseAddr("192.0.2.1")); location != 0 || place.Located() {
		t.Errorf("an address of which only the ASN is known has a place: %d, %+v", location, place)
	}
	before := sources.Version()
	if err := os.WriteFile(sources.Table, []byte("prefix,lat,lon,country\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if sources.Version() == before {
		t.Error("a written file has the same version")
	}
}

func TestSourcesRefuse(t *testing.T) {
	for name, sources := range map[string]Sources{
		"places": {Places: write(t, "x.mmdb", "no database")},
		"asns":   {ASNs: write(t, "x.mmdb", string(city(t, "GeoLite2-City")))},
	} {
		if _, _, err := sources.Load(); !errors.Is(err, ErrUnusable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, _, err := (Sources{Table: "/nonexistent"}).Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{
		"prefix,lat,lon\n":                                               "column country is missing",
		"prefix,lat,lon,country,town\n":                                  `unknown column "town"`,
		"prefix,lat,lon,country\n10.0.0.1/8,1,1,SG\n":                    "line 2: prefix",
		"prefix,lat,lon,country\n10.0.0.0/8,91,1,SG\n":                   `line 2: lat: "91"`,
		"prefix,lat,lon,country\n10.0.0.0/8,1,1,XX\n":                    `line 2: country: "XX"`,
		"prefix,lat,lon,country\n10.0.0.0/8,,,\n":                        "neither",
		"prefix,lat,lon,country\n10.0.0.0/8,,1,SG\n":                     `lat: ""`,
		"prefix,lat,lon,country,asn\n10.0.0.0/8,1,1,SG,x\n":              `asn: "x"`,
		"prefix,lat,lon,country\n10.0.0.0/8,1,1,SG\n10.0.0.0/8,1,1,SG\n": "line 3: 10.0.0.0/8 stands in line 2 already",
	} {
		if _, err := ReadTable(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add("prefix,lat,lon,country,city,asn\n3.0.0.0/20,1.29,103.85,SG,Singapore,\n3.0.0.0/24,1,1,DE,,1\n::/0,1,1,JP,,\n")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := ReadTable(strings.NewReader(text))
		if err != nil {
			return
		}
		atlas, err := router.NewAtlas(table0{}, table)
		if err != nil {
			t.Fatal(err)
		}
		compiled := tableOf(t, atlas)
		for prefix, place := range table.Networks() {
			if place.ASN == 0 {
				continue
			}
			if _, got := compiled.Location(prefix.Addr()); got == nil {
				t.Errorf("%v: nothing is known", prefix)
			}
		}
	})
}

// table0 is a geo database that knows nothing.
type table0 struct{}

func (table0) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(func(netip.Prefix, *router.Place) bool) {}
}

func tableOf(t *testing.T, atlas *router.Atlas) *router.Table {
	t.Helper()
	table, err := router.Compile(&topology.Snapshot{Topology: &topology.Topology{}}, atlas, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func ipNet(t *testing.T, prefix string) *net.IPNet {
	t.Helper()
	_, network, err := net.ParseCIDR(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return network
}
