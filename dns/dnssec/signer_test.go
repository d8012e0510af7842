package dnssec

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// signed returns the signing of example.net with active keys, and the keyring of them.
func signed(t testing.TB, keys ...*Key) (*topology.Signing, *Keyring) {
	t.Helper()
	s := &topology.Signing{Schema: 1}
	for _, k := range keys {
		s.Keys = append(s.Keys, k.Public(topology.KeyActive, start))
	}
	if _, faults := topology.ParseSigning("example.net", topology.MarshalValue(s)); len(faults) > 0 {
		t.Fatal(faults)
	}
	return s, NewKeyring(keys...)
}

func newSigner(t testing.TB, s *topology.Signing, ring *Keyring, o Options) *Signer {
	t.Helper()
	signer, err := NewSigner("example.net", s, ring, o)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func exampleSigner(t testing.TB, algorithm uint8) *Signer {
	t.Helper()
	s, ring := signed(t, generate(t, topology.KSK, algorithm), generate(t, topology.ZSK, algorithm))
	return newSigner(t, s, ring, Options{})
}

func rrset(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var set []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		set = append(set, rr)
	}
	return set
}

func sign(t testing.TB, s *Signer, set []dns.RR, now time.Time) []*dns.RRSIG {
	t.Helper()
	made, err := s.Sign(set, now)
	if err != nil {
		t.Fatal(err)
	}
	var all []*dns.RRSIG
	for _, rr := range made {
		all = append(all, rr.(*dns.RRSIG))
	}
	return all
}

// received returns records as they come out of a packet.
func received(t testing.TB, set []dns.RR) []dns.RR {
	t.Helper()
	m := new(dns.Msg)
	m.Answer = set
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unpack(packet); err != nil {
		t.Fatal(err)
	}
	return m.Answer
}

// verify checks a signature as a validator does.
func verify(t testing.TB, s *Signer, signature *dns.RRSIG, set []dns.RR, now time.Time) {
	t.Helper()
	if !signature.ValidityPeriod(now) {
		t.Errorf("%v is not valid at %v", signature, now)
	}
	for _, rr := range s.DNSKEY() {
		if k := rr.(*dns.DNSKEY); k.KeyTag() == signature.KeyTag {
			if err := signature.Verify(k, set); err != nil {
				t.Errorf("%v: %v", signature, err)
			}
			return
		}
	}
	t.Errorf("%v is of no key of the zone", signature)
}

func TestSignaturesAreValid(t *testing.T) {
	sets := map[string][]dns.RR{
		"one address":           rrset(t, "intake.example.net. 20 IN A 192.0.2.1"),
		"addresses, not sorted": rrset(t, "intake.example.net. 20 IN A 192.0.2.9", "intake.example.net. 20 IN A 192.0.2.1"),
		"one record twice":      rrset(t, "intake.example.net. 20 IN A 192.0.2.9", "intake.example.net. 20 IN A 192.0.2.9"),
		"mixed case":            rrset(t, "InTake.eXample.net. 20 IN AAAA 2001:db8::1"),
		"names in data":         rrset(t, "example.net. 3600 IN NS NS1.Example.NET.", "example.net. 3600 IN NS ns2.example.ORG."),
		"SOA":                   rrset(t, "example.net. 60 IN SOA NS1.example.net. Host.example.net. 1 2 3 4 5"),
		"MX of different sizes": rrset(t, "example.net. 60 IN MX 10 Mail.example.net.", "example.net. 60 IN MX 5 a."),
		"texts":                 rrset(t, `t.example.net. 60 IN TXT "b"`, `t.example.net. 60 IN TXT "aaaaaa"`, `t.example.net. 60 IN TXT "a" "b"`),
		"HTTPS":                 rrset(t, "intake.example.net. 20 IN HTTPS 1 Sin1.intake.example.net. alpn=h3,h2"),
		"CAA":                   rrset(t, `example.net. 60 IN CAA 0 issue "ca.example.org"`),
		"an unknown type":       rrset(t, `x.example.net. 60 IN TYPE65280 \# 3 ABCDEF`),
		"a wildcard":            rrset(t, "*.dyn.example.net. 60 IN A 192.0.2.1"),
		"a name with *":         rrset(t, "*x.example.net. 60 IN A 192.0.2.1"),
		"* inside":              rrset(t, "a.*.example.net. 60 IN A 192.0.2.1"),
		"denial":                {Matching("Intake.example.net.", []uint16{dns.TypeA}, 60)},
		"no such name":          {Nonexistent("nowhere.example.net.", 60)},
		"an escaped name":       rrset(t, `a\.b\010.example.net. 60 IN CNAME \065.Example.net.`),
	}
	for _, algorithm := range algorithms {
		s := exampleSigner(t, algorithm)
		sets["DNSKEY"], sets["CDS"], sets["CDNSKEY"] = s.DNSKEY(), s.CDS(), s.CDNSKEY()
		for name, set := range sets {
			before := fmt.Sprint(set)
			signatures := sign(t, s, set, start)
			if len(signatures) != 1 {
				t.Fatalf("%s: got %v, want one signature", name, signatures)
			}
			verify(t, s, signatures[0], slices.CompactFunc(received(t, set), dns.IsDuplicate), start)
			ksk := s.signers(dns.TypeDNSKEY)[0].Tag()
			wantKSK := name == "DNSKEY" || name == "CDS" || name == "CDNSKEY"
			if (signatures[0].KeyTag == ksk) != wantKSK {
				t.Errorf("%s is signed by %d", name, signatures[0].KeyTag)
			}
			if fmt.Sprint(set) != before {
				t.Errorf("%s: the records were changed", name)
			}
			if signatures[0].Hdr.Ttl != set[0].Header().Ttl || signatures[0].OrigTtl != set[0].Header().Ttl {
				t.Errorf("%s: got TTL %d of %d", name, signatures[0].OrigTtl, set[0].Header().Ttl)
			}
		}
	}
}

