package topology

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

const bindFile = `$TTL 1h
$ORIGIN example.net.
@	IN	SOA	ns1 hostmaster (
		2026010101 ; serial
		3600 900 604800
		300 )
	IN	NS	ns1
	IN	NS	ns.example.org.
	IN	MX	10 Mail
	IN	TXT	"v=spf1 mx -all" "more; of it"
ns1	IN	A	192.0.2.53
	IN	AAAA	2001:db8::53
mail 300 IN A	192.0.2.1
mail 300 IN A	192.0.2.1
www	CNAME	mail
_sip._tcp SRV	0 5 5060 mail
$ORIGIN sub.example.net.
@	NS	ns
ns	A	192.0.2.7
@	RRSIG	NS 13 3 3600 20300101000000 20200101000000 1 example.net. AAAA
@	NSEC	www.example.net. NS RRSIG
x	TYPE999	\# 2 abcd
`

func TestReadZoneFile(t *testing.T) {
	file := strings.Replace(bindFile, "x\tTYPE999", "x.example.net.\tTYPE999", 1)
	f, err := ReadZoneFile("example.net", []byte(file), ZoneFileOptions{Name: "db.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Check(); err != nil {
		t.Error(err)
	}
	if got, want := string((&Topology{Zones: map[string]*Zone{"example.net": f.Zone}}).Marshal()), `schema: 1
zones:
  example.net:
    schema: 1
    nameservers:
      ns.example.org: []
      ns1.example.net:
        - 192.0.2.53
        - 2001:db8::53
    hostmaster: hostmaster.example.net
    ttl: 1h0m0s
    negative_ttl: 5m0s
    records:
      - '@ MX 10 mail'
      - '@ TXT "v=spf1 mx -all" "more; of it"'
      - mail 300 A 192.0.2.1
      - www CNAME mail
      - _sip._tcp SRV 0 5 5060 mail
      - sub NS ns.sub
      - ns.sub A 192.0.2.7
      - x TYPE999 \# 2 abcd
`; got != want {
		t.Error(cmp.Diff(want, got))
	}
	if f.Signer != 2 || f.Addresses != 2 || f.Twice != 1 || f.Kept["A"] != 2 || f.Kept["TYPE999"] != 1 {
		t.Errorf("got %+v", f)
	}
}

func TestZoneFileFaults(t *testing.T) {
	const apex = "$TTL 3600\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns.example.org.\n"
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"syntax", apex + "www A x\n", []string{"db:4: bad A A"}},
		{"no TTL", "@ SOA ns hostmaster 1 2 3 4 5\n", []string{"db:1: has no time to live", "$TTL 3600"}},
		{"empty", "", []string{"db: has no SOA record of example.net", "db: has no NS record"}},
		{"two SOA", apex + "@ SOA ns hostmaster 2 2 3 4 5\n", []string{"db:4: is a second SOA record"}},
		{"SOA below", apex + "a SOA ns hostmaster 2 2 3 4 5\n", []string{"db:4: is the SOA record of a.example.net"}},
		{"class", apex + "a CH TXT x\n", []string{"db:4: is of class CH"}},
		{"no owner", " 5 TXT x\n", []string{"db:1: has no owner's name"}},
		{"gdnsd", apex + "www 300/30 DYNA geo!x\nftp DYNC geo!y\n", []string{"db:4: DYNA and DYNC", "db:5: DYNA", "describe a service"}},
		{"generate", apex + "$GENERATE 1-5 a$ A 192.0.2.$\n", []string{"db:4: $GENERATE is not taken"}},
		{"generate, hidden", apex + "$GEN(ERATE 1-60000 a$ A 192.0.2.1 )\n", []string{"db:4: $GENERATE is not taken"}},
		{"include", apex + "$INCLUDE other\n", []string{"db:4: $INCLUDE is followed only if"}},
		{"several", apex + "a DNAME b\n\nb CNAME c (\n )\nb TXT x\nwww.example.org. A 192.0.2.1\n",
			[]string{`db:4: "a DNAME b.example.net.": DNAME is not supported`, `db:7: "b CNAME c": a CNAME stands alone at its name, and db:8`, `db:9: "www.example.org. A`}},
		{"glue", strings.Replace(apex, "NS ns.example.org.", "NS ns", 1), []string{"zones.example.net.nameservers.ns.example.net: has no address"}},
		{"no data at the end", apex + "a A", []string{`db:4: "a A": `}},
		{"hostmaster", strings.Replace(apex, " hostmaster ", ` host\.master `, 1), []string{"zones.example.net.hostmaster"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := ReadZoneFile("example.net", []byte(test.text), ZoneFileOptions{Name: "db"})
			if err == nil {
				err = f.Check()
			}
			for _, want := range test.want {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %s", err, want)
				}
			}
		})
	}
}

