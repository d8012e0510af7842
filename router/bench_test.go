package router_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// example is a small topology on the built-in database.
func example(b *testing.B) (*topology.Snapshot, *geo.DB) {
	db, err := geo.Default()
	if err != nil {
		b.Fatal(err)
	}
	top := &topology.Topology{PoPs: map[string]*topology.PoP{}, Services: map[string]*topology.Service{
		"intake.example": {Steering: topology.Steering{Answers: 1}},
	}}
	for i, metro := range rtt.Metros()[:40] {
		address := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		top.PoPs[metro.City] = &topology.PoP{Location: metro.Location, Addresses: []netip.Addr{address}, State: topology.Active}
	}
	return &topology.Snapshot{Topology: top}, db
}

func BenchmarkCompile(b *testing.B) {
	snap, db := example(b)
	atlas, err := router.NewAtlas(db)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := router.Compile(snap, atlas, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	snap, db := example(b)
	atlas, err := router.NewAtlas(db)
	if err != nil {
		b.Fatal(err)
	}
	table, err := router.Compile(snap, atlas, nil)
	if err != nil {
		b.Fatal(err)
	}
	view := &router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Now()})}
	clients := make([]netip.Prefix, 1<<16)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range clients {
		v := random.Uint32()
		clients[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), 0}), 24)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		router.Decide(view, 0, router.IPv4, clients[i&(1<<16-1)], nil)
		i++
	}
}
