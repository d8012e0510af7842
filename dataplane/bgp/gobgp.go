package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/isochrone/isochrone/topology"
)

// maxReceived bounds the prefixes of one family that a peer may send, all of which are refused. One that sends more loses its session: it is
// set up to send what nobody wants here, such as a full table.
const maxReceived = 10_000

// retryTooMany is how long after that the session may come up again.
const retryTooMany = time.Minute

// gracefulShutdown is the community GRACEFUL_SHUTDOWN (RFC 8326 section 5).
const gracefulShutdown = 0xFFFF0000

// routers is a GoBGP server with what it was told. It has its own goroutines until stop.
type routers struct {
	log     *slog.Logger
	server  *server.BgpServer
	global  *api.Global
	ran     chan struct{}
	peers   map[string]*api.Peer // by name
	prepend int
	told    map[netip.Prefix]*apiutil.Path
	tooMany map[string]time.Time // since when peers are down that sent too much, by address
}

// openRouters starts a server that knows no peer yet.
func openRouters(plan Plan, log *slog.Logger) (*routers, error) {
	quiet := new(slog.LevelVar)
	quiet.Set(slog.LevelWarn)
	r := &routers{
		log: log, server: server.NewBgpServer(server.LoggerOption(slog.New(atLeast{log.Handler(), slog.LevelWarn}), quiet)), ran: make(chan struct{}),
		global: globalOf(plan), peers: map[string]*api.Peer{}, told: map[netip.Prefix]*apiutil.Path{}, tooMany: map[string]time.Time{},
	}
	go func() {
		defer close(r.ran)
		r.server.Serve()
	}()
	ctx := context.Background()
	if err := r.server.StartBgp(ctx, &api.StartBgpRequest{Global: globalOf(plan)}); err != nil {
		r.stop()
		return nil, fmt.Errorf("start BGP: %w", err)
	}
	if err := r.server.SetPolicies(ctx, policies(plan)); err != nil {
		r.stop()
		return nil, fmt.Errorf("set policies: %w", err)
	}
	for _, direction := range []api.PolicyDirection{api.PolicyDirection_POLICY_DIRECTION_IMPORT, api.PolicyDirection_POLICY_DIRECTION_EXPORT} {
		name := importPolicy
		if direction == api.PolicyDirection_POLICY_DIRECTION_EXPORT {
			name = exportPolicy
		}
		if err := r.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Name: "global", Direction: direction, Policies: []*api.Policy{{Name: name}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		}}); err != nil {
			r.stop()
			return nil, fmt.Errorf("assign policies: %w", err)
		}
	}
	return r, nil
}

// stop ends all sessions with a NOTIFICATION (Cease), and returns when nothing runs any more.
func (r *routers) stop() {
	r.server.Stop()
	<-r.ran
}

// globalOf returns what cannot be changed without new sessions.
func globalOf(plan Plan) *api.Global {
	g := &api.Global{Asn: plan.BGP.ASN, RouterId: plan.RouterID.String(), ListenPort: -1}
	for _, name := range slices.Sorted(maps.Keys(plan.BGP.Peers)) {
		if p := plan.BGP.Peers[name]; p.Passive {
			g.ListenPort = int32(p.Port)
			if at := p.LocalAddress.String(); !slices.Contains(g.ListenAddresses, at) {
				g.ListenAddresses = append(g.ListenAddresses, at)
			}
		}
	}
	return g
}

func (r *routers) fits(plan Plan) bool { return reflect.DeepEqual(r.global, globalOf(plan)) }

// peerOf returns how GoBGP is told of a peer.
func peerOf(p *topology.BGPPeer, own uint32, password string) *api.Peer {
	hold := uint64(time.Duration(p.HoldTime) / time.Second)
	peer := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: p.Address.String(), PeerAsn: p.ASN, AuthPassword: password},
		Transport: &api.Transport{RemotePort: uint32(p.Port), PassiveMode: p.Passive},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry: 2, HoldTime: hold, KeepaliveInterval: max(1, hold/3), IdleHoldTimeAfterReset: 2,
		}},
	}
	if p.LocalAddress != nil {
		peer.Transport.LocalAddress = p.LocalAddress.String()
	}
	switch {
	case p.GTSM > 0:
		peer.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: uint32(256 - p.GTSM)}
	case p.Multihop > 0 && p.ASN != own:
		peer.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	for _, f := range []topology.Family{topology.IPv4, topology.IPv6} {
		if p.Carries(f) {
			peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{
				Config:       &api.AfiSafiConfig{Family: familyOf(f), Enabled: true},
				PrefixLimits: &api.PrefixLimit{Family: familyOf(f), MaxPrefixes: maxReceived},
			})
		}
	}
	return peer
}

