package dns

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// transferKeys are keys of all algorithms; the last two have one name.
func transferKeys() (keys []TSIGKey) {
	for i, algorithm := range []string{dns.HmacSHA1, dns.HmacSHA224, dns.HmacSHA256, dns.HmacSHA384, dns.HmacSHA512} {
		keys = append(keys, TSIGKey{Name: strings.Split(algorithm, ".")[0] + ".key.", Algorithm: algorithm, Secret: []byte(strings.Repeat(string(rune('a'+i)), 32))})
	}
	return append(keys, TSIGKey{Name: "twice.", Algorithm: dns.HmacSHA256, Secret: []byte("old")}, TSIGKey{Name: "twice.", Algorithm: dns.HmacSHA256, Secret: []byte("new")})
}

func encoded(secret []byte) string { return base64.StdEncoding.EncodeToString(secret) }

// primary starts a server of signed zones whose time is the present, and returns where it listens. A service of it has no answer for
// those who know no clients.
func primary(t *testing.T) (*Server, string) {
	world := manifold()
	drained := *world.PoPs["nrt1"]
	drained.State = topology.Draining
	world.PoPs["nrt1"] = &drained
	zone := world.Zones[zoneName]
	zone.Records = append(zone.Records, "hidden.sub TXT occluded", "deep.child TXT occluded", "big TXT "+strings.Repeat("x", 250)+" "+strings.Repeat("y", 250))
	for range 200 { // so that a transfer takes several messages
		zone.Records = append(zone.Records, "n"+string(rune('a'+len(zone.Records)%26))+strings.Repeat("x", len(zone.Records)%60)+" TXT "+strings.Repeat("y", 40+len(zone.Records)%150))
	}
	s := signedAt(t, time.Now, world, nil, zoneName)
	settings := s.settings
	settings.TSIG = transferKeys()
	s.Configure(settings)
	return s, listen(t, s).String()
}

// exchange asks a server; the error may be that the answer's signature does not verify.
func exchange(t *testing.T, network, at string, key TSIGKey, m *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 5 * time.Second, TsigSecret: map[string]string{key.Name: encoded(key.Secret)}}
	answer, _, err := client.Exchange(m, at)
	if answer == nil {
		t.Fatalf("%s over %s: %v", key.Name, network, err)
	}
	return answer, err
}

func TestTSIG(t *testing.T) {
	_, at := primary(t)
	keys := transferKeys()
	good := keys[2]
	question := func(key TSIGKey, signed time.Time) *dns.Msg {
		m := query(zoneName, dns.TypeSOA, "192.0.2.0/24")
		m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
		return m.SetTsig(key.Name, key.Algorithm, 300, signed.Unix())
	}
	sockets := newSocket(t, netip.MustParseAddrPort(at))
	send := map[string]func([]byte) []byte{"udp": sockets.overUDP, "tcp": sockets.overTCP}
	for network := range send {
		for _, key := range keys {
			answer, err := exchange(t, network, at, key, question(key, time.Now()))
			if err != nil || answer.Rcode != 0 || answer.IsTsig() == nil || answer.IsTsig().Error != 0 || len(answer.Answer) != 1 || answer.IsEdns0() == nil {
				t.Errorf("%s over %s: %v\n%v", key.Name, network, err, answer)
			}
		}
		for _, test := range []struct {
			name   string
			key    TSIGKey
			signed time.Time
			code   uint16
		}{
			{"unknown name", TSIGKey{"nobody.", dns.HmacSHA256, good.Secret}, time.Now(), dns.RcodeBadKey},
			{"another algorithm", TSIGKey{good.Name, dns.HmacSHA512, good.Secret}, time.Now(), dns.RcodeBadKey},
			{"another secret", TSIGKey{good.Name, good.Algorithm, []byte("wrong")}, time.Now(), dns.RcodeBadSig},
			{"a slow clock", good, time.Now().Add(-10 * time.Minute), dns.RcodeBadTime},
			{"a fast clock", good, time.Now().Add(10 * time.Minute), dns.RcodeBadTime},
		} {
			packet, mac, err := dns.TsigGenerate(question(test.key, test.signed), encoded(test.key.Secret), "", false)
			if err != nil {
				t.Fatal(err)
			}
			answered := send[network](packet)
			var answer dns.Msg
			if err := answer.Unpack(answered); err != nil {
				t.Fatal(err)
			}
			told := answer.IsTsig()
			if told == nil || answer.Rcode != dns.RcodeNotAuth || told.Error != test.code || len(answer.Answer) != 0 {
				t.Errorf("%s over %s: %v", test.name, network, &answer)
				continue
			}
			if test.code != dns.RcodeBadTime {
				if told.MACSize != 0 || told.OtherLen != 0 {
					t.Errorf("%s over %s: a signature with a key that is not shared: %v", test.name, network, told)
				}
				continue
			}
			clock, ok := tsigTime(told.OtherData)
			if !ok || time.Since(clock).Abs() > time.Minute || told.TimeSigned != uint64(test.signed.Unix()) { // RFC 8945 section 5.2.3
				t.Errorf("%s over %s: tells no time: %v", test.name, network, told)
			}
			if got := macOf(t, answered, test.key, mac); !strings.EqualFold(got, told.MAC) {
				t.Errorf("%s over %s: the answer has the MAC %s, want %s", test.name, network, told.MAC, got)
			}
		}
	}
}

