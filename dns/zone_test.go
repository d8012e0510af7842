package dns

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// furnished is the example world with records of every kind, and a zone below it.
func furnished() *topology.Topology {
	world := example()
	zone := *world.Zones[zoneName]
	zone.Records = []string{
		"@ MX 10 mail",
		"@ TXT \"hello\"",
		"mail 300 A 192.0.2.25",
		"mail 300 AAAA 2001:db8::25",
		"www CNAME intake",
		"out CNAME www.example.com.",
		"chain CNAME www",
		"loop CNAME pool",
		"pool CNAME loop",
		"dangling CNAME nobody",
		"*.wild TXT \"wild\"",
		"deep.in.wild A 192.0.2.1",
		"*.alias CNAME mail",
		"a.b.c A 192.0.2.2",
		"sub NS ns.sub",
		"sub NS ns.example.com.",
		"ns.sub A 192.0.2.53",
		"safe NS ns.example.com.",
		"safe DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
		"odd TYPE65280 \\# 4 0A000001",
		"MiXeD A 192.0.2.3",
	}
	world.Zones[zoneName] = &zone
	child := zone
	child.Records = []string{"@ TXT \"child\""}
	child.Nameservers = map[string][]netip.Addr{"ns.child." + zoneName: {netip.MustParseAddr("192.0.2.54")}}
	world.Zones["child."+zoneName] = &child
	return world
}

// signed returns a server of a topology whose zones are signed, and whose time stands still.
func signed(t testing.TB, world *topology.Topology, verdicts health.Verdicts, zones ...string) *Server {
	t.Helper()
	return signedAt(t, func() time.Time { return time.Unix(1_800_000_000, 0) }, world, verdicts, zones...)
}

func signedAt(t testing.TB, clock func() time.Time, world *topology.Topology, verdicts health.Verdicts, zones ...string) *Server {
	t.Helper()
	var keys []*dnssec.Key
	now := clock()
	snap := &topology.Snapshot{Revision: 7, Good: 7, Topology: world, Signing: map[string]*topology.Signing{}, Signed: 6}
	for _, zone := range zones {
		signing := &topology.Signing{Schema: 1}
		for _, role := range []topology.KeyRole{topology.KSK, topology.ZSK} {
			key, err := dnssec.Generate(zone, role, dns.ECDSAP256SHA256)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
			signing.Keys = append(signing.Keys, key.Public(topology.KeyActive, now))
		}
		snap.Signing[zone] = signing
	}
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	live := router.NewLive(atlas)
	if err := live.Topology(snap, now); err != nil {
		t.Fatal(err)
	}
	live.Verdicts(verdicts, now)
	s := New(Config{Log: slog.New(slog.DiscardHandler), Now: clock})
	s.Configure(Settings{Keys: dnssec.NewKeyring(keys...), ExplainTo: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	live.Prepare(s.Prepare)
	live.Follow(s.Publish)
	if problems := s.Problems(); len(problems) > 0 {
		t.Fatal(problems)
	}
	return s
}

// lines are the records of a message, short, with the sections before the second behind a slash.
func lines(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		words = append(words, "aa")
	}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			name := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(rr.Header().Name), zoneName+"."), ".")
			data := strings.Fields(strings.TrimPrefix(rr.String(), rr.Header().String()))
			switch r := rr.(type) {
			case *dns.SOA:
				data = nil
			case *dns.RRSIG:
				data = []string{dns.TypeToString[r.TypeCovered]}
			case *dns.NSEC:
				data = data[1:]
			case *dns.RFC3597:
				data = []string{r.Rdata}
			}
			words = append(words, strings.Repeat("/", i)+strings.Join(append([]string{name, dns.Type(rr.Header().Rrtype).String()}, data...), ","))
		}
	}
	return strings.Join(words, " ")
}

