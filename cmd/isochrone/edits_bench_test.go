package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	mdns "github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// editWorld is an etcd with a world, a DNS node and a control plane of it as processes of their own, and others that only follow.
type editWorld struct {
	client   *clientv3.Client
	api      *controlplane.Client
	dns      net.Conn
	topology *topology.Topology
}

// startEditWorld starts a world of PoPs, all over the world, with a geo database of a number of networks.
func startEditWorld(b *testing.B, pops, networks, followers int) *editWorld {
	b.Helper()
	etcd, client := startEtcd(b)
	w := &editWorld{client: client, topology: &topology.Topology{}}
	forty, err := os.ReadFile("../../docs/forty-pops.yaml")
	if err != nil {
		b.Fatal(err)
	}
	if w.topology, err = topology.Parse(forty); err != nil {
		b.Fatal(err)
	}
	names := w.topology.Refs()
	for i := len(w.topology.PoPs); i < pops; i++ {
		like := w.topology.PoPs[names[len(names)-1-i%40].Name]
		for n := i; like == nil; n++ {
			like = w.topology.PoPs[names[n%len(names)].Name]
		}
		p := *like
		p.Location.LatDeg = min(89, p.Location.LatDeg+float64(i)/1000)
		p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		w.topology.PoPs[fmt.Sprintf("more%d", i)] = &p
	}
	put := map[topology.Ref]topology.Object{}
	for _, r := range w.topology.Refs() {
		put[r] = w.topology.Object(r)
	}
	if _, err := store.New(client, storeRoot).Apply(b.Context(), store.Change{Put: put, Author: "benchmark"}); err != nil {
		b.Fatal(err)
	}
	geo := filepath.Join(b.TempDir(), "geo.mmdb")
	writeNetworks(b, geo, networks)
	node := start(b, "DNS node serves", "dns", "--dir", b.TempDir(), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--probe=false",
		"--workers", "1", "--rate-limit", "0", "--geoip", geo, "--etcd", etcd.Endpoint())
	if w.dns, err = net.Dial("udp", servesLine.FindStringSubmatch(node.output.String())[1]); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.dns.Close() })
	token := strings.TrimSpace(mustRun(b, "token", "create", "benchmark", "--role", "operator", "--etcd", etcd.Endpoint()))
	_, url := startControl(b, "--dir", b.TempDir(), "--probe=false", "--geoip", geo, "--etcd", etcd.Endpoint())
	if w.api, err = controlplane.NewClient(controlplane.ClientConfig{URL: url, Token: func() (string, error) { return token, nil }}); err != nil {
		b.Fatal(err)
	}
	w.follow(b, etcd.Endpoint(), followers)
	return w
}

// follow has many nodes follow the store, each by a client of its own.
func (w *editWorld) follow(b *testing.B, endpoint string, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	var following, ready sync.WaitGroup
	b.Cleanup(func() {
		cancel()
		following.Wait()
	})
	for range n {
		client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{endpoint}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { client.Close() })
		ready.Add(1)
		first := sync.OnceFunc(ready.Done)
		following.Go(func() {
			_ = store.New(client, storeRoot).Follow(ctx, nil, func(*topology.Snapshot) { first() }) // until the end
		})
	}
	ready.Wait()
}

// writeNetworks writes a geo database of n networks, all over the world.
func writeNetworks(b *testing.B, path string, n int) {
	b.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-City", IncludeReservedNetworks: true})
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		at := netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 0})
		_, network, err := net.ParseCIDR(at.String() + "/24")
		if err != nil {
			b.Fatal(err)
		}
		place := i * 7919 % 97_000 // as many places as a real database has
		record := mmdbtype.Map{
			"country":   mmdbtype.Map{"iso_code": mmdbtype.String([]string{"SG", "DE", "US", "BR", "JP"}[i%5])},
			"continent": mmdbtype.Map{"code": mmdbtype.String([]string{"AS", "EU", "NA", "SA", "AS"}[i%5])},
			"location": mmdbtype.Map{
				"latitude": mmdbtype.Float64(float64(place%311)*0.4 - 60), "longitude": mmdbtype.Float64(float64(place/311)*1.15 - 180),
			},
		}
		if err := tree.Insert(network, record); err != nil {
			b.Fatal(err)
		}
	}
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if _, err := tree.WriteTo(file); err != nil {
		b.Fatal(err)
	}
}

