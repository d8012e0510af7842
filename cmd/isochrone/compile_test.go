package main

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// TestCompilerTakes has overrides come while nothing is to be compiled, and while something is: each takes effect at once and by one view,
// and in the end the newest snapshot is in force.
func TestCompilerTakes(t *testing.T) {
	world := func(port uint16) *topology.Topology {
		pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
		for i, name := range topology.ExamplePoPs {
			pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), port)
		}
		for _, name := range topology.ExampleClusters {
			clusters[name] = "http://" + name + ".example"
		}
		return topology.Example(netip.MustParseAddr("203.0.113.53"), pops, clusters)
	}
	one, other := world(8443), world(8444)
	snap := func(revision int64, top *topology.Topology, drained string) *topology.Snapshot {
		s := &topology.Snapshot{Revision: revision, Good: revision, Topology: top}
		if drained != "" {
			now := time.Now()
			s.Overrides = map[string]*topology.Override{"a": {Schema: 1, Kind: topology.Drain, PoP: drained, Reason: "r", Author: "a", Created: now, Expires: now.Add(time.Hour)}}
		}
		return s
	}
	atlas, err := router.NewAtlas(noNetworks{})
	if err != nil {
		t.Fatal(err)
	}
	live, views := router.NewLive(atlas), 0
	live.Follow(func(*router.View) { views++ })
	c := newCompiler(live, slog.New(slog.DiscardHandler))
	want := func(step string, revision int64, top *topology.Topology, drained string, published int) {
		t.Helper()
		v := live.View()
		got := ""
		for c := range router.Choice(v.Table.PoPs()) {
			if name, _ := v.Table.PoP(c); v.State.Decisions().PoP(name).Drained() {
				got += name
			}
		}
		if now := v.Table.Snapshot(); now.Revision != revision || now.Topology != top || got != drained || views != published {
			t.Errorf("%s: revision %d, the topology %v, drained %q, view %d; want %d, %q, %d", step, now.Revision, now.Topology == top, got, views, revision, drained, published)
		}
	}
	c.take(snap(1, one, ""))
	want("the first", 1, one, "", 1)
	c.take(snap(2, one, "sin1"))
	want("an override", 2, one, "sin1", 2)
	c.take(snap(3, other, "sin1"))
	want("a topology waits", 2, one, "sin1", 2)
	c.take(snap(4, other, "fra1"))
	want("an override meanwhile", 2, one, "fra1", 3)
	c.take(snap(5, one, "fra1"))
	c.take(snap(6, one, "nrt1"))
	want("back to the one in force", 2, one, "nrt1", 4)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	eventually(t, "all is compiled", func() error {
		if c.pending.Load() != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	cancel()
	<-done
	want("in the end", 6, one, "nrt1", 5)
	c.take(snap(7, one, ""))
	want("an override again", 7, one, "", 6)
}

// noNetworks is a geo database that knows nobody.
type noNetworks struct{}

func (noNetworks) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(func(netip.Prefix, *router.Place) bool) {}
}