func TestLabels(t *testing.T) {
	s := exampleSigner(t, ED25519)
	for owner, want := range map[string]uint8{
		"example.net.": 2, "a.example.net.": 3, "*.example.net.": 2, "*.b.example.net.": 3, "*x.example.net.": 3, "a.*.example.net.": 4,
		`\042.example.net.`: 2, `a\.b.example.net.`: 3,
	} {
		if got := sign(t, s, rrset(t, owner+" 60 IN A 192.0.2.1"), start)[0].Labels; got != want {
			t.Errorf("%s: got %d labels, want %d", owner, got, want)
		}
	}
	// A validator that gets the wildcard's signature with another name finds the wildcard by the labels.
	set := rrset(t, "*.dyn.example.net. 60 IN A 192.0.2.1")
	signature := dns.Copy(sign(t, s, set, start)[0]).(*dns.RRSIG)
	signature.Hdr.Name = "a.b.dyn.example.net."
	verify(t, s, signature, rrset(t, "a.b.dyn.example.net. 60 IN A 192.0.2.1"), start)
}

func TestSignRefuses(t *testing.T) {
	s := exampleSigner(t, ED25519)
	for name, set := range map[string][]dns.RR{
		"nothing":      nil,
		"two owners":   rrset(t, "a.example.net. 60 IN A 192.0.2.1", "b.example.net. 60 IN A 192.0.2.1"),
		"two types":    rrset(t, "a.example.net. 60 IN A 192.0.2.1", "a.example.net. 60 IN AAAA ::1"),
		"two TTLs":     rrset(t, "a.example.net. 60 IN A 192.0.2.1", "a.example.net. 61 IN A 192.0.2.2"),
		"another zone": rrset(t, "a.example.org. 60 IN A 192.0.2.1"),
	} {
		if got, err := s.Sign(set, start); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
		if s.HasSignature(set, start) {
			t.Errorf("%s has a signature", name)
		}
	}
}