func TestZoneContents(t *testing.T) {
	plain, withKeys := serve(t, furnished(), nil), signed(t, furnished(), nil, zoneName)
	for _, test := range []struct {
		name   string
		qtype  uint16
		want   string // without signatures
		signed string // with, and with CO; what is empty is not asked
		co     string
	}{
		{"", dns.TypeMX, "NOERROR aa ,MX,10,mail.isochrone.test.", "NOERROR aa ,MX,10,mail.isochrone.test. ,RRSIG,MX", ""},
		{"mixed", dns.TypeA, "NOERROR aa mixed,A,192.0.2.3", "NOERROR aa mixed,A,192.0.2.3 mixed,RRSIG,A", ""},
		{"odd", 65280, `NOERROR aa odd,TYPE65280,0a000001`, "", ""},
		{"mail", dns.TypeTXT, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /mail,NSEC,A,AAAA,RRSIG,NSEC /mail,RRSIG,NSEC", ""},
		{"nobody", dns.TypeA, "NXDOMAIN aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /nobody,NSEC,RRSIG,NSEC,NXNAME /nobody,RRSIG,NSEC", "NXDOMAIN aa /,SOA /,RRSIG,SOA /nobody,NSEC,RRSIG,NSEC,NXNAME /nobody,RRSIG,NSEC"},
		{"b.c", dns.TypeA, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /b.c,NSEC,RRSIG,NSEC /b.c,RRSIG,NSEC", ""},
		{"x.wild", dns.TypeTXT, `NOERROR aa x.wild,TXT,"wild"`, `NOERROR aa x.wild,TXT,"wild" x.wild,RRSIG,TXT`, ""},
		{"x.y.wild", dns.TypeTXT, `NOERROR aa x.y.wild,TXT,"wild"`, `NOERROR aa x.y.wild,TXT,"wild" x.y.wild,RRSIG,TXT`, ""},
		{"x.wild", dns.TypeA, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /x.wild,NSEC,TXT,RRSIG,NSEC /x.wild,RRSIG,NSEC", ""},
		{"in.wild", dns.TypeTXT, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /in.wild,NSEC,RRSIG,NSEC /in.wild,RRSIG,NSEC", ""},
		{"x.in.wild", dns.TypeTXT, "NXDOMAIN aa /,SOA", "", ""},
		{"*.wild", dns.TypeTXT, `NOERROR aa *.wild,TXT,"wild"`, `NOERROR aa *.wild,TXT,"wild" *.wild,RRSIG,TXT`, ""},
		{"x.alias", dns.TypeA, "NOERROR aa x.alias,CNAME,mail.isochrone.test. mail,A,192.0.2.25", "NOERROR aa x.alias,CNAME,mail.isochrone.test. x.alias,RRSIG,CNAME mail,A,192.0.2.25 mail,RRSIG,A", ""},
		{"chain", dns.TypeA, "NOERROR aa chain,CNAME,www.isochrone.test. www,CNAME,intake.isochrone.test. intake,A,203.0.113.1", "", ""},
		{"out", dns.TypeA, "NOERROR aa out,CNAME,www.example.com.", "", ""},
		{"out", dns.TypeCNAME, "NOERROR aa out,CNAME,www.example.com.", "", ""},
		{"dangling", dns.TypeA, "NXDOMAIN aa dangling,CNAME,nobody.isochrone.test. /,SOA", "NOERROR aa dangling,CNAME,nobody.isochrone.test. dangling,RRSIG,CNAME /,SOA /,RRSIG,SOA /nobody,NSEC,RRSIG,NSEC,NXNAME /nobody,RRSIG,NSEC", ""},
		{"sub", dns.TypeA, "NOERROR /sub,NS,ns.sub.isochrone.test. /sub,NS,ns.example.com. //ns.sub,A,192.0.2.53", "NOERROR /sub,NS,ns.sub.isochrone.test. /sub,NS,ns.example.com. /sub,NSEC,NS,RRSIG,NSEC /sub,RRSIG,NSEC //ns.sub,A,192.0.2.53", ""},
		{"ns.sub", dns.TypeA, "NOERROR /sub,NS,ns.sub.isochrone.test. /sub,NS,ns.example.com. //ns.sub,A,192.0.2.53", "", ""},
		{"x.safe", dns.TypeA, "NOERROR /safe,NS,ns.example.com.", "NOERROR /safe,NS,ns.example.com. /safe,DS,12345,13,2,0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF /safe,RRSIG,DS", ""},
		{"safe", dns.TypeDS, "NOERROR aa safe,DS,12345,13,2,0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF", "", ""},
		{"sub", dns.TypeDS, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /sub,NSEC,NS,RRSIG,NSEC /sub,RRSIG,NSEC", ""},
		{"child", dns.TypeTXT, `NOERROR aa child,TXT,"child"`, "", ""},
		{"x.child", dns.TypeTXT, "NXDOMAIN aa /child,SOA", "", ""},
		{"child", dns.TypeNS, "NOERROR aa child,NS,ns.child.isochrone.test. //ns.child,A,192.0.2.54", "", ""},
		{"child", dns.TypeDS, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /child,NSEC,NS,RRSIG,NSEC /child,RRSIG,NSEC", ""},
		{"mail", typeNXNAME, "FORMERR", "", ""},
		{"mail", dns.TypeNSEC, "NOERROR aa /,SOA", "NOERROR aa mail,NSEC,A,AAAA,RRSIG,NSEC mail,RRSIG,NSEC", ""},
		{"mail", dns.TypeRRSIG, "NOERROR aa /,SOA", "NOERROR aa mail,RRSIG,NSEC", ""},
		{"explain.intake", dns.TypeA, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /explain.intake,NSEC,TXT,RRSIG,NSEC /explain.intake,RRSIG,NSEC", ""},
		{"intake", dns.TypeTXT, "NOERROR aa /,SOA", "NOERROR aa /,SOA /,RRSIG,SOA /intake,NSEC,A,AAAA,RRSIG,NSEC,HTTPS /intake,RRSIG,NSEC", ""},
		{"intake", dns.TypeA, "NOERROR aa intake,A,203.0.113.1", "NOERROR aa intake,A,203.0.113.1 intake,RRSIG,A", ""},
	} {
		name := strings.TrimPrefix(test.name+"."+zoneName, ".")
		for _, one := range []struct {
			s      *Server
			do, co bool
			want   string
		}{{plain, false, false, test.want}, {plain, true, false, test.want}, {withKeys, false, false, test.want}, {withKeys, true, false, test.signed}, {withKeys, true, true, test.co}} {
			if one.want == "" || one.s == withKeys && !one.do && test.qtype >= dns.TypeRRSIG && test.qtype <= dns.TypeNSEC {
				continue
			}
			m := query(name, test.qtype, "192.0.2.0/24")
			m.IsEdns0().SetDo(one.do)
			m.IsEdns0().SetCo(one.co)
			got := ask(t, one.s, m, "127.0.0.1")
			if got := lines(got); got != one.want {
				t.Errorf("%s %s, signed %v, DO %v, CO %v:\ngot  %s\nwant %s", name, dns.Type(test.qtype), one.s == withKeys, one.do, one.co, got, one.want)
			}
			if scope := scopeOf(got); scope != 0 && test.name != "intake" && test.name != "chain" {
				t.Errorf("%s %s: got scope %d, want 0", name, dns.Type(test.qtype), scope)
			}
			if one.do && one.s == withKeys {
				verify(t, one.s, got)
			}
		}
	}
}

func scopeOf(m *dns.Msg) uint8 {
	for _, o := range m.IsEdns0().Option {
		if e, ok := o.(*dns.EDNS0_SUBNET); ok {
			return e.SourceScope
		}
	}
	return 0
}

// verify checks all signatures of an answer against the zone's keys.
func verify(t *testing.T, s *Server, m *dns.Msg) {
	t.Helper()
	keys := map[uint16]*dns.DNSKEY{}
	for _, rr := range s.serving.Load().index.zones[wireName(zoneName+".")].signer.DNSKEY() {
		keys[rr.(*dns.DNSKEY).KeyTag()] = rr.(*dns.DNSKEY)
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			signature, ok := rr.(*dns.RRSIG)
			if !ok {
				continue
			}
			var set []dns.RR
			for _, rr := range section {
				if rr.Header().Rrtype == signature.TypeCovered && strings.EqualFold(rr.Header().Name, signature.Hdr.Name) {
					set = append(set, rr)
				}
			}
			if len(set) == 0 && m.Question[0].Qtype == dns.TypeRRSIG {
				continue
			}
			if err := signature.Verify(keys[signature.KeyTag], set); err != nil || !signature.ValidityPeriod(s.now()) {
				t.Errorf("%v: %v", signature, err)
			}
		}
	}
}
