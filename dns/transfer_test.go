package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// primary starts a server of signed zones whose time is the present, and returns where it listens. A service of it has no answer for
// those who know no clients.
func primary(t *testing.T) (*Server, string) {
	world := manifold()
	drained := *world.PoPs["nrt1"]
	drained.State = topology.Draining
	world.PoPs["nrt1"] = &drained
	zone := world.Zones[zoneName]
	zone.Records = append(zone.Records, "hidden.sub TXT occluded", "deep.child TXT occluded", "empty TXT \"beside nothing\"", "big TXT "+strings.Repeat("x", 250)+" "+strings.Repeat("y", 250))
	for range 200 { // so that a transfer takes several messages
		zone.Records = append(zone.Records, "n"+string(rune('a'+len(zone.Records)%26))+strings.Repeat("x", len(zone.Records)%60)+" TXT "+strings.Repeat("y", 40+len(zone.Records)%150))
	}
	s := signedAt(t, time.Now, world, nil, zoneName)
	settings := s.settings
	settings.TSIG = transferKeys()
	s.Configure(settings)
	return s, listen(t, s).String()
}

// transferOf transfers a zone, message by message.
func transferOf(t *testing.T, at string, m *dns.Msg, key TSIGKey) (messages [][]dns.RR, err error) {
	t.Helper()
	transfer := dns.Transfer{ReadTimeout: 20 * time.Second}
	if key.Name != "" {
		transfer.TsigSecret = map[string]string{key.Name: encoded(key.Secret)}
		m.SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
	}
	envelopes, err := transfer.In(m, at)
	if err != nil {
		t.Fatal(err)
	}
	for envelope := range envelopes {
		if envelope.Error != nil {
			return nil, envelope.Error
		}
		messages = append(messages, envelope.RR)
	}
	return messages, nil
}

func TestTransfer(t *testing.T) {
	s, at := primary(t)
	key := transferKeys()[2]
	messages, err := transferOf(t, at, new(dns.Msg).SetAxfr(dns.Fqdn(zoneName)), key)
	if err != nil || len(messages) < 3 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	records := slices.Concat(messages...)
	z := s.serving.Load().index.zones[wireName(zoneName+".")]
	checkTransferred(t, z, records)
	if _, err := transferOf(t, at, new(dns.Msg).SetAxfr(dns.Fqdn(zoneName)), TSIGKey{}); err == nil || !strings.Contains(err.Error(), "5") {
		t.Errorf("without a key: got %v, want REFUSED", err)
	}
	for _, test := range []struct {
		name, network string
		want          int
	}{
		{"example.com.", "tcp", dns.RcodeNotAuth}, {"example.com.", "udp", dns.RcodeRefused},
		{"mail." + zoneName + ".", "tcp", dns.RcodeNotAuth}, {zoneName + ".", "udp", dns.RcodeRefused},
	} {
		m := new(dns.Msg).SetAxfr(test.name).SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
		if answer, _ := exchange(t, test.network, at, key, m); answer.Rcode != test.want {
			t.Errorf("AXFR of %s over %s: got %s, want %s", test.name, test.network, dns.RcodeToString[answer.Rcode], dns.RcodeToString[test.want])
		}
	}
	for _, test := range []struct {
		network string
		serial  uint32
		want    int // records
	}{
		{"tcp", z.soa.Serial, 1}, {"udp", z.soa.Serial, 1},
		{"tcp", z.soa.Serial + 5, 1}, {"udp", z.soa.Serial + 5, 1},
		{"udp", z.soa.Serial - 1, 1}, {"tcp", z.soa.Serial - 1, len(records)},
	} {
		m := new(dns.Msg).SetIxfr(dns.Fqdn(zoneName), test.serial, "ns1."+zoneName+".", "x.").SetEdns0(1232, false)
		var got []dns.RR
		if test.want == 1 {
			answer, err := exchange(t, test.network, at, key, m.SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix()))
			if err != nil || answer.IsEdns0() == nil {
				t.Fatal(err, answer)
			}
			got = answer.Answer
		} else if messages, err = transferOf(t, at, m, key); err != nil {
			t.Fatal(err)
		} else {
			got = slices.Concat(messages...)
		}
		if len(got) != test.want || got[0].(*dns.SOA).Serial != z.soa.Serial {
			t.Errorf("IXFR over %s from %d, the zone has %d: got %d records, want %d", test.network, test.serial, z.soa.Serial, len(got), test.want)
		}
	}
}