func TestOneRecordSetHasOneSignature(t *testing.T) {
	s := exampleSigner(t, ECDSAP256SHA256)
	set := rrset(t, "intake.example.net. 20 IN A 192.0.2.9", "intake.example.net. 20 IN A 192.0.2.1")
	if s.HasSignature(set, start) {
		t.Error("there is a signature before any is made")
	}
	first := sign(t, s, set, start)[0]
	other := rrset(t, "INTAKE.example.net. 20 IN A 192.0.2.1", "intake.example.net. 20 IN A 192.0.2.9")
	if got := sign(t, s, other, start.Add(time.Hour))[0]; got.Signature != first.Signature {
		t.Error("the same set in another order has another signature")
	}
	if !s.HasSignature(other, start) {
		t.Error("the signature is not found")
	}
	changed, before := sign(t, s, set, start)[0], first.String()
	changed.Hdr.Name, changed.Signature = "other.example.net.", "AAAA"
	if got := sign(t, s, set, start)[0]; got.String() != before {
		t.Errorf("what a caller did to a signature is given to the next: %v", got)
	}
	for _, different := range [][]dns.RR{
		rrset(t, "intake.example.net. 21 IN A 192.0.2.1", "intake.example.net. 21 IN A 192.0.2.9"),
		rrset(t, "intake.example.net. 20 IN A 192.0.2.1"),
		rrset(t, "intake2.example.net. 20 IN A 192.0.2.9", "intake2.example.net. 20 IN A 192.0.2.1"),
	} {
		if sign(t, s, different, start)[0].Signature == first.Signature {
			t.Errorf("%v has the same signature", different)
		}
	}
}

func TestFirstStoredWins(t *testing.T) {
	signature := func(tag uint16, text string) *dns.RRSIG { return &dns.RRSIG{KeyTag: tag, Signature: text} }
	list := func(signatures []*dns.RRSIG) (text string) {
		for _, s := range signatures {
			text += s.Signature
		}
		return text
	}
	all := func(*dns.RRSIG) bool { return true }
	for _, limit := range []int{0, 64} {
		c := newCache(limit)
		c.merge(hash{}, []*dns.RRSIG{signature(1, "a")}, all)
		if got := list(c.merge(hash{}, []*dns.RRSIG{signature(1, "b"), signature(2, "c")}, all)); got != "ac" || list(c.find(hash{})) != "ac" {
			t.Errorf("got %s, want what was first of each key", got)
		}
		if got := list(c.merge(hash{}, []*dns.RRSIG{signature(1, "d")}, func(s *dns.RRSIG) bool { return s.KeyTag != 1 })); got != "cd" {
			t.Errorf("got %s, want what is not usable replaced", got)
		}
	}
}

func TestConcurrentSignersAgree(t *testing.T) {
	s := exampleSigner(t, ECDSAP256SHA256)
	for i := range 20 {
		set := rrset(t, fmt.Sprintf("n%d.example.net. 60 IN A 192.0.2.1", i))
		signers := []func([]dns.RR, time.Time) ([]dns.RR, error){s.Sign, s.SignOnce}
		var got [8]dns.RR
		var group sync.WaitGroup
		for j := range got {
			group.Go(func() {
				made, err := signers[i%2](set, start.Add(time.Duration(j)*time.Second))
				if err != nil {
					t.Error(err)
					return
				}
				m := dns.Msg{Answer: append(s.DNSKEY(), made...)} // packing writes into records
				if _, err := m.Pack(); err != nil {
					t.Error(err)
				}
				got[j] = made[0]
			})
		}
		group.Wait()
		for _, signature := range got {
			if signature.String() != got[0].String() {
				t.Fatalf("two signatures of one set: %v and %v", signature, got[0])
			}
		}
	}
}

func TestSignaturesAreRenewed(t *testing.T) {
	s := exampleSigner(t, ED25519)
	var sets [][]dns.RR
	ends := map[uint32]bool{}
	for i := range 100 {
		set := rrset(t, fmt.Sprintf("n%d.example.net. 60 IN A 192.0.2.1", i))
		sets = append(sets, set)
		signature := sign(t, s, set, start)[0]
		ends[signature.Expiration] = true
		left := Expiry(signature, start).Sub(start)
		if left > DefaultValidity || left < DefaultValidity*7/8-time.Second {
			t.Errorf("a signature is valid for %v", left)
		}
		if got := moment(signature.Inception, start); !got.Equal(start.Add(-time.Hour)) {
			t.Errorf("a signature begins at %v", got)
		}
	}
	if len(ends) < 90 {
		t.Errorf("100 signatures have %d ends", len(ends))
	}
	if early := start.Add(DefaultValidity*3/8 - time.Minute); s.Due(early) || s.Drop(early) != 0 {
		t.Error("signatures are due early")
	}
	middle := start.Add(DefaultValidity * 7 / 16)
	dropped := s.Drop(middle)
	if dropped < 20 || dropped > 80 {
		t.Errorf("%d of 100 are due in the middle", dropped)
	}
	if s.Due(middle) {
		t.Error("what is due was dropped, and is due")
	}
	late := start.Add(DefaultValidity/2 + time.Minute)
	if !s.Due(late) {
		t.Error("nothing is due after half of the validity")
	}
	for _, set := range sets { // due ones are not given out, dropped or not
		signature := sign(t, s, set, late)[0]
		if Expiry(signature, late).Sub(late) < DefaultValidity/2 {
			t.Errorf("%v is due and given out", signature)
		}
		verify(t, s, signature, set, late)
	}
	if s.Due(late) {
		t.Error("all are renewed, and one is due")
	}
	// A clock that is put back by more than the slack finds signatures of the future.
	if back := late.Add(-2 * time.Hour); !sign(t, s, sets[0], back)[0].ValidityPeriod(back) {
		t.Error("a signature of the future is given out")
	}
}

