package main

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// gridded is a geo database of so many IPv4 prefixes, /24 in the order of their addresses, at the metros of blockchain nodes in turn.
type gridded int

func (g gridded) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	var places []*router.Place
	for _, m := range rtt.Metros() {
		places = append(places, &router.Place{Location: m.Location})
	}
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i := range int(g) {
			at := netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 0})
			if !yield(netip.PrefixFrom(at, 24), places[i%len(places)]) {
				return
			}
		}
	}
}

// BenchmarkEditToAnswer edits a topology that a hundred nodes follow, each with a watch of its own of one etcd, and takes the time until a DNS
// node gives the right answer over UDP. One of the hundred makes tables and answers, the others make snapshots: they would make theirs on
// machines of their own.
func BenchmarkEditToAnswer(b *testing.B) {
	for _, size := range []struct{ pops, prefixes int }{{40, 10_000}, {500, 1_000_000}} {
		b.Run(fmt.Sprintf("pops=%d/prefixes=%d", size.pops, size.prefixes), func(b *testing.B) {
			w := newEditWorld(b, size.pops, size.prefixes, 100)
			for _, kind := range []string{"apply", "put", "override"} {
				b.Run(kind, func(b *testing.B) {
					var took []time.Duration
					for b.Loop() {
						took = append(took, w.edit(b, kind))
					}
					slices.Sort(took)
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
					b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
				})
			}
		})
	}
}

// editWorld is a topology with nodes that follow it.
type editWorld struct {
	store   *store.Store
	client  *clientv3.Client
	conn    net.Conn // to the DNS node
	name    string   // of the PoP that is edited
	pop     topology.PoP
	edits   int
	drained bool
}

func newEditWorld(b *testing.B, pops, prefixes, nodes int) *editWorld {
	b.Helper()
	etcd, err := embedded.Start(b.Context(), embedded.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(etcd.Close)
	connect := func() *clientv3.Client {
		client, err := connectEtcd(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { client.Close() })
		return client
	}
	w := &editWorld{client: connect()}
	w.store = store.New(w.client, storeRoot)
	addrs := map[string]netip.AddrPort{}
	for i, name := range topology.ExamplePoPs {
		addrs[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 443)
	}
	world, put := topology.Example(netip.MustParseAddr("127.0.0.1"), addrs, map[string]string{"ap": "http://127.0.0.1:1", "eu": "http://127.0.0.1:2", "us": "http://127.0.0.1:3"}), map[topology.Ref]topology.Object{}
	like := *world.PoPs["sin1"]
	world.PoPs = map[string]*topology.PoP{}
	for i := range pops {
		p := like
		metro := rtt.Metros()[i%len(rtt.Metros())]
		metro.Location.LatDeg = max(-89, min(89, metro.Location.LatDeg+float64(i/len(rtt.Metros())))) // one alone is at the client's place
		p.Location, p.Addresses = metro.Location, []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}
		world.PoPs[fmt.Sprintf("p%03d", i)] = &p
	}
	w.name, w.pop = "p000", *world.PoPs["p000"]
	for _, r := range world.Refs() {
		put[r] = world.Object(r)
	}
	if _, err := w.store.Apply(b.Context(), store.Change{Put: put}); err != nil {
		b.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	b.Cleanup(func() { cancel(); running.Wait() })
	var ready sync.WaitGroup
	follow := func(take func(*topology.Snapshot)) {
		ready.Add(1)
		first := sync.OnceFunc(ready.Done)
		s := store.New(connect(), storeRoot)
		running.Go(func() {
			_ = (&store.Follower{Feed: s.Feed(store.SectionsOf("dns")), Publish: func(snap *topology.Snapshot) { take(snap); first() }}).Run(ctx)
		})
	}
	for range nodes - 1 {
		follow(func(*topology.Snapshot) {})
	}
	atlas, err := router.NewAtlas(gridded(prefixes))
	if err != nil {
		b.Fatal(err)
	}
	live, log := router.NewLive(atlas), slog.New(slog.DiscardHandler)
	server, tables := dns.New(dns.Config{Log: log}), newCompiler(live, log)
	live.Prepare(server.Prepare)
	live.Follow(server.Publish)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	running.Go(func() { _ = server.Run(ctx, dns.Sockets{UDP: []*net.UDPConn{udp}}) })
	running.Go(func() { _ = tables.run(ctx) })
	follow(tables.take)
	ready.Wait()
	if w.conn, err = net.Dial("udp", udp.LocalAddr().String()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.conn.Close() })
	return w
}

// edit makes an edit and waits for its answer.
func (w *editWorld) edit(b *testing.B, kind string) time.Duration {
	b.Helper()
	w.edits++
	before, next, drain := w.pop.Addresses[0], w.pop, !w.drained
	next.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 2, byte(w.edits >> 8), byte(w.edits)})}
	var err error
	right := func(got netip.Addr) bool { return got == next.Addresses[0] }
	began := time.Now()
	switch kind {
	case "apply":
		_, err = w.store.Apply(b.Context(), store.Change{Put: map[topology.Ref]topology.Object{{Kind: topology.PoPs, Name: w.name}: &next}, Author: "b"})
	case "put":
		_, err = w.client.Put(b.Context(), storeRoot+"topology/pops/"+w.name, string(topology.MarshalValue(&next)))
	case "override":
		if next, w.drained = w.pop, drain; drain {
			right = func(got netip.Addr) bool { return got != before }
			_, err = w.store.PutOverride(b.Context(), "o", &topology.Override{
				Schema: 1, Kind: topology.Drain, PoP: w.name, Reason: "r", Author: "b", Created: began, Expires: began.Add(time.Hour),
			})
		} else {
			_, err = w.store.DeleteOverride(b.Context(), "o", "b")
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	w.pop = next
	for !right(w.ask(b)) {
		if time.Since(began) > 20*time.Second {
			b.Fatalf("no answer after %s", kind)
		}
		<-time.After(500 * time.Microsecond)
	}
	return time.Since(began)
}

// ask asks for the service, from beside the PoP that is edited.
func (w *editWorld) ask(b *testing.B) netip.Addr {
	b.Helper()
	m := new(mdns.Msg).SetQuestion(topology.ExampleService+".", mdns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(1, 0, 0, 0)})
	packet, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	buffer := make([]byte, 4096)
	if _, err := w.conn.Write(packet); err != nil {
		b.Fatal(err)
	}
	if err := w.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		b.Fatal(err)
	}
	n, err := w.conn.Read(buffer)
	if err != nil {
		b.Fatal(err)
	}
	var answer mdns.Msg
	if err := answer.Unpack(buffer[:n]); err != nil || len(answer.Answer) == 0 {
		b.Fatalf("got %v, %v", &answer, err)
	}
	addr, _ := netip.AddrFromSlice(answer.Answer[0].(*mdns.A).A.To4())
	return addr
}
