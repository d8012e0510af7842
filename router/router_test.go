package router

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// networks is a geo database that a test writes down.
type networks []network

type network struct {
	prefix netip.Prefix
	place  *Place
}

func (n networks) Networks() iter.Seq2[netip.Prefix, *Place] {
	return func(yield func(netip.Prefix, *Place) bool) {
		for _, entry := range n {
			if !yield(entry.prefix, entry.place) {
				return
			}
		}
	}
}

func at(lat, lon float64, country string) *Place {
	continent := map[string]string{"SG": "AS", "JP": "AS", "IN": "AS", "DE": "EU", "RU": "EU", "US": "NA", "BR": "SA", "ZA": "AF", "NG": "AF", "AU": "OC"}[country]
	return &Place{Location: topology.Location{LatDeg: lat, LonDeg: lon, Country: country}, Continent: continent}
}

var (
	singapore    = at(1.29, 103.85, "SG")
	frankfurt    = at(50.11, 8.68, "DE")
	virginia     = at(39.04, -77.49, "US")
	tokyo        = at(35.69, 139.69, "JP")
	saoPaulo     = at(-23.55, -46.64, "BR")
	johannesburg = at(-26.2, 28.04, "ZA")
)

// world has networks of six places, with holes between them, and neighbours of one place.
func world() networks {
	var w networks
	for _, entry := range []struct {
		prefix string
		place  *Place
	}{
		{"1.0.0.0/24", singapore}, {"1.0.1.0/24", singapore}, {"1.0.2.0/23", tokyo}, {"1.0.8.0/21", singapore},
		{"2.0.0.0/12", frankfurt}, {"2.16.0.0/16", virginia}, {"2.17.0.0/16", frankfurt},
		{"3.0.0.0/8", virginia}, {"41.0.0.0/11", johannesburg}, {"200.0.0.0/7", saoPaulo},
		{"2001:200::/32", tokyo}, {"2001:db8::/33", frankfurt}, {"2001:db8:8000::/33", singapore}, {"2a00::/12", frankfurt},
	} {
		w = append(w, network{netip.MustParsePrefix(entry.prefix), entry.place})
	}
	return w
}

func pop(place *Place, addresses ...string) *topology.PoP {
	p := &topology.PoP{Schema: 1, Location: place.Location, Port: 443, State: topology.Active}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

func sixPoPs() *topology.Topology {
	return &topology.Topology{
		PoPs: map[string]*topology.PoP{
			"sin1": pop(singapore, "192.0.2.1", "2001:db8::1"),
			"fra1": pop(frankfurt, "192.0.2.2", "2001:db8::2"),
			"iad1": pop(virginia, "192.0.2.3"),
			"nrt1": pop(tokyo, "192.0.2.4", "2001:db8::4"),
			"gru1": pop(saoPaulo, "192.0.2.5"),
			"jnb1": pop(johannesburg, "192.0.2.6"),
		},
		Services: map[string]*topology.Service{"intake.example": {
			Steering: topology.Steering{Answers: 1, ECS: topology.UseECS, WhenAllDown: topology.FailOpen},
		}},
	}
}

func compileTest(t testing.TB, top *topology.Topology, geo Geo) *Table {
	t.Helper()
	return compileMap(t, top, geo, nil)
}

func compileMap(t testing.TB, top *topology.Topology, geo Geo, measured *rtt.Map) *Table {
	t.Helper()
	atlas, err := NewAtlas(geo)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Compile(&topology.Snapshot{Revision: 1, Topology: top}, atlas, measured)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func viewOf(table *Table, down ...string) *View {
	verdicts := health.Verdicts{}
	for _, name := range down {
		verdicts[health.Target{Kind: health.PoP, Name: name}] = health.Verdict{Status: health.Down, Reason: "refused"}
	}
	return &View{table, NewState(table, Inputs{Verdicts: verdicts, Now: start})}
}

// ask decides and names the PoPs.
func ask(t testing.TB, v *View, f Family, client string) ([]string, Answer) {
	t.Helper()
	prefix, err := netip.ParsePrefix(client)
	if err != nil {
		t.Fatal(err)
	}
	a := Decide(v, 0, f, prefix, nil)
	var names []string
	for _, c := range a.Choices[:a.N] {
		name, _ := v.Table.PoP(c)
		names = append(names, name)
	}
	return names, a
}

func TestDecide(t *testing.T) {
	six := compileTest(t, sixPoPs(), world())
	for _, test := range []struct {
		name   string
		view   *View
		family Family
		client string
		want   string
		scope  uint8
	}{
		{"own city", viewOf(six), IPv4, "1.0.0.0/24", "sin1", 23},
		{"asked with less than the table knows", viewOf(six), IPv4, "1.0.0.0/16", "sin1", 23},
		{"asked with a whole address", viewOf(six), IPv4, "2.1.2.3/32", "fra1", 12},
		{"neighbour with another answer", viewOf(six), IPv4, "2.16.5.0/24", "iad1", 16},
		{"mapped address", viewOf(six), IPv4, "::ffff:3.1.2.3/128", "iad1", 8},
		{"IPv6", viewOf(six), IPv4, "2001:db8:8000::/48", "sin1", 33},
		{"nearest is down", viewOf(six, "sin1"), IPv4, "1.0.0.0/24", "nrt1", 23},
		{"only PoPs of the family compete", viewOf(six), IPv6, "3.0.0.0/24", "fra1", 8},
		{"all down: open", viewOf(six, "sin1", "fra1", "iad1", "nrt1", "gru1", "jnb1"), IPv4, "1.0.0.0/24", "sin1", 23},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, a := ask(t, test.view, test.family, test.client)
			if fmt.Sprint(got) != "["+test.want+"]" || a.Outcome != Answered {
				t.Errorf("got %v (%v), want %s", got, a.Outcome, test.want)
			}
			if a.ScopeBits != test.scope {
				t.Errorf("got scope /%d, want /%d", a.ScopeBits, test.scope)
			}
		})
	}
}

