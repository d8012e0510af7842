package dns

import (
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// continents is a geo database with networks so wide that clients are split within them, and with the regions whose verdicts count.
type continents struct{}

func (continents) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	place := func(lat, lon float64, country, continent string) *router.Place {
		return &router.Place{Location: topology.Location{LatDeg: lat, LonDeg: lon, Country: country}, Continent: continent}
	}
	return func(yield func(netip.Prefix, *router.Place) bool) {
		_ = yield(netip.MustParsePrefix("100.64.0.0/12"), place(1.29, 103.85, "SG", "AS")) &&
			yield(netip.MustParsePrefix("100.80.0.0/12"), place(50.1, 8.7, "DE", "EU")) &&
			yield(netip.MustParsePrefix("100.96.0.0/12"), place(-23.5, -46.6, "BR", "SA")) &&
			yield(netip.MustParsePrefix("100.112.0.0/12"), place(35.7, 139.7, "JP", "AS")) &&
			yield(netip.MustParsePrefix("2001:db8:1000::/36"), place(1.29, 103.85, "SG", "AS")) &&
			yield(netip.MustParsePrefix("2001:db8:2000::/36"), place(50.1, 8.7, "DE", "EU"))
	}
}

// besetClients are in each of those networks, many of them in different buckets, and outside.
var besetClients = []string{
	"", "0.0.0.0/0", "::/0", "198.51.100.0/24", "100.64.0.0/24", "100.64.16.0/24", "100.65.32.0/20", "100.79.0.0/16", "100.80.1.0/24", "100.81.16.0/22",
	"100.90.0.0/24", "100.96.0.0/24", "100.100.48.7/32", "100.112.0.0/24", "100.120.64.0/24", "2001:db8:1000::/48", "2001:db8:1f00::/56", "2001:db8:2000::/48",
}

// besetWorld is manifold with VIPs, which two PoPs announce, and services that are answered them; all PoPs have IPv6.
func besetWorld(t testing.TB) *topology.Topology {
	t.Helper()
	world := manifold()
	vips := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::99")}
	for i, name := range topology.ExamplePoPs {
		if name != "sin1" {
			world.PoPs[name].Addresses = append(world.PoPs[name].Addresses, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(16 + i)}))
		}
	}
	for _, name := range []string{"sin1", "fra1"} {
		world.PoPs[name].VIPs, world.PoPs[name].Announces = vips, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/48")}
	}
	for name, anycast := range map[string]*topology.Anycast{
		"vip":    {Mode: topology.AnycastAll, VIPs: vips},
		"hybrid": {Mode: topology.AnycastHybrid, VIPs: vips, Unicast: []netip.Prefix{netip.MustParsePrefix("100.80.0.0/14")}},
	} {
		s := *world.Services[serviceName]
		s.Steering.Anycast = anycast
		world.Services[name+"."+zoneName] = &s
	}
	s := *world.Services[serviceName]
	s.Steering.Panic = 60
	world.Services["panic."+zoneName] = &s
	if faults := world.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	return world
}

// A besetting is what makes a view other than that of a calm world.
type besetting struct {
	name      string
	verdicts  health.Verdicts
	overrides map[string]*topology.Override
	shares    map[string]float64
	spill     bool // half of the clients are sent on, by the first choices of each; others while sin1 is lost
}