// macOf computes the MAC that a message with a key of HMAC-SHA-256 must have (RFC 8945 section 4.3).
func macOf(t *testing.T, packet []byte, key TSIGKey, asked string) string {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(packet); err != nil {
		t.Fatal(err)
	}
	told := m.IsTsig()
	name, algorithm := wireName(key.Name), wireName(key.Algorithm)
	end := len(packet) - len(name) - 10 - len(algorithm) - 16 - int(told.MACSize) - int(told.OtherLen)
	stripped := slices.Clone(packet[:end])
	stripped[11]--
	before, _ := hex.DecodeString(asked)
	other, _ := hex.DecodeString(told.OtherData)
	h := hmac.New(sha256.New, key.Secret)
	for _, part := range [][]byte{
		binary.BigEndian.AppendUint16(nil, uint16(len(before))), before, stripped, []byte(name), {0, 255, 0, 0, 0, 0}, []byte(algorithm),
		binary.BigEndian.AppendUint64(nil, told.TimeSigned)[2:], binary.BigEndian.AppendUint16(nil, told.Fudge),
		binary.BigEndian.AppendUint16(nil, told.Error), binary.BigEndian.AppendUint16(nil, told.OtherLen), other,
	} {
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tsigTime reads the time of a server in a TSIG record that says BADTIME.
func tsigTime(other string) (time.Time, bool) {
	var seconds int64
	for _, digit := range other {
		seconds = seconds<<4 | int64(strings.IndexRune("0123456789abcdef", digit))
	}
	return time.Unix(seconds, 0), len(other) == 12
}

// TestTSIGOfTruncatedAnswer verifies an answer that is packed twice.
func TestTSIGOfTruncatedAnswer(t *testing.T) {
	_, at := primary(t)
	key := transferKeys()[2]
	m := new(dns.Msg).SetQuestion("big."+zoneName+".", dns.TypeTXT).SetEdns0(512, true).SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
	answer, err := exchange(t, "udp", at, key, m)
	if err != nil || !answer.Truncated || answer.IsTsig() == nil {
		t.Errorf("%v\n%v", err, answer)
	}
}

// TestTSIGOfOddMAC has MACs of lengths that no truncation gives (RFC 8945 section 5.2.2.1).
func TestTSIGOfOddMAC(t *testing.T) {
	s, _ := primary(t)
	key := transferKeys()[2]
	m := query(zoneName, dns.TypeSOA, "").SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
	packet, mac, err := dns.TsigGenerate(m, encoded(key.Secret), "", false)
	if err != nil {
		t.Fatal(err)
	}
	for length, want := range map[int]int{0: dns.RcodeFormatError, 9: dns.RcodeFormatError, 15: dns.RcodeFormatError, 16: dns.RcodeNotAuth, 31: dns.RcodeNotAuth, 32: 0, 33: dns.RcodeFormatError} {
		var m dns.Msg
		if err := m.Unpack(packet); err != nil {
			t.Fatal(err)
		}
		m.IsTsig().MACSize, m.IsTsig().MAC = uint16(length), (mac + "00")[:2*length]
		cut, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var answer dns.Msg
		if err := answer.Unpack(s.Answer(cut, netip.MustParseAddr("127.0.0.1"), UDP)); err != nil || answer.Rcode != want {
			t.Errorf("%d octets: got %s, %v, want %s", length, dns.RcodeToString[answer.Rcode], err, dns.RcodeToString[want])
		}
	}
}

// transferOf transfers a zone, message by message.
func transferOf(t *testing.T, at string, m *dns.Msg, key TSIGKey) (messages [][]dns.RR, err error) {
	t.Helper()
	transfer := dns.Transfer{ReadTimeout: 5 * time.Second}
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