// TestYear2106 signs across the moment at which the seconds of signatures begin at 0 again.
func TestYear2106(t *testing.T) {
	s := exampleSigner(t, ED25519)
	set := rrset(t, "a.example.net. 60 IN A 192.0.2.1")
	now := time.Unix(1<<32, 0).Add(-24 * time.Hour)
	first := sign(t, s, set, now)[0]
	if end := Expiry(first, now); end.Before(now.Add(DefaultValidity*7/8-time.Second)) || end.After(now.Add(DefaultValidity)) {
		t.Errorf("a signature of %v ends %v", now, end)
	}
	if sign(t, s, set, now.Add(48*time.Hour))[0].Signature != first.Signature || s.Due(now.Add(48*time.Hour)) {
		t.Error("a signature is due because its end is a small number")
	}
	if !s.Due(now.Add(8 * 24 * time.Hour)) {
		t.Error("a signature is never due")
	}
}

func TestSignOnceIsBounded(t *testing.T) {
	s := exampleSigner(t, ECDSAP256SHA256) // two of whose signatures differ
	s.once = newCache(64)
	name := func(i int) []dns.RR { return []dns.RR{Nonexistent(fmt.Sprintf("x%d.example.net.", i), 60)} }
	kept := sign(t, s, rrset(t, "a.example.net. 60 IN A 192.0.2.1"), start)[0]
	wanted, err := s.SignOnce(name(0), start)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if _, err := s.SignOnce(name(i+1), start); err != nil {
			t.Fatal(err)
		}
		if again, err := s.SignOnce(name(0), start); err != nil || again[0].String() != wanted[0].String() {
			t.Fatalf("after %d others, a name that is asked for all the time is signed again (%v)", i, err)
		}
	}
	count := 0
	s.once.each(false, func(hash, []*dns.RRSIG) bool { count++; return true })
	if count > 2*64 || count < 64/2 {
		t.Errorf("%d are kept, want at most %d", count, 2*64)
	}
	if s.HasSignature(name(1), start) || !s.HasSignature(name(2000), start) {
		t.Error("what is old is kept, or what is new is not")
	}
	if sign(t, s, rrset(t, "a.example.net. 60 IN A 192.0.2.1"), start)[0].Signature != kept.Signature {
		t.Error("names of askers have pushed out a record of the zone")
	}
}