func besettings(now time.Time) []besetting {
	verdict := func(pop string, v health.Verdict) health.Verdicts {
		return health.Verdicts{{Kind: health.PoP, Name: pop}: v}
	}
	both := func(all ...health.Verdicts) health.Verdicts {
		sum := health.Verdicts{}
		for _, v := range all {
			maps.Copy(sum, v)
		}
		return sum
	}
	override := func(kind topology.OverrideKind, pop string, share *float64, forced topology.ForcedVerdict) *topology.Override {
		return &topology.Override{Schema: 1, Kind: kind, PoP: pop, Share: share, Verdict: forced, Reason: "test", Author: "test", Created: now.Add(-time.Minute), Expires: now.Add(time.Hour)}
	}
	third := 1. / 3
	regional := verdict("sin1", health.Verdict{Status: health.Up, Regions: map[string]health.RegionVerdict{"AS": {Status: health.Down}}})
	elsewhere := verdict("fra1", health.Verdict{Status: health.Down, Regions: map[string]health.RegionVerdict{"SA": {Status: health.Up}, "AS": {Status: health.Up}}})
	degraded := verdict("nrt1", health.Verdict{Status: health.Degraded, Reason: "no cluster"})
	recovered := verdict("sin1", health.Verdict{Status: health.Up, Recovered: now.Add(-15 * time.Second)})
	decided := map[string]*topology.Override{
		"a": override(topology.Drain, "jnb1", nil, ""), "b": override(topology.Pin, "nrt1", &third, ""), "c": override(topology.Force, "gru1", nil, topology.ForceDown),
	}
	return []besetting{
		{name: "calm"},
		{name: "regional", verdicts: both(regional, elsewhere)},
		{name: "degraded and coming back", verdicts: both(degraded, recovered)},
		{name: "spill", spill: true},
		{name: "spill with a loss", verdicts: downed("sin1"), spill: true},
		{name: "decided", overrides: decided, shares: map[string]float64{"fra1": 0.4}},
		{name: "no VIP", verdicts: downed("sin1", "fra1")},
		{name: "all at once", verdicts: both(recovered, elsewhere, degraded), overrides: decided, shares: map[string]float64{"fra1": 0.4}, spill: true},
		{name: "all down", verdicts: downed(topology.ExamplePoPs...)},
	}
}

// beset returns a server whose zone is signed, with a view of a besetting.
func beset(t testing.TB, b besetting) *Server {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	world := besetWorld(t)
	snap := &topology.Snapshot{Revision: 7, Good: 7, Topology: world, Overrides: b.overrides, Signed: 6}
	signing := &topology.Signing{Schema: 1}
	var keys []*dnssec.Key
	for _, role := range []topology.KeyRole{topology.KSK, topology.ZSK} {
		key, err := dnssec.Generate(zoneName, role, dns.ECDSAP256SHA256)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		signing.Keys = append(signing.Keys, key.Public(topology.KeyActive, now))
	}
	snap.Signing = map[string]*topology.Signing{zoneName: signing}
	atlas, err := router.NewAtlas(continents{})
	if err != nil {
		t.Fatal(err)
	}
	live := router.NewLive(atlas)
	if err := live.Topology(snap, now); err != nil {
		t.Fatal(err)
	}
	live.Verdicts(b.verdicts, now)
	live.Shares(b.shares, now)
	if b.spill {
		live.Spill(halves(live.View().Table), now)
	}
	s := New(Config{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	s.Configure(Settings{Keys: dnssec.NewKeyring(keys...), RateLimit: RateLimit{PerSecond: 1e9, Slip: 2}})
	live.Prepare(s.Prepare)
	live.Follow(s.Publish)
	return s
}

// halves has the first two PoPs of each order that clients have take half of them, and less while sin1 is lost.
func halves(table *router.Table) router.Spill {
	s := router.Spill{Takes: map[router.Leading]router.Takes{}, Lost: map[string]map[router.Leading]router.Takes{"sin1": {}}}
	for _, client := range besetClients {
		if client == "" {
			continue
		}
		for _, family := range []router.Family{router.IPv4, router.IPv6} {
			for id := range table.Services() {
				for _, order := range table.Orders(router.ServiceID(id), family, netip.MustParsePrefix(client).Addr()) {
					if leading := order.Leading; leading[1] != "" {
						s.Takes[leading] = router.Takes{leading[0]: 0.5, leading[1]: 0.5}
						s.Lost["sin1"][leading] = router.Takes{leading[0]: 0.3, leading[1]: 0.8}
					}
				}
			}
		}
	}
	return s
}

// besetQuestions are those of all steered names, for all clients, without signatures and with them.
func besetQuestions(t testing.TB, s *Server) (plain, signed [][]byte) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(s.serving.Load().index.quick)) {
		if s.serving.Load().index.quick[name].service == nil {
			continue
		}
		for _, qtype := range familyTypes {
			for i, client := range besetClients {
				m := query(presentation(name), qtype, client)
				if opt := m.IsEdns0(); opt != nil {
					opt.SetDo(i%3 == 0)
					opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
				}
				if i%3 == 0 && client != "" {
					signed = append(signed, packOf(t, m))
				} else {
					plain = append(plain, packOf(t, m))
				}
			}
		}
	}
	return plain, signed
}