// edit makes an edit, once the limit of writes allows it, and returns when it began.
func (w *editWorld) edit(b *testing.B, do func(context.Context) error) (began time.Time) {
	b.Helper()
	for {
		began = time.Now()
		err := do(b.Context())
		if err == nil {
			return began
		}
		if !errors.Is(err, controlplane.ErrLimited) {
			b.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// ask asks for an address and returns the answer.
func (w *editWorld) ask(b *testing.B, name string, buffer []byte) netip.Addr {
	b.Helper()
	question, err := new(mdns.Msg).SetQuestion(name+".", mdns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.dns.Write(question); err != nil {
		b.Fatal(err)
	}
	_ = w.dns.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := w.dns.Read(buffer)
	if err != nil {
		b.Fatal(err)
	}
	var answer mdns.Msg
	if err := answer.Unpack(buffer[:n]); err != nil {
		b.Fatal(err)
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*mdns.A); ok {
			at, _ := netip.AddrFromSlice(a.A.To4())
			return at
		}
	}
	return netip.Addr{}
}

// until asks once a millisecond until the answer is right, and returns how long that took since began.
func (w *editWorld) until(b *testing.B, began time.Time, name string, right func(netip.Addr) bool) time.Duration {
	b.Helper()
	buffer := make([]byte, 1500)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for range again.C {
		if at := w.ask(b, name, buffer); right(at) {
			break
		}
		if time.Since(began) > patience {
			b.Fatalf("%s: the answer does not change", name)
		}
	}
	return time.Since(began)
}

func reportEdits(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 { return took[min(len(took)-1, int(q*float64(len(took))))].Seconds() * 1000 }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
	b.ReportMetric(0, "ns/op")
}

// moved returns the PoP with its i-th address.
func moved(t *topology.Topology, name string, i int) (*topology.PoP, netip.Addr) {
	p := *t.PoPs[name]
	at := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})
	p.Addresses = []netip.Addr{at}
	return &p, at
}

// BenchmarkEditToAnswer measures the time from the beginning of an edit to the first right answer over UDP, while 100 nodes follow.
// Run it with -benchtime 200x.
func BenchmarkEditToAnswer(b *testing.B) {
	for _, size := range []struct{ pops, networks int }{{40, 10_000}, {500, 1_000_000}} {
		b.Run(fmt.Sprintf("pops=%d/networks=%d", size.pops, size.networks), func(b *testing.B) {
			w := startEditWorld(b, size.pops, size.networks, 99)
			edits := 0
			apply := func(ctx context.Context, p *topology.PoP) error {
				_, err := w.api.Apply(ctx, controlplane.ApplyRequest{Document: string((&topology.Topology{PoPs: map[string]*topology.PoP{"sin1": p}}).Marshal())})
				return err
			}
			for name, edit := range map[string]func(ctx context.Context, p *topology.PoP) error{
				"apply": apply,
				"move": func(ctx context.Context, p *topology.PoP) error { // after which clients have to be ranked anew
					p.Location.LatDeg += float64(edits%50) / 100
					return apply(ctx, p)
				},
				"put": func(ctx context.Context, p *topology.PoP) error {
					_, err := w.client.Put(ctx, storeRoot+"topology/pops/sin1", string(topology.MarshalValue(p)))
					return err
				},
			} {
				b.Run(name, func(b *testing.B) {
					var took []time.Duration
					for b.Loop() {
						edits++
						p, want := moved(w.topology, "sin1", edits)
						began := w.edit(b, func(ctx context.Context) error { return edit(ctx, p) })
						took = append(took, w.until(b, began, "sin1.intake.isochrone.test", func(at netip.Addr) bool { return at == want }))
					}
					reportEdits(b, took)
				})
			}
			b.Run("override", func(b *testing.B) { w.benchmarkOverrides(b) })
		})
	}
}

// benchmarkOverrides drains the PoP that is answered, and ends that.
func (w *editWorld) benchmarkOverrides(b *testing.B) {
	const service = "intake.isochrone.test"
	first := w.ask(b, service, make([]byte, 1500))
	name := ""
	for n, p := range w.topology.PoPs {
		if slices.Contains(p.Addresses, first) {
			name = n
		}
	}
	if name == "" && strings.HasPrefix(first.String(), "10.200.") {
		name = "sin1"
	}
	var took []time.Duration
	for b.Loop() {
		o := &topology.Override{
			Schema: 1, Kind: topology.Drain, PoP: name, Reason: "benchmark", Author: "benchmark", Created: time.Now().UTC(),
			Expires: time.Now().Add(time.Hour).UTC(),
		}
		began := w.edit(b, func(ctx context.Context) error {
			_, err := w.api.PutOverride(ctx, "drain-"+name, o)
			return err
		})
		took = append(took, w.until(b, began, service, func(at netip.Addr) bool { return at != first }))
		began = w.edit(b, func(ctx context.Context) error {
			_, err := w.api.DeleteOverride(ctx, "drain-"+name)
			return err
		})
		took = append(took, w.until(b, began, service, func(at netip.Addr) bool { return at == first }))
	}
	reportEdits(b, took)
}
