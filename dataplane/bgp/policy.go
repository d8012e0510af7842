package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"github.com/isochrone/isochrone/topology"
)

// Names of what policies are made of.
const (
	importPolicy = "own-routes"
	exportPolicy = "to-peers"
)

// policies say that nothing but the node's own prefixes is taken, and that each peer is told these, and no others. GoBGP applies import
// policies to what it originates itself, too.
func policies(plan Plan) *api.SetPoliciesRequest {
	local := api.Conditions_ROUTE_TYPE_LOCAL
	r := &api.SetPoliciesRequest{}
	export := &api.Policy{Name: exportPolicy}
	for _, name := range slices.Sorted(maps.Keys(plan.BGP.Peers)) {
		p := plan.BGP.Peers[name]
		r.DefinedSets = append(r.DefinedSets, &api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: "peer-" + name, List: []string{netip.PrefixFrom(p.Address, p.Address.BitLen()).String()},
		})
		for _, family := range []topology.Family{topology.IPv4, topology.IPv6} {
			if !p.Carries(family) {
				continue
			}
			actions := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT, Nexthop: &api.NexthopAction{Self: true}}
			if plan.BGP.Prepend > 0 && p.ASN != plan.BGP.ASN { // iBGP would take it for a loop
				actions.AsPrepend = &api.AsPrependAction{Asn: plan.BGP.ASN, Repeat: uint32(plan.BGP.Prepend)}
			}
			if i := slices.IndexFunc(p.NextHops, func(a netip.Addr) bool { return topology.FamilyOf(a) == family }); i >= 0 { // not the node's end of the session
				actions.Nexthop = &api.NexthopAction{Address: p.NextHops[i].String()}
			}
			export.Statements = append(export.Statements, &api.Statement{
				Name: fmt.Sprintf("%s-%s", name, family),
				Conditions: &api.Conditions{
					RouteType: local, AfiSafiIn: []*api.Family{familyOf(family)},
					NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: "peer-" + name},
				},
				Actions: actions,
			})
		}
	}
	r.Policies = []*api.Policy{{Name: importPolicy, Statements: []*api.Statement{{
		Name: importPolicy, Conditions: &api.Conditions{RouteType: local}, Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	}}}, export}
	return r
}
