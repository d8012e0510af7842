package bgp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestStandings(t *testing.T) {
	all := map[netip.Prefix]Standing{vip: Stays, netip.MustParsePrefix("2001:db8::/48"): Dead}
	got, err := ParseStandings(EncodeStandings(all))
	if diff := cmp.Diff(all, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got, err := ParseStandings([]byte(`{"192.0.2.0/24": "rests"}`)); err != nil || got[vip] != Left {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "[]", `{"192.0.2.1/24": "stays"}`, `{"x": "stays"}`, `{"": "stays"}`} {
		if got, err := ParseStandings([]byte(text)); err == nil {
			t.Errorf("%s: got %v", text, got)
		}
	}
	many := map[netip.Prefix]Standing{}
	for i := range 300 {
		many[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)] = Stays
	}
	if _, err := ParseStandings(EncodeStandings(many)); err == nil || !strings.Contains(err.Error(), "300 prefixes are too many") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseStandings(f *testing.F) {
	f.Add([]byte(`{"192.0.2.0/24":"stays","2001:db8::/48":"dead"}`))
	f.Add([]byte(`{"0.0.0.0/0":"?"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := ParseStandings(text)
		if err != nil {
			return
		}
		written := EncodeStandings(all)
		if again, err := ParseStandings(written); err != nil || !bytes.Equal(EncodeStandings(again), written) {
			t.Errorf("%s: %v, %v", written, again, err)
		}
	})
}