// TestTransferOfMalformed asks for IXFR with an SOA record that cannot be read.
func TestTransferOfMalformed(t *testing.T) {
	s := serve(t, example(), nil)
	s.Configure(Settings{Transfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	record := append([]byte(wireOf("")), 0, 6, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 1)
	question := handmade(0, [4]byte{1, 0, 1, 0}, asked("", dns.TypeIXFR, 1), record)
	if got, want := told(s.Answer(question, netip.MustParseAddr("127.0.0.1"), TCP), question), "FORMERR 1/0/0/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// checkTransferred holds a transferred zone to what a secondary makes of it: record sets once, each with its signature, and a chain of
// NSEC records in canonical order that is closed and tells just what is there.
func checkTransferred(t *testing.T, z *zone, records []dns.RR) {
	t.Helper()
	if first, last := records[0], records[len(records)-1]; first.String() != z.soa.String() || last.String() != z.soa.String() {
		t.Fatalf("begins with %v and ends with %v, want %v", first, last, z.soa)
	}
	records = records[:len(records)-1]
	sets, seen := map[string]map[uint16][]dns.RR{}, map[string]bool{}
	var cuts []string
	for _, rr := range records {
		if seen[rr.String()] {
			t.Errorf("twice: %v", rr)
		}
		seen[rr.String()] = true
		name := rr.Header().Name
		if sets[name] == nil {
			sets[name] = map[uint16][]dns.RR{}
		}
		sets[name][rr.Header().Rrtype] = append(sets[name][rr.Header().Rrtype], rr)
		if rr.Header().Rrtype == dns.TypeNS && name != z.name {
			cuts = append(cuts, name)
		}
	}
	for _, want := range []string{"ns.sub", "hidden.sub", "ns.child", "deep.child"} {
		if sets[want+"."+z.name] == nil {
			t.Errorf("glue, or what a delegation hides, is missing: %s", want)
		}
	}
	keys := map[uint16]*dns.DNSKEY{}
	for _, rr := range sets[z.name][dns.TypeDNSKEY] {
		keys[rr.(*dns.DNSKEY).KeyTag()] = rr.(*dns.DNSKEY)
	}
	var owners []string
	for name, types := range sets {
		if below := slices.ContainsFunc(cuts, func(cut string) bool { return name != cut && dns.IsSubDomain(cut, name) }); below {
			if types[dns.TypeRRSIG] != nil || types[dns.TypeNSEC] != nil {
				t.Errorf("%s lies below a delegation and is signed", name)
			}
			continue
		}
		owners = append(owners, name)
		var present []uint16
		for rrtype, set := range types {
			cut := slices.Contains(cuts, name)
			if !cut || rrtype == dns.TypeNS || rrtype == dns.TypeDS || rrtype == dns.TypeRRSIG || rrtype == dns.TypeNSEC {
				present = append(present, rrtype)
			}
			if rrtype != dns.TypeRRSIG && !(cut && rrtype != dns.TypeDS && rrtype != dns.TypeNSEC) {
				checkSignature(t, keys, set, types[dns.TypeRRSIG])
			}
		}
		slices.Sort(present)
		if len(types[dns.TypeNSEC]) != 1 {
			t.Errorf("%s has %d NSEC records", name, len(types[dns.TypeNSEC]))
			continue
		}
		if diff := cmp.Diff(present, types[dns.TypeNSEC][0].(*dns.NSEC).TypeBitMap); diff != "" {
			t.Errorf("%s has (-) and its NSEC record tells (+):\n%s", name, diff)
		}
	}
	slices.SortFunc(owners, func(a, b string) int { return compareNames(wireName(a), wireName(b)) })
	for i, name := range owners {
		if nsec := sets[name][dns.TypeNSEC]; nsec != nil && nsec[0].(*dns.NSEC).NextDomain != owners[(i+1)%len(owners)] {
			t.Errorf("%s is followed by %s in the chain, want %s", name, nsec[0].(*dns.NSEC).NextDomain, owners[(i+1)%len(owners)])
		}
	}
	if owners[0] != z.name {
		t.Errorf("the chain begins at %s", owners[0])
	}
	if len(sets["empty."+z.name][dns.TypeA]) != 0 {
		t.Error("the test wants a steered name without a default answer")
	}
}

// checkSignature wants one good signature of a record set.
func checkSignature(t *testing.T, keys map[uint16]*dns.DNSKEY, set, signatures []dns.RR) {
	t.Helper()
	found := 0
	for _, rr := range signatures {
		signature := rr.(*dns.RRSIG)
		if signature.TypeCovered != set[0].Header().Rrtype {
			continue
		}
		found++
		if err := signature.Verify(keys[signature.KeyTag], set); err != nil || !signature.ValidityPeriod(time.Now()) {
			t.Errorf("%v: %v", signature, err)
		}
	}
	if found != 1 {
		t.Errorf("%v has %d signatures", set[0], found)
	}
}
