package main

import (
	"net/netip"
	"testing"
)

// What is divided covers the same addresses, each once, in the same country.
func TestDivideKeepsTheAddresses(t *testing.T) {
	a, b := &country{code: "AA"}, &country{code: "BB"}
	var networks []network
	for text, c := range map[string]*country{
		"10.0.0.0/8": a, "11.0.0.0/16": b, "11.1.2.0/24": a, "11.1.3.128/25": b, "2001:db8::/32": a,
	} {
		networks = append(networks, network{prefix: netip.MustParsePrefix(text), country: c})
	}
	divided := divide(networks, 1000)
	if len(divided) < 900 || len(divided) > 2200 {
		t.Errorf("got %d networks, want about 1000", len(divided))
	}
	for _, whole := range networks {
		covered := 0.0
		for _, n := range divided {
			if !whole.prefix.Overlaps(n.prefix) {
				continue
			}
			if n.country != whole.country || n.prefix.Bits() < whole.prefix.Bits() || n.prefix != n.prefix.Masked() {
				t.Errorf("%v of %s has the part %v of %s", whole.prefix, whole.country.code, n.prefix, n.country.code)
			}
			covered += 1 / float64(uint64(1)<<(n.prefix.Bits()-whole.prefix.Bits()))
		}
		if covered != 1 {
			t.Errorf("%v: its parts cover %v of it", whole.prefix, covered)
		}
	}
}
