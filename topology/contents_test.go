package topology

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zoneWith is a zone of the example world with records.
func zoneWith(records ...string) *Zone {
	return &Zone{
		Schema: SchemaVersion, Nameservers: map[string][]netip.Addr{"ns1.isochrone.test": {netip.MustParseAddr("192.0.2.53")}},
		Hostmaster: "hostmaster.isochrone.test", TTL: Duration(time.Hour), NegativeTTL: Duration(time.Minute), Records: records,
	}
}

// recordFaults are the faults of records in the zone of the example world.
func recordFaults(records ...string) string {
	x := example()
	x.Zones[ExampleZone] = zoneWith(records...)
	faults := append(checkObject(Ref{Zones, ExampleZone}, x.Zones[ExampleZone]), x.Validate()...)
	var lines []string
	for _, f := range faults {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

func TestRecordsThatMayStand(t *testing.T) {
	for _, records := range [][]string{
		{"@ MX 10 mail", "@ TXT \"v=spf1 mx -all\"", "@ CAA 0 issue \"ca.example\"", "mail A 192.0.2.1", "mail AAAA 2001:db8::1"},
		{"intake TXT hello", "intake MX 10 mail", "intake CAA 0 issue \";\"", "sin1.intake TXT here", "explain.intake TXT it"},
		{"* A 192.0.2.1", "*.a TXT x", "a.*.b TXT inner", "*.intake A 192.0.2.1", "c CNAME elsewhere.example."},
		{"sub NS ns.sub", "sub NS ns.example.org.", "ns.sub A 192.0.2.9", "sub DS 1 13 2 " + strings.Repeat("ab", 32)},
		{"sub NS sub", "sub A 192.0.2.9"},
		{`x TYPE999 \# 3 010203`, `x TYPE998 \# 0`, `n NULL \# 0`, `w TYPE11 \# 6 c00002010600`},
		{"MiXeD A 192.0.2.1", "t 0 TXT x", "u 604800 TXT x"},
		{"none MX 0 .", "_x._tcp SRV 0 0 0 ."},
		{`a\.isochrone.test. TXT x`, `\$dollar TXT x`, `a\.b.c TXT x`},
		{"mx MX 65 a.example.", "mx MX 97 a.example.", "t TXT a", "t TXT A"},
	} {
		want := ""
		if slices.ContainsFunc(records, func(r string) bool { return strings.HasPrefix(r, `a\.iso`) }) {
			want = `does not lie in the zone` // the dot is within a label
		}
		if got := recordFaults(records...); got != want && (want == "" || strings.Count(got, want) != 1) {
			t.Errorf("%q: got %s", records, got)
		}
	}
}

func TestRecordsThatMayNot(t *testing.T) {
	long := strings.Repeat(`"`+strings.Repeat("x", 255)+`" `, 250)
	for _, test := range []struct {
		want    string
		records []string
	}{
		{`records[1]: "www A 192.0.2.300": is no record: bad A A: "192.0.2.300" at column`, []string{"ok TXT x", "www A 192.0.2.300"}},
		{"is not one line with an owner's name in front", []string{" A 192.0.2.1"}},
		{"is not one line with an owner's name in front", []string{"$TTL 5"}},
		{"is not one line with an owner's name in front", []string{"a A 192.0.2.1\nb A 192.0.2.1"}},
		{"is not one line with an owner's name in front", []string{"($GENERATE 1-3 a$ A 192.0.2.1 )"}},
		{"has no owner's name in front", []string{"( A 192.0.2.1 )"}},
		{"unbalanced brace", []string{"a A ( 192.0.2.1"}},
		{"is no record", []string{"; a remark"}},
		{"has no data", []string{"a A"}},
		{"has no data", []string{`a A \# 0`}},
		{"is not of class IN", []string{"a CH TXT x"}},
		{"www.example.org does not lie in the zone", []string{"www.example.org. A 192.0.2.1"}},
		{"longer than 604800 s", []string{"a 604801 A 192.0.2.1"}},
		{"set hostmaster, ttl and negative_ttl", []string{"@ SOA a b 1 2 3 4 5"}},
		{"set nameservers", []string{"@ NS ns2"}},
		{"DS records of a zone stand in the zone above", []string{"@ DS 1 13 2 " + strings.Repeat("ab", 32)}},
		{"makes NSEC records when it signs", []string{"a NSEC b A"}},
		{"makes DNSKEY records when it signs", []string{"@ DNSKEY 257 3 13 AAAA"}},
		{"makes RRSIG records", []string{`a RRSIG \# 0`}},
		{"DNAME is not supported", []string{"a DNAME b"}},
		{"KEY is obsolete", []string{`a KEY 256 3 13 AAAA`}},
		{"TYPE200", []string{`a TYPE200 \# 0`}},
		{"not a type of data", []string{`a TYPE200 \# 0`}},
		{"ZONEMD record is about one serial", []string{`@ ZONEMD 1 1 1 ` + strings.Repeat("ab", 48)}},
		{"is the same as records[0]", []string{"a A 192.0.2.1", `\097 3600 IN A 192.0.2.1`}},
		{"is the same as records[0]", []string{"a MX 10 Mail", "A MX 10 mail"}},
		{"want one for the set (RFC 2181 section 5.2)", []string{"a 60 A 192.0.2.1", "a 61 A 192.0.2.2"}},
		{"has 2 CNAME records", []string{"a CNAME b", "a CNAME c"}},
		{"a CNAME stands alone", []string{"a CNAME b", "a TXT c"}},
		{"has SOA and NS records, and so no CNAME", []string{"@ CNAME b"}},
		{"take more than", []string{"a TXT " + long, "a TXT " + long + "y"}},
		{"do not fit a record", []string{"a TXT " + long + long}},
		{"lies below the delegation of sub.isochrone.test", []string{"sub NS ns.example.", "a.sub TXT x"}},
		{"is delegated: only NS, DS", []string{"sub NS ns.example.", "sub MX 0 ."}},
		{"is delegated, and no name server", []string{"sub NS ns.example.", "sub A 192.0.2.1"}},
		{"needs the addresses of ns.sub.isochrone.test (glue)", []string{"sub NS ns.sub"}},
		{"a wildcard cannot be delegated", []string{"*.x NS ns.example."}},
		{"DS stands beside NS", []string{"sub DS 1 13 2 " + strings.Repeat("ab", 32)}},
		{"points to c.isochrone.test, which is an alias", []string{"c CNAME d", "@ MX 10 c"}},
		{"points to c.isochrone.test, which is an alias", []string{"c CNAME d", "_x._tcp SRV 0 0 1 c"}},
		{"points to c.isochrone.test, which is an alias", []string{"c CNAME d", "sub NS c"}},
		{"no A can stand there", []string{"intake A 192.0.2.1"}},
		{"no HTTPS can stand there", []string{"intake HTTPS 1 ."}},
		{"no CNAME can stand there", []string{"sin1.intake CNAME x"}},
		{"no AAAA can stand there", []string{"explain.intake AAAA 2001:db8::1"}},
		{"no NS can stand there", []string{"intake NS ns.example."}},
		{"stand in zones.isochrone.test.nameservers already", []string{"ns1 A 192.0.2.53"}},
		{"which cannot be an alias", []string{"ns1 CNAME x"}},
		{"delegates ns1.isochrone.test, and with it name server", []string{"ns1 NS ns.example."}},
	} {
		if got := recordFaults(test.records...); !strings.Contains(got, test.want) || !strings.Contains(got, "zones.isochrone.test.records[") {
			t.Errorf("%.80q: got %.300s\nwant %s", test.records, got, test.want)
		}
	}
}

func TestNamesAcrossZones(t *testing.T) {
	for _, test := range []struct {
		name, want string
		change     func(*Topology)
	}{
		{"child without NS above", "", func(x *Topology) { x.Zones["sub.isochrone.test"] = child() }},
		{"DS of a child", "", func(x *Topology) {
			x.Zones["sub.isochrone.test"] = child()
			x.Zones[ExampleZone] = zoneWith("sub DS 1 13 2 " + strings.Repeat("ab", 32))
		}},
		{"data of a child in the zone above", "www.sub.isochrone.test lies in zone sub.isochrone.test, which is served too", func(x *Topology) {
			x.Zones["sub.isochrone.test"] = child()
			x.Zones[ExampleZone] = zoneWith("www.sub TXT x")
		}},
		{"alias in another zone", "points to a.example.net, which is an alias", func(x *Topology) {
			x.Zones["example.net"] = child("a CNAME b")
			x.Zones[ExampleZone] = zoneWith("@ MX 10 a.example.net.")
		}},
		{"server in another zone has its addresses there", "", func(x *Topology) {
			x.Zones["example.net"] = child("ns1 A 192.0.2.1")
			x.Zones[ExampleZone].Nameservers = map[string][]netip.Addr{"ns1.example.net": nil}
		}},
		{"server in another zone has its addresses twice", "want them in one place", func(x *Topology) {
			x.Zones["example.net"] = child("ns1 A 192.0.2.1")
			x.Zones[ExampleZone].Nameservers = map[string][]netip.Addr{"ns1.example.net": {netip.MustParseAddr("192.0.2.1")}}
		}},
		{"zone at a PoP's name", "sin1.intake.isochrone.test is a name of this service, and a zone too", func(x *Topology) {
			x.Zones["sin1.intake.isochrone.test"] = child()
		}},
		{"delegation above a service", "delegates deep.isochrone.test, and with it service intake.deep.isochrone.test", func(x *Topology) {
			x.Services["intake.deep.isochrone.test"] = x.Services[ExampleService]
			x.Zones[ExampleZone] = zoneWith("deep NS ns.example.")
		}},
		{"long service name", "with the name of PoP sin1 it is longer than the 253 characters", func(x *Topology) {
			x.Services[strings.Repeat(strings.Repeat("a", 58)+".", 4)+ExampleZone] = x.Services[ExampleService]
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := example()
			test.change(x)
			if got := fmt.Sprint(x.Validate()); !strings.Contains(got, test.want) || test.want == "" && got != "[]" {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
		})
	}
	if _, faults := ParseObject(Ref{PoPs, "explain"}, []byte("schema: 1\nlocation: {country: SG}\n")); !strings.Contains(fmt.Sprint(faults), "reserved") {
		t.Errorf("a PoP named explain: got %v", faults)
	}
}

// child is a zone whose name servers are elsewhere.
func child(records ...string) *Zone {
	z := zoneWith(records...)
	z.Nameservers = map[string][]netip.Addr{"ns.example.org": nil}
	return z
}

func TestRecordsAreKeptParsed(t *testing.T) {
	z := zoneWith("www A 192.0.2.1", "www AAAA 2001:db8::1")
	if got := z.Parsed(ExampleZone); len(got) != 2 || got[0].Header().Name != "www.isochrone.test." || got[0].Header().Ttl != 3600 {
		t.Errorf("made by a program: got %v", got)
	}
	o, faults := ParseObject(Ref{Zones, ExampleZone}, MarshalValue(z))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	z = o.(*Zone)
	if first, second := z.Parsed(ExampleZone), z.Parsed(ExampleZone); &first[0] != &second[0] {
		t.Error("of a document, they are parsed again")
	}
	if z.Records[0] = "ftp A 192.0.2.1"; z.Parsed(ExampleZone)[0].Header().Name != "ftp.isochrone.test." {
		t.Error("a change goes unseen")
	}
}

func TestFaultsOfRecordsHaveLines(t *testing.T) {
	_, err := Parse([]byte("schema: 1\nzones:\n  example.net:\n    hostmaster: h.example.net\n    nameservers: {ns.example.org: []}\n" +
		"    records:\n    - a A 192.0.2.1\n    - a A x\n    - c CNAME a\n    - c CNAME b\n"))
	for _, want := range []string{`line 8: zones.example.net.records[1]: "a A x": is no record`, "line 9: zones.example.net.records[2]: \"c CNAME a\": c.example.net has 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func BenchmarkRecords(b *testing.B) {
	lines := make([]string, 100_000)
	for i := range lines {
		lines[i] = fmt.Sprintf("host%d A 10.%d.%d.%d", i, i>>16, i>>8&255, i&255)
	}
	z := zoneWith(lines...)
	b.ReportAllocs()
	for b.Loop() {
		z.contents(ExampleZone)
	}
}

// TestZonesAsDocumented reads the zone of docs/zones.md.
func TestZonesAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/zones.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	x, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if faults := x.Validate(); len(faults) > 0 || len(x.Zones["example.net"].Parsed("example.net")) != 12 {
		t.Errorf("got %v, %v", x.Zones["example.net"].Parsed("example.net"), faults)
	}
}

func FuzzRecords(f *testing.F) {
	for _, lines := range []string{
		"a A 192.0.2.1\nb CNAME a\n", "( A 192.0.2.1 )", "sub NS ns.sub\nns.sub A 192.0.2.1\n*.x NS y", `\$a TYPE999 \# 0`, "a\\.b.c TXT x",
		"@ MX 10 \\097\nA CNAME b", ". A 192.0.2.1\n* TXT x", "a 4294967295 A 192.0.2.1",
	} {
		f.Add(lines)
	}
	f.Fuzz(func(t *testing.T, text string) {
		x := example()
		lines := strings.Split(text, "\n")
		x.Zones[ExampleZone] = zoneWith(lines...)
		x.Zones["sub.isochrone.test"] = child(lines...)
		faults := append(checkObject(Ref{Zones, ExampleZone}, x.Zones[ExampleZone]), x.Validate()...)
		parsed := x.Zones[ExampleZone].Parsed(ExampleZone)
		if len(faults) == 0 && len(parsed) != len(lines) {
			t.Errorf("%d lines are valid, %d records are there", len(lines), len(parsed))
		}
		for i, rr := range parsed {
			if _, err := dns.PackRR(rr, make([]byte, 66_000), 0, nil, false); err != nil && len(faults) == 0 {
				t.Errorf("%s is valid, and does not fit a message: %v", lines[i], err)
			}
		}
	})
}
