package topology

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const bgpPoP = `
schema: 1
location: {lat: 1.3, lon: 103.8, country: SG}
addresses: [198.51.100.7, "2001:db8:1::7"]
vips: [192.0.2.1, "2001:db8:53::1"]
announces: [192.0.2.0/24, "2001:db8:53::/48"]
bgp:
  asn: 64512
  peers:
    leaf1: {address: 198.51.100.1, asn: 64500, md5: true, gtsm: 1, families: [ipv4, ipv6], next_hops: ["2001:db8:1::7"]}
    leaf2: {address: "2001:db8:1::2", asn: 64500, hold_time: 3s, port: 1790, local_address: "2001:db8:1::7", passive: true}
  communities: ["64500:120", "64500:1:2"]
  med: 0
  prepend: 2
`

// TestBGPOfAPoP reads one with all that there is, and writes it as it was read.
func TestBGPOfAPoP(t *testing.T) {
	o, faults := ParseObject(Ref{PoPs, "sin1"}, []byte(bgpPoP))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	b := o.(*PoP).BGP
	if *b.MinAnnouncers != 1 || time.Duration(b.Drain) != 5*time.Second || time.Duration(b.Rise) != 3*time.Second {
		t.Errorf("defaults: %d, %v, %v", *b.MinAnnouncers, b.Drain, b.Rise)
	}
	if p := b.Peers["leaf1"]; p.Port != 179 || time.Duration(p.HoldTime) != 9*time.Second || !p.Carries(IPv6) {
		t.Errorf("got %+v", p)
	}
	if p := b.Peers["leaf2"]; p.Carries(IPv4) || !p.Carries(IPv6) {
		t.Errorf("got %+v", p)
	}
	if id, ok := b.RouterIDOf(o.(*PoP).Addresses); !ok || id != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("router id %v", id)
	}
	text := MarshalValue(o)
	again, faults := ParseObject(Ref{PoPs, "sin1"}, text)
	if len(faults) > 0 || !bytes.Equal(MarshalValue(again), text) {
		t.Errorf("%v: written and read again it is another one:\n%s", faults, text)
	}
	if err := compileSchema(t, JSONSchema()).Validate(asJSON(t, []byte("schema: 1\npops:\n  sin1:"+strings.ReplaceAll(bgpPoP, "\n", "\n    ")))); err != nil {
		t.Error(err)
	}
}