func TestInherit(t *testing.T) {
	ksk, zsk := generate(t, topology.KSK, ECDSAP256SHA256), generate(t, topology.ZSK, ECDSAP256SHA256)
	fresh := generate(t, topology.ZSK, ECDSAP256SHA256, ksk.Tag(), zsk.Tag())
	s, ring := signed(t, ksk, zsk)
	before := newSigner(t, s, ring, Options{})
	set := rrset(t, "a.example.net. 60 IN A 192.0.2.1")
	cds := before.CDS()
	bySet, byCDS := sign(t, before, set, start)[0], sign(t, before, cds, start)[0]
	once, err := before.SignOnce([]dns.RR{Nonexistent("x.example.net.", 60)}, start)
	if err != nil {
		t.Fatal(err)
	}

	s, ring = signed(t, ksk, zsk, fresh)
	both := newSigner(t, s, ring, Options{Inherit: before})
	if both.HasSignature(set, start) || !both.HasSignature(cds, start) {
		t.Error("a signature of a new key is there, or one of an old key is not")
	}
	if got := sign(t, both, set, start); len(got) != 2 || got[0].Signature != bySet.Signature || got[1].KeyTag != fresh.Tag() {
		t.Errorf("got %v, want the old signature and one of %d", got, fresh.Tag())
	}
	if again, err := both.SignOnce([]dns.RR{Nonexistent("x.example.net.", 60)}, start); err != nil || again[0].String() != once[0].String() {
		t.Errorf("got %v, %v", again, err)
	}

	s, ring = signed(t, ksk, fresh)
	after := newSigner(t, s, ring, Options{Inherit: both})
	if got := sign(t, after, set, start); len(got) != 1 || got[0].KeyTag != fresh.Tag() || got[0].Signature != sign(t, both, set, start)[1].Signature {
		t.Errorf("got %v, want the signature of %d alone", got, fresh.Tag())
	}
	if sign(t, after, cds, start)[0].Signature != byCDS.Signature {
		t.Error("the signature of the KSK is made anew")
	}
}

func TestMissingKeys(t *testing.T) {
	ksk, zsk := generate(t, topology.KSK, ECDSAP256SHA256), generate(t, topology.ZSK, ECDSAP256SHA256)
	s, _ := signed(t, ksk, zsk)
	s.Keys = append(s.Keys, generate(t, topology.ZSK, ECDSAP256SHA256).Public(topology.KeyPublished, start))
	var missing *MissingKeysError
	if _, err := NewSigner("example.net", s, nil, Options{}); !errors.As(err, &missing) || len(missing.Files) != 2 {
		t.Fatalf("got %v, want both active keys named", err)
	} else if want := FileName("example.net", 13, ksk.Tag()) + ".private"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s in it", err, want)
	}
	signer := newSigner(t, s, NewKeyring(ksk, zsk), Options{TTL: 77})
	if got := signer.DNSKEY(); len(got) != 3 || got[0].Header().Ttl != 77 || got[0].Header().Name != "example.net." {
		t.Errorf("got %v, want all keys", got)
	}
	for _, unsigned := range []*topology.Signing{nil, {Schema: 1}} {
		if _, err := NewSigner("example.net", unsigned, nil, Options{}); !errors.Is(err, ErrUnsigned) {
			t.Errorf("got %v, want ErrUnsigned", err)
		}
	}
}

// TestZoneForLDNS has another program check a whole signed zone.
func TestZoneForLDNS(t *testing.T) {
	tool := need(t, "ldns-verify-zone")
	for _, algorithm := range algorithms {
		s := exampleSigner(t, algorithm)
		sets := [][]dns.RR{
			rrset(t, "example.net. 60 IN SOA NS1.example.net. host.example.net. 1 2 3 4 60"),
			rrset(t, "example.net. 60 IN NS ns1.example.net."), s.DNSKEY(), s.CDS(), s.CDNSKEY(),
			rrset(t, "*.example.net. 60 IN TXT b", "*.example.net. 60 IN TXT aaaaa"),
			rrset(t, "*x.example.net. 60 IN A 192.0.2.1"),
			rrset(t, "ns1.example.net. 60 IN A 192.0.2.9", "ns1.example.net. 60 IN A 192.0.2.1"),
			{NSEC("example.net.", "*.example.net.", []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY}, 60)},
			{NSEC("*.example.net.", "*x.example.net.", []uint16{dns.TypeTXT}, 60)},
			{NSEC("*x.example.net.", "ns1.example.net.", []uint16{dns.TypeA}, 60)},
			{NSEC("ns1.example.net.", "example.net.", []uint16{dns.TypeA}, 60)},
		}
		var text strings.Builder
		for _, set := range sets {
			for _, rr := range set {
				fmt.Fprintln(&text, rr)
			}
			for _, signature := range sign(t, s, set, time.Now()) {
				fmt.Fprintln(&text, signature)
			}
		}
		path := filepath.Join(t.TempDir(), "zone")
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(tool, path).CombinedOutput(); err != nil {
			t.Errorf("ldns-verify-zone: %v: %s\n%s", err, out, text.String())
		}
	}
}