func TestDecideUnknownPlace(t *testing.T) {
	top := sixPoPs()
	got, _ := ask(t, viewOf(compileTest(t, top, world())), IPv4, "100.64.0.0/24")
	if len(got) != 1 || got[0] != "fra1" && got[0] != "iad1" {
		t.Errorf("got %v, want a PoP near most of the world's nodes", got)
	}
	top.Services["intake.example"].Steering.Failover = []string{"jnb1", "gru1"}
	table := compileTest(t, top, world())
	if got, _ := ask(t, viewOf(table), IPv4, "100.64.0.0/24"); fmt.Sprint(got) != "[jnb1]" {
		t.Errorf("got %v, want the first of the failover order, jnb1", got)
	}
	if got, _ := ask(t, viewOf(table, "jnb1"), IPv4, "100.64.0.0/24"); fmt.Sprint(got) != "[gru1]" {
		t.Errorf("got %v, want the second of the failover order, gru1", got)
	}
}

func TestDecideOutcomes(t *testing.T) {
	top := sixPoPs()
	for _, name := range []string{"sin1", "fra1", "nrt1"} {
		top.PoPs[name].Addresses = top.PoPs[name].Addresses[:1]
	}
	if _, a := ask(t, viewOf(compileTest(t, top, world())), IPv6, "1.0.0.0/24"); a.Outcome != NoFamily || a.ScopeBits != 0 {
		t.Errorf("no PoP has IPv6: got %+v, want NoFamily with scope 0", a)
	}
	all := []string{"sin1", "fra1", "iad1", "nrt1", "gru1", "jnb1"}
	top.Services["intake.example"].Steering.WhenAllDown = topology.FailEmpty
	if _, a := ask(t, viewOf(compileTest(t, top, world()), all...), IPv4, "1.0.0.0/24"); a.Outcome != Empty || a.ScopeBits != 0 {
		t.Errorf("all are down and the service says empty: got %+v, want Empty with scope 0", a)
	}
	for _, p := range top.PoPs {
		p.State = topology.Disabled
	}
	if _, a := ask(t, viewOf(compileTest(t, top, world()), all...), IPv4, "1.0.0.0/24"); a.Outcome != NoneAllowed || a.ScopeBits != 0 {
		t.Errorf("all are disabled: got %+v, want NoneAllowed with scope 0", a)
	}
}

