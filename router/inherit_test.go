package router

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isochrone/isochrone/topology"
)

// TestInheritedVIP has another PoP announce a VIP, which leaves the rankings as they are: the round-trip times that are told of it are those of
// a table that shares nothing.
func TestInheritedVIP(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("203.0.113.99")}
	world := func(announcers ...string) *topology.Topology {
		top := sixPoPs()
		for _, name := range announcers {
			top.PoPs[name].VIPs, top.PoPs[name].Announces = vips, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		}
		top.Services["intake.example"].Steering.Anycast = &topology.Anycast{Mode: topology.AnycastAll, VIPs: vips}
		return top
	}
	nets := networks{{netip.MustParsePrefix("10.0.0.0/16"), singapore}}
	old, fresh := compileTest(t, world("jnb1"), nets), compileTest(t, world("jnb1", "fra1"), nets)
	inherited, err := old.With(fresh.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if inherited.targets != old.targets {
		t.Fatal("nothing is shared")
	}
	for _, client := range []string{"10.0.0.1/32", "192.0.2.1/32"} { // the second's place is not known
		var got, want Trace
		for table, trace := range map[*Table]*Trace{inherited: &got, fresh: &want} {
			Decide(&View{table, NewState(table, Inputs{Now: start})}, 0, IPv4, netip.MustParsePrefix(client), trace)
		}
		if diff := cmp.Diff(want.Candidates, got.Candidates); diff != "" {
			t.Errorf("%s (-want +got):\n%s", client, diff)
		}
	}
}