func TestZoneFileIncludes(t *testing.T) {
	files := fstest.MapFS{
		"zones/main":      {Data: []byte("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns.example.org.\n$INCLUDE parts/a sub\nlast TXT x\n")},
		"zones/parts/a":   {Data: []byte("one TXT 1\n$INCLUDE b\n\ntwo TXT 2\n")},
		"zones/parts/b":   {Data: []byte("three TXT 3\n")},
		"zones/loop":      {Data: []byte("$INCLUDE loop\n")},
		"zones/bad":       {Data: []byte("$INCLUDE parts/bad\n")},
		"zones/parts/bad": {Data: []byte("\n\nwww 5 A x\n")},
		"zones/missing":   {Data: []byte("\n$INCLUDE nowhere\n")},
		"zones/wide":      {Data: []byte(strings.Repeat("$INCLUDE wide\n", 100))},
	}
	read := func(name string) (*ZoneFile, error) {
		return ReadZoneFile("example.net", files["zones/"+name].Data, ZoneFileOptions{Name: name, Path: "/zones/" + name, Include: files})
	}
	f, err := read("main")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"one.sub TXT \"1\"", "three.sub TXT \"3\"", "two.sub TXT \"2\"", "last TXT \"x\""}
	if !slices.Equal(f.Zone.Records, want) {
		t.Errorf("got %q, want %q", f.Zone.Records, want)
	}
	at := []place{{"/zones/parts/a", 1}, {"/zones/parts/b", 1}, {"/zones/parts/a", 4}, {"main", 5}}
	if !slices.Equal(f.lines, at) {
		t.Errorf("lines: got %v, want %v", f.lines, at)
	}
	for name, want := range map[string]string{
		"loop": "too deeply nested", "bad": "/zones/parts/bad:3: bad A A", "missing": "missing:2: failed to open", "wide": "too deeply nested",
	} {
		if _, err := read(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestZoneFileKeepsWhatItDoesNotSay(t *testing.T) {
	base := zoneWith()
	base.Nameservers["ns.example.org"] = base.Nameservers["ns1.isochrone.test"]
	base.TTL = Duration(5 * time.Minute)
	f, err := ReadZoneFile(ExampleZone, []byte("$TTL 60\na A 192.0.2.1\nns1 A 192.0.2.54\n"), ZoneFileOptions{Name: "db", Base: base})
	if err != nil {
		t.Fatal(err)
	}
	if z := f.Zone; z.Hostmaster != base.Hostmaster || z.TTL != base.TTL || z.NegativeTTL != base.NegativeTTL || len(z.Nameservers["ns.example.org"]) != 1 ||
		len(z.Nameservers["ns1.isochrone.test"]) != 1 || z.Nameservers["ns1.isochrone.test"][0].String() != "192.0.2.54" ||
		base.Nameservers["ns1.isochrone.test"][0].String() != "192.0.2.53" {
		t.Errorf("got %+v", f.Zone)
	}
	f, err = ReadZoneFile(ExampleZone, []byte("$TTL 60\n@ NS ns.example.org.\n"), ZoneFileOptions{Name: "db", Base: base})
	if err != nil || len(f.Zone.Nameservers) != 1 || len(f.Zone.Nameservers["ns.example.org"]) != 1 || f.Zone.TTL != Duration(time.Minute) {
		t.Errorf("with NS records: got %+v, %v", f, err)
	}
}

func TestZoneFileBoundsTimes(t *testing.T) {
	f, err := ReadZoneFile("example.net", []byte("@ 0 SOA ns hostmaster 1 2 3 4 5\n@ 2592000 NS ns\nns 5 A 192.0.2.1\n"), ZoneFileOptions{Name: "db"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Zone.TTL != Duration(maxRecordTTL) || f.Zone.NegativeTTL != Duration(time.Second) || len(f.Notes) != 3 || f.Check() != nil {
		t.Errorf("got %+v, %v", f, f.Check())
	}
}

// exported is what a zone's file reads back as.
func exported(t *testing.T, zone string, z *Zone) *Zone {
	t.Helper()
	text := z.ZoneFile(zone)
	f, err := ReadZoneFile(zone, text, ZoneFileOptions{Name: "export"})
	if err == nil {
		err = f.Check()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return f.Zone
}

func TestZoneFileComesBack(t *testing.T) {
	z := zoneWith("@ MX 10 MAIL.isochrone.test. ; with a remark", "mail IN 300 A ( 192.0.2.1 )", `\097 TXT "a;b" c`, `\$x TXT d`, `u TYPE999 \# 1 ab`)
	z.NegativeTTL = Duration(2 * time.Hour)
	once := exported(t, ExampleZone, z)
	want := []string{"@ MX 10 mail", "mail 300 A 192.0.2.1", `a TXT "a;b" "c"`, `\$x TXT "d"`, `u TYPE999 \# 1 ab`}
	if !slices.Equal(once.Records, want) || once.NegativeTTL != z.NegativeTTL || once.TTL != z.TTL || once.Hostmaster != z.Hostmaster {
		t.Errorf("got %+v", once)
	}
	if twice := exported(t, ExampleZone, once); string(MarshalValue(twice)) != string(MarshalValue(once)) {
		t.Errorf("the second time: got %s", MarshalValue(twice))
	}
}

func FuzzReadZoneFile(f *testing.F) {
	const apex = "$TTL 3600\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"
	f.Add(bindFile)
	for _, line := range []string{
		"a TXT \"x\ny\" \\200", "\\$a TXT x", "\\@ A 192.0.2.2", "$ORIGIN \\046.\n", "a LOC 1 1 1 N 1 1 1 E 1m 1m 1m 1m", "a NAPTR 1 1 \"\" \"\" \"!x!\" .",
		"a HTTPS 1 . alpn=h3,h2 ipv4hint=192.0.2.1", "a CAA 0 issue \"x\\\"\"", "a URI 1 1 \"\\\\\"", "a APL 1:192.0.2.0/24", "a A", "\xff TXT \xfe", "a TYPE1 \\# 4 c0000201",
	} {
		f.Add(apex + line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read, err := ReadZoneFile("example.net", []byte(text), ZoneFileOptions{Name: "db"})
		if err != nil || read.Check() != nil {
			return
		}
		stored, faults := ParseObject(Ref{Zones, "example.net"}, MarshalValue(read.Zone))
		if len(faults) > 0 {
			t.Fatalf("what was read cannot be stored: %v", faults)
		}
		z := stored.(*Zone)
		for _, rr := range z.Parsed("example.net") {
			if _, err := dns.PackRR(rr, make([]byte, 66_000), 0, nil, false); err != nil {
				t.Errorf("%v: %v", rr, err)
			}
		}
		again := exported(t, "example.net", z)
		for host := range z.Nameservers { // what the file cannot say
			if !isBelow(host, "example.net") {
				again.Nameservers[host] = z.Nameservers[host]
			}
		}
		if got, want := string(MarshalValue(again)), string(MarshalValue(z)); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
	})
}