func TestFailOpenKeepsOperatorsDecisions(t *testing.T) {
	top := sixPoPs()
	top.PoPs["sin1"].State = topology.Draining
	got, a := ask(t, viewOf(compileTest(t, top, world()), "sin1", "fra1", "iad1", "nrt1", "gru1", "jnb1"), IPv4, "1.0.0.0/24")
	if fmt.Sprint(got) != "[nrt1]" || a.Fallback != FailOpen {
		t.Errorf("got %v, fallback %q; want nrt1, since sin1 is draining", got, a.Fallback)
	}
}

func TestOverrideExpires(t *testing.T) {
	table := compileTest(t, sixPoPs(), world())
	drain := map[string]*topology.Override{"a": {Kind: topology.Drain, PoP: "sin1", Expires: start.Add(time.Hour), Author: "ops", Reason: "test"}}
	for _, test := range []struct {
		after time.Duration
		want  string
	}{{0, "[nrt1]"}, {time.Hour - 1, "[nrt1]"}, {time.Hour, "[sin1]"}} {
		state := NewState(table, Inputs{Overrides: drain, Now: start.Add(test.after)})
		if got, _ := ask(t, &View{table, state}, IPv4, "1.0.0.0/24"); fmt.Sprint(got) != test.want {
			t.Errorf("%v after the drain: got %v, want %s", test.after, got, test.want)
		}
	}
}

// TestOverrides has operators decide about sin1, which is nearest to the client, and next about nrt1.
func TestOverrides(t *testing.T) {
	table := compileTest(t, sixPoPs(), world())
	override := func(kind topology.OverrideKind, verdict topology.ForcedVerdict, share *float64, age time.Duration) *topology.Override {
		return &topology.Override{
			Kind: kind, PoP: "sin1", Verdict: verdict, Share: share, Author: "ops", Reason: "works", Created: start.Add(-age), Expires: start.Add(time.Hour),
		}
	}
	none, whole := 0.0, 1.0
	up, down := override(topology.Force, topology.ForceUp, nil, 2), override(topology.Force, topology.ForceDown, nil, 1)
	newerUp, drain := override(topology.Force, topology.ForceUp, nil, 0), override(topology.Drain, "", nil, 3)
	pinned, unpinned := override(topology.Pin, "", &none, 1), override(topology.Pin, "", &whole, 1)
	for _, test := range []struct {
		name      string
		dead      []string
		share     float64
		overrides []*topology.Override
		want, why string // of sin1
	}{
		{"down", nil, 1, []*topology.Override{down}, "[nrt1]", "forced down by ops until 2030-01-01T01:00:00Z: works"},
		{"up", []string{"sin1"}, 1, []*topology.Override{up}, "[sin1]", "nearest that may be answered (forced up by ops until 2030-01-01T01:00:00Z: works)"},
		{"the newest counts", nil, 1, []*topology.Override{up, down}, "[nrt1]", "forced down by"},
		{"whichever comes first", []string{"sin1"}, 1, []*topology.Override{newerUp, down, up}, "[sin1]", "(forced up by"},
		{"at once", nil, 1, []*topology.Override{down, down, up, newerUp, newerUp}, "[sin1]", "(forced up by"},
		{"a drain is stronger", nil, 1, []*topology.Override{drain, newerUp}, "[nrt1]", "drained by ops until"},
		{"down and all dead", []string{"fra1", "iad1", "nrt1", "gru1", "jnb1"}, 1, []*topology.Override{down}, "[sin1]", "fails open (forced down by"},
		{"pinned to nothing", nil, 1, []*topology.Override{pinned}, "[nrt1]", "gets 0 % of its clients, and this one is not among them (pinned to 0 % by"},
		{"pinned to all", nil, 0, []*topology.Override{unpinned}, "[sin1]", "nearest that may be answered (pinned to 100 % by ops"},
		{"pinned while forced down", nil, 1, []*topology.Override{unpinned, down}, "[nrt1]", "forced down by"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := Inputs{Verdicts: viewOf(table, test.dead...).State.Verdicts(), Overrides: map[string]*topology.Override{}, Shares: map[string]float64{"sin1": test.share}, Now: start}
			for i, o := range test.overrides {
				in.Overrides[fmt.Sprint(i)] = o
			}
			view := &View{table, NewState(table, in)}
			var trace Trace
			Decide(view, 0, IPv4, netip.MustParsePrefix("1.0.0.0/24"), &trace)
			i := slices.IndexFunc(trace.Candidates, func(c Candidate) bool { return c.PoP == "sin1" })
			if c := trace.Candidates[i]; fmt.Sprint(trace.Answer) != test.want || !strings.Contains(c.Reason, test.why) || !strings.Contains(c.Override, " by ops until ") {
				t.Errorf("got %v, %s, override %q\nwant %s, %s", trace.Answer, c.Reason, c.Override, test.want, test.why)
			}
			if expires, ok := view.State.Expires(); !ok || !expires.Equal(start.Add(time.Hour)) {
				t.Errorf("expires %v, %v", expires, ok)
			}
			if lost, _ := ask(t, &View{table, view.State.Without(table, "sin1")}, IPv4, "1.0.0.0/24"); len(test.dead) < 5 && fmt.Sprint(lost) != "[nrt1]" {
				t.Errorf("without sin1 the client gets %v, whatever operators have forced", lost)
			}
		})
	}
}

