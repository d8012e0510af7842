package dns

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// TestReloadKeepsAnswers configures a server anew: without other keys, the answers that are packed stay, so that no question has to wait
// for the full path.
func TestReloadKeepsAnswers(t *testing.T) {
	s := signed(t, example(), nil, zoneName)
	before := s.serving.Load()
	settings := s.settings
	settings.NSID, settings.RateLimit.PerSecond = "ns7", 100
	s.Configure(settings)
	after := s.serving.Load()
	if after.index != before.index || after.settings.NSID != "ns7" || after.limiter == nil {
		t.Errorf("index kept: %v, NSID %q, limited: %v", after.index == before.index, after.settings.NSID, after.limiter != nil)
	}
	settings.Keys = dnssec.NewKeyring()
	s.Configure(settings)
	if s.serving.Load().index == after.index {
		t.Error("the index is the same with other keys")
	}
}

// TestEditIsAnsweredQuickly publishes another topology: the fast path has the answers of services at once.
func TestEditIsAnsweredQuickly(t *testing.T) {
	s := signed(t, example(), nil, zoneName)
	before := s.serving.Load()
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	next := *before.view.Table.Snapshot()
	next.Topology, next.Good = example(), 8
	live := router.NewLive(atlas)
	if err := live.Topology(&next, s.now()); err != nil {
		t.Fatal(err)
	}
	live.Follow(s.Publish)
	if s.serving.Load().index == before.index {
		t.Fatal("the index was not made anew")
	}
	wantQuick(t, s)
}

// TestNewTableIsForeseen gives a server another table of the same topology: by it clients get other PoPs, whose answers are made ahead.
func TestNewTableIsForeseen(t *testing.T) {
	world := example()
	world.Services[serviceName].Steering.Answers = 2
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	live := router.NewLive(atlas)
	if err := live.Topology(&topology.Snapshot{Revision: 7, Good: 7, Topology: world}, time.Now()); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	live.Follow(s.Publish)
	<-s.renewed
	s.anticipate(t.Context())
	before := s.serving.Load()
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	measured, err := rtt.NewMap([]rtt.Measurement{
		{Prefix: prefix, PoP: "gru1", RTT: time.Millisecond, Samples: 10_000}, {Prefix: prefix, PoP: "jnb1", RTT: 2 * time.Millisecond, Samples: 10_000},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := live.Measured(measured, time.Now()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.renewed:
		s.anticipate(t.Context())
	default:
		t.Fatal("nobody is told of the new table")
	}
	if s.serving.Load().index != before.index {
		t.Error("the index was made anew")
	}
	wantQuick(t, s)
}

// TestEscapedOwner asks for a name that a record has with a needless escape of a capital letter.
func TestEscapedOwner(t *testing.T) {
	world := example()
	world.Zones[zoneName].Records = []string{`\065bc 300 A 192.0.2.7`}
	if faults := world.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	got := summary(ask(t, serve(t, world, nil), query("abc."+zoneName, dns.TypeA, ""), "127.0.0.1"))
	if want := "NOERROR aa 300 IN A 192.0.2.7"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// wantQuick asks for the service, which the fast path must have an answer for.
func wantQuick(t *testing.T, s *Server) {
	t.Helper()
	w := s.newWorker(s.common)
	w.tick()
	packet, err := query(serviceName, dns.TypeA, "192.0.2.0/24").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, n := quickly(w, packet, netip.MustParseAddr("127.0.0.1")); n <= 0 {
		t.Errorf("the fast path has no answer: %d", n)
	}
}

// TestPrepareMakesTheIndex edits a topology behind a Live: its index is made before the view is published, which takes the very one.
func TestPrepareMakesTheIndex(t *testing.T) {
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	s, live := New(Config{Log: slog.New(slog.DiscardHandler)}), router.NewLive(atlas)
	var made *index
	live.Prepare(func(v *router.View) {
		before := s.serving.Load()
		s.Prepare(v)
		if made = s.ahead.index; s.serving.Load() != before {
			t.Error("what is prepared is served already")
		}
		if view := live.View(); view != nil { // a verdict meanwhile
			s.Publish(view)
		}
	})
	live.Follow(s.Publish)
	for edit := range int64(3) {
		world := example()
		if edit == 2 { // there are more PoPs, and others have other numbers
			for _, name := range []string{"a1", "a2", "z1"} {
				p := *world.PoPs["sin1"]
				p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, name[0] + name[1]})}
				world.PoPs[name] = &p
			}
			for _, service := range world.Services {
				service.PoPs = nil
			}
		}
		if err := live.Topology(&topology.Snapshot{Revision: 7 + edit, Good: 7 + edit, Topology: world}, s.now()); err != nil {
			t.Fatal(err)
		}
		if s.serving.Load().index != made || s.ahead != nil {
			t.Errorf("edit %d: the index was made again", edit)
		}
		if edit > 0 {
			wantQuick(t, s)
		}
	}
}

// TestPrepareWithAnotherPoP adds a PoP that comes before all others: the answers that are made ahead count for the PoPs that they name.
func TestPrepareWithAnotherPoP(t *testing.T) {
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	s, live := New(Config{Log: slog.New(slog.DiscardHandler)}), router.NewLive(atlas)
	live.Prepare(s.Prepare)
	live.Follow(s.Publish)
	more := example()
	for _, pop := range more.PoPs {
		more.PoPs["aaa1"] = pop // at the same place
		break
	}
	for edit, top := range []*topology.Topology{example(), more} {
		if err := live.Topology(&topology.Snapshot{Revision: 7 + int64(edit), Good: 7 + int64(edit), Topology: top}, s.now()); err != nil {
			t.Fatal(err)
		}
	}
	sv := s.serving.Load()
	for _, n := range sv.index.quick {
		if n.service == nil {
			continue
		}
		for choices := range sv.view.Table.Foreseen(n.service.id, router.IPv4) {
			made := sv.index.answers.find(n.typed[0].id, choices, false)
			if name, _ := sv.view.Table.PoP(choices[0]); made != nil && s.popNames[made.pop] != name {
				t.Errorf("an answer of %s counts for %s", name, s.popNames[made.pop])
			}
		}
	}
}