func TestFaultsOfBGP(t *testing.T) {
	for change, want := range map[string]string{
		"asn: 64512 → asn: 0":                                             "pops.sin1.bgp.asn: 0 is not the number",
		"asn: 64500, md5 → asn: 23456, md5":                               "leaf1.asn: 23456 is not",
		"[198.51.100.7,  → [":                                             "router_id: nothing is no IPv4 address",
		"med: 0 → router_id: ::1":                                         "router_id: ::1 is no IPv4 address",
		"med: 0 → med: -1":                                                "med",
		"prepend: 2 → prepend: 11":                                        "prepend: 11 is not in 0..10",
		"prepend: 2 → min_announcers: -1":                                 "min_announcers: -1",
		"prepend: 2 → drain: 10ms":                                        "drain: 10ms is not",
		`"64500:120" → "65535:0"`:                                         "GRACEFUL_SHUTDOWN, which is announced by itself",
		`"64500:120" → "65535:666"`:                                       "BLACKHOLE",
		`"64500:120" → "65536:1"`:                                         "is not a community such as",
		`"64500:1:2" → "64500:1:2:3"`:                                     "is not a community such as",
		"192.0.2.0/24 → 0.0.0.0/0":                                        "announces[0]: 0.0.0.0/0 is the whole Internet",
		"leaf1: → Leaf_1:":                                                `peers.Leaf_1: "Leaf_1" is not a name`,
		`"2001:db8:1::2" → 198.51.100.1`:                                  "leaf2.address: 198.51.100.1 is that of leaf1 already",
		`"2001:db8:1::2" → "ff02::1"`:                                     "leaf2.address: ff02::1 is no address of a router",
		"gtsm: 1 → gtsm: 255":                                             "gtsm: 255 is not in 0..254",
		"gtsm: 1 → gtsm: 1, multihop: 3":                                  "goes not with multihop",
		"asn: 64500, md5: true → asn: 64512, multihop: 2":                 "multihop: is for eBGP",
		"hold_time: 3s → hold_time: 2s":                                   "hold_time: 2s is not a whole number",
		`local_address: "2001:db8:1::7",  → `:                             "passive: wants local_address",
		`local_address: "2001:db8:1::7" → local_address: 198.51.100.7`:    "local_address: 198.51.100.7 is not of the family",
		"families: [ipv4, ipv6] → families: [ipv4]":                       "next_hops: has 1 of ipv6",
		`next_hops: ["2001:db8:1::7"] → next_hops: []`:                    "next_hops: has 0 of ipv6",
		"families: [ipv4, ipv6] → families: [vpn]":                        `families[0]: "vpn" is not one of`,
		"announces: [192.0.2.0/24, \"2001:db8:53::/48\"] → announces: []": "peers: there is nothing to tell them",
	} {
		from, to, _ := strings.Cut(change, " → ")
		if !strings.Contains(bgpPoP, from) {
			t.Fatalf("%q is not there", from)
		}
		_, faults := ParseObject(Ref{PoPs, "sin1"}, []byte(strings.Replace(bgpPoP, from, to, 1)))
		found := false
		for _, f := range faults {
			found = found || strings.Contains(f.String(), want)
		}
		if !found {
			t.Errorf("%s: got %v, want …%s…", change, faults, want)
		}
	}
}

// TestAPrefixThatNobodyIsTold has peers of one family and prefixes of two.
func TestAPrefixThatNobodyIsTold(t *testing.T) {
	text := `
asn: 64512
announces: [192.0.2.0/24, "2001:db8:53::/48"]
peers: {a: {address: 198.51.100.1, asn: 64500}}
`
	_, faults := ParseBGPFile([]byte(text), []netip.Addr{netip.MustParseAddr("198.51.100.7")})
	if len(faults) != 1 || !strings.Contains(faults[0].String(), "announces[1]: 2001:db8:53::/48 is told to nobody") || faults[0].Line == 0 {
		t.Errorf("got %v", faults)
	}
	f, faults := ParseBGPFile([]byte(strings.Replace(text, `, "2001:db8:53::/48"`, "", 1)), []netip.Addr{netip.MustParseAddr("198.51.100.7")})
	if len(faults) > 0 || cmp.Diff(f.Announces[0].String(), "192.0.2.0/24") != "" || f.Peers["a"].Port != 179 {
		t.Errorf("got %+v, %v", f, faults)
	}
	if _, faults := ParseBGPFile([]byte("asn: x\nfoo: 1\npeers: {a: }"), nil); len(faults) < 3 {
		t.Errorf("got %v", faults)
	}
}

func FuzzParseBGPFile(f *testing.F) {
	f.Add([]byte("asn: 64512\nannounces: [192.0.2.0/24]\npeers: {a: {address: 198.51.100.1, asn: 64500}}"))
	f.Add([]byte("announces: ['::/0']\ncommunities: ['65535:0', '1:2:3']\npeers: {a: {address: '::1', families: [ipv4], next_hops: [192.0.2.1]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, faults := ParseBGPFile(text, nil)
		if len(faults) > 0 {
			return
		}
		if again, faults := ParseBGPFile(MarshalValue(file), nil); len(faults) > 0 || !bytes.Equal(MarshalValue(again), MarshalValue(file)) {
			t.Errorf("%v: written and read again it is another one:\n%s", faults, MarshalValue(file))
		}
	})
}