// randomWorld has many networks of a dozen places, side by side, nested in nothing, in both families.
func randomWorld(r *rand.Rand) networks {
	places := []*Place{singapore, frankfurt, virginia, tokyo, saoPaulo, johannesburg, at(19.08, 72.88, "IN"), at(-33.87, 151.21, "AU"), at(55.76, 37.62, "RU"), at(6.52, 3.38, "NG")}
	var w networks
	for _, base := range []string{"10.0.0.0/8", "2001:db8::/32"} {
		prefix := netip.MustParsePrefix(base)
		bits, end := prefix.Bits(), addressOf(prefix.Addr()).last(prefix.Bits())
		next := addressOf(prefix.Addr())
		for !end.less(next) {
			length := bits + 2 + r.IntN(14)
			for next.mask(length) != next {
				length++
			}
			if r.IntN(5) > 0 {
				place := places[r.IntN(len(places))]
				if len(w) > 0 && r.IntN(2) == 0 {
					place = w[len(w)-1].place
				}
				w = append(w, network{next.prefix(length, prefix.Addr().Is4()), place})
			}
			var more bool
			if next, more = next.last(length).next(); !more {
				break
			}
		}
	}
	return w
}

// randomAddress returns an address inside the prefix.
func randomAddress(r *rand.Rand, prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(b)*8; i++ {
		if r.IntN(2) == 1 {
			b[i/8] |= 1 << (7 - i%8)
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func TestDecideDoesNotAllocate(t *testing.T) {
	view := viewOf(compileTest(t, sixPoPs(), world()), "sin1")
	client := netip.MustParsePrefix("1.0.0.0/24")
	if n := testing.AllocsPerRun(1000, func() { Decide(view, 0, Either, client, nil) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func TestTraceTellsEveryCandidate(t *testing.T) {
	top := sixPoPs()
	top.PoPs["nrt1"].State = topology.Disabled
	view := viewOf(compileTest(t, top, world()), "sin1")
	var trace Trace
	a := Decide(view, 0, IPv4, netip.MustParsePrefix("1.0.0.0/24"), &trace)
	if plain := Decide(view, 0, IPv4, netip.MustParsePrefix("1.0.0.0/24"), nil); plain != a {
		t.Errorf("a trace changes the decision: %+v against %+v", a, plain)
	}
	if len(trace.Candidates) != len(top.PoPs) || trace.Network.String() != "1.0.0.0/23" || trace.Place != singapore {
		t.Errorf("got %d candidates, network %v, place %v", len(trace.Candidates), trace.Network, trace.Place)
	}
	for _, c := range trace.Candidates {
		if c.Reason == "" || c.PredictedMS <= 0 || c.Chosen != slices.Contains(trace.Answer, c.PoP) {
			t.Errorf("candidate %+v, answer %v", c, trace.Answer)
		}
	}
}

func TestAtlasRefusesOverlap(t *testing.T) {
	geo := networks{{netip.MustParsePrefix("1.0.0.0/8"), tokyo}, {netip.MustParsePrefix("1.1.0.0/16"), singapore}}
	if _, err := NewAtlas(geo); err == nil {
		t.Error("overlapping networks were taken")
	}
}