func familyOf(f topology.Family) *api.Family {
	if f == topology.IPv4 {
		return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
}

// follow has the peers of a plan, and returns what is wrong with some of them, by name. Sessions of peers that stay as they are go on.
func (r *routers) follow(plan Plan, password func(peer string) (string, bool)) map[string]string {
	ctx, faults, want := context.Background(), map[string]string{}, map[string]*api.Peer{}
	for name, p := range plan.BGP.Peers {
		secret := ""
		if p.MD5 {
			var ok bool
			if secret, ok = password(name); !ok || secret == "" || len(secret) > maxPassword {
				faults[name] = fmt.Sprintf("there is no password for it of 1 to %d bytes", maxPassword)
				continue
			}
		}
		want[name] = peerOf(p, plan.BGP.ASN, secret)
	}
	changed := r.prepend != plan.BGP.Prepend
	for _, name := range slices.Sorted(maps.Keys(r.peers)) {
		if reflect.DeepEqual(want[name], r.peers[name]) {
			continue
		}
		changed = true
		if err := r.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: r.peers[name].Conf.NeighborAddress}); err != nil {
			r.log.Error("a BGP peer cannot be taken away", "peer", name, "error", err)
		}
		delete(r.peers, name)
	}
	if changed || len(want) != len(r.peers) {
		if err := r.server.SetPolicies(ctx, policies(plan)); err != nil {
			r.log.Error("BGP policies cannot be set", "error", err)
		}
		r.prepend = plan.BGP.Prepend
		for _, p := range r.peers {
			_ = r.server.ResetPeer(ctx, &api.ResetPeerRequest{ // an error means that there is no session to tell it in
				Address: p.Conf.NeighborAddress, Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if r.peers[name] != nil {
			continue
		}
		if err := r.server.AddPeer(ctx, &api.AddPeerRequest{Peer: want[name]}); err != nil {
			faults[name] = err.Error()
			continue
		}
		r.peers[name] = peerOf(plan.BGP.Peers[name], plan.BGP.ASN, want[name].Conf.AuthPassword) // GoBGP has the other
	}
	return faults
}

// tell announces a prefix with some attributes, or withdraws it when path is nil.
func (r *routers) tell(prefix netip.Prefix, path *apiutil.Path) error {
	before := r.told[prefix]
	if reflect.DeepEqual(before, path) {
		return nil
	}
	if path == nil {
		if err := r.server.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{before}}); err != nil {
			return err
		}
		delete(r.told, prefix)
		return nil
	}
	if _, err := r.server.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{path}}); err != nil {
		return err
	}
	r.told[prefix] = path
	return nil
}

// pathOf returns how a prefix is announced: to iBGP peers with the least preference while it is drained (RFC 8326 section 4.2).
func pathOf(prefix netip.Prefix, b *topology.BGP, drained bool) (*apiutil.Path, error) {
	nlri, err := packet.NewIPAddrPrefix(prefix)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{Family: packet.RF_IPv4_UC, Nlri: nlri, Attrs: []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0)}}
	nextHop := someNextHop(b, topology.FamilyOf(prefix.Addr())) // each peer is told its own by policy
	if prefix.Addr().Is6() {
		path.Family = packet.RF_IPv6_UC
		mp, err := packet.NewPathAttributeMpReachNLRI(path.Family, []packet.PathNLRI{{NLRI: nlri}}, nextHop)
		if err != nil {
			return nil, err
		}
		path.Attrs = append(path.Attrs, mp)
	} else {
		hop, err := packet.NewPathAttributeNextHop(nextHop)
		if err != nil {
			return nil, err
		}
		path.Attrs = append(path.Attrs, hop)
	}
	if b.MED != nil {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeMultiExitDisc(*b.MED))
	}
	var standard []uint32
	var large []*packet.LargeCommunity
	for _, text := range b.Communities {
		numbers, err := topology.ParseCommunity(text)
		switch {
		case err != nil:
			return nil, err
		case len(numbers) == 2:
			standard = append(standard, numbers[0]<<16|numbers[1])
		default:
			large = append(large, &packet.LargeCommunity{ASN: numbers[0], LocalData1: numbers[1], LocalData2: numbers[2]})
		}
	}
	if drained {
		standard = append(standard, gracefulShutdown)
		path.Attrs = append(path.Attrs, packet.NewPathAttributeLocalPref(0))
	}
	if len(standard) > 0 {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeCommunities(standard))
	}
	if len(large) > 0 {
		path.Attrs = append(path.Attrs, packet.NewPathAttributeLargeCommunities(large))
	}
	return path, nil
}

// someNextHop returns one that can be in a path of a family. GoBGP cannot replace an unspecified one by an address of the other family, which
// the node's end of a session may be.
func someNextHop(b *topology.BGP, family topology.Family) netip.Addr {
	for _, name := range slices.Sorted(maps.Keys(b.Peers)) {
		for _, hop := range b.Peers[name].NextHops {
			if topology.FamilyOf(hop) == family {
				return hop
			}
		}
	}
	if family == topology.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// atLeast lets only records of a level and above pass.
type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled implements slog.Handler.
func (h atLeast) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h atLeast) WithGroup(name string) slog.Handler {
	return atLeast{h.Handler.WithGroup(name), h.level}
}
