package packet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/cluster"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// clusterToken is the bearer token of all clusters.
const clusterToken = "token"

// clusterNode is a reference cluster.
type clusterNode struct {
	name    string
	addr    netip.Addr
	cluster *cluster.Cluster
}

// startCluster starts a cluster. It ends with the engine's layer of clusters.
func (e *engine) startCluster(i int) error {
	c := &clusterNode{name: e.world.Clusters[i].Name, addr: clusterAddr(i)}
	var err error
	if c.cluster, err = cluster.Open(filepath.Join(e.dir, "clusters", c.name), clusterToken); err != nil {
		return err
	}
	server := &http.Server{Handler: c.cluster}
	listener := e.network.Listen(netip.AddrPortFrom(c.addr, 80))
	e.clusterLayer.run(func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		<-ctx.Done()
		server.Close()
		<-done
		return c.cluster.Close()
	})
	e.clusters = append(e.clusters, c)
	return nil
}

// popNode is a PoP, with its vantage where health is looked after.
type popNode struct {
	name   string
	number int
	addr   netip.Addr
	looker *looker

	mu   sync.Mutex // while it is started or ended
	pop  *dataplane.PoP
	stop func() error // ends it; nil while it does not run
}

// held is how many envelopes wait in the PoP's spool.
func (p *popNode) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pop == nil {
		return 0
	}
	return p.pop.Held().Pending
}

// end has the PoP's process end, as one that is told to: requests in flight are done.
func (p *popNode) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop == nil {
		return nil
	}
	err := p.stop()
	p.pop, p.stop = nil, nil
	return err
}

// addPoP starts a PoP, and its vantage.
func (e *engine) addPoP(i int) error {
	p := &popNode{name: e.world.PoPs[i].Name, number: i, addr: popAddr(i)}
	if e.watched {
		p.looker = e.newLooker("pop:"+p.name, p.addr, geo.ContinentOf(e.world.PoPs[i].Country), "", nil, nil)
		e.popLayer.run(p.looker.run)
	}
	if err := e.startPoP(p); err != nil {
		return err
	}
	e.pops = append(e.pops, p)
	e.popLayer.run(func(ctx context.Context) error {
		<-ctx.Done()
		return p.end()
	})
	return nil
}

// startPoP starts a process of a PoP, on what the one before has left in its spool.
func (e *engine) startPoP(p *popNode) error {
	snapshot, verdicts := e.store.first, func() health.Verdicts { return nil }
	if p.looker != nil {
		snapshot, verdicts = p.looker.now, p.looker.held
	}
	log := slog.New(slog.NewTextHandler(&e.log, &slog.HandlerOptions{Level: slog.LevelError}))
	queue, err := spool.Open(filepath.Join(e.dir, "pops", p.name), spool.Options{Log: log, MemoryBytes: 8 << 20, Outcomes: 10_000})
	if err != nil {
		return err
	}
	ledger := quota.New(quota.Config{PoP: p.name, Store: e.quota})
	pop := dataplane.New(dataplane.Config{
		Name: p.name, Spool: queue, Log: log, Model: rtt.Default(), Secret: func(string) []byte { return []byte("secret") }, Snapshot: snapshot, Verdicts: verdicts,
		Quota: ledger, ClusterToken: func(string) string { return clusterToken }, Dial: e.network.Dialer(p.addr),
		Acknowledged: func(env *spool.Envelope, to string) { e.acknowledged(env.ID, p.number, to) },
	})
	udp, err := e.network.ListenPacket(netip.AddrPortFrom(p.addr, 443))
	if err != nil {
		return errors.Join(err, queue.Close())
	}
	sockets := dataplane.Listeners{UDP: udp, TCP: e.network.Listen(netip.AddrPortFrom(p.addr, 443)), TLS: &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return e.ca.Certificate(hello.ServerName, time.Now())
		},
	}}
	front, behind := newLayer(), newLayer()
	front.run(func(ctx context.Context) error { return pop.Run(ctx, sockets) })
	behind.run(func(ctx context.Context) error {
		_ = ledger.Run(ctx) // ends with its context
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pop, p.stop = pop, func() error { return errors.Join(front.end(), behind.end()) }
	return nil
}

// dnsNode is a DNS server beside a cluster, with its vantage where health is looked after.
type dnsNode struct {
	name   string
	addr   netip.Addr
	live   *router.Live
	server *dns.Server
	looker *looker
}

func (e *engine) startDNS(i int) error {
	d := &dnsNode{name: e.world.Clusters[i].Name, addr: dnsAddr(i), live: router.NewLive(e.world.Atlas)}
	d.server = dns.New(dns.Config{Log: slog.New(slog.NewTextHandler(&e.log, &slog.HandlerOptions{Level: slog.LevelError}))})
	d.server.Configure(dns.Settings{})
	d.live.Prepare(d.server.Prepare)
	d.live.Follow(d.server.Publish)
	if !e.watched {
		if err := d.live.Topology(e.store.snapshot, time.Now()); err != nil {
			return err
		}
	} else {
		at := netip.AddrPortFrom(d.addr, 53).String()
		d.looker = e.newLooker("dns:"+d.name, d.addr, geo.ContinentOf(e.world.Clusters[i].Country), at, func(v health.Verdicts) {
			e.judged(d, v)
			d.live.Verdicts(v, time.Now())
		}, func(snap *topology.Snapshot) {
			if err := d.live.Topology(snap, time.Now()); err != nil {
				e.note("DNS node %s keeps its table: %v", d.name, err)
			}
		})
		e.popLayer.run(d.looker.run)
	}
	udp, err := e.network.ListenPacket(netip.AddrPortFrom(d.addr, 53))
	if err != nil {
		return err
	}
	e.dnsLayer.run(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { udp.Close() })()
		buffer := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(buffer)
			if err != nil {
				return nil
			}
			if s := e.ground.stand(addrOf(from).Addr()); s != nil && s.kind == resolverKind { // others are probes
				e.asksUs()
			}
			if answer := d.server.Answer(buffer[:n], addrOf(from).Addr(), dns.UDP); answer != nil {
				_, _ = udp.WriteTo(answer, from)
			}
		}
	})
	listener := e.network.Listen(netip.AddrPortFrom(d.addr, 53))
	e.dnsLayer.run(func(ctx context.Context) error {
		if err := d.server.Run(ctx, dns.Sockets{TCP: []net.Listener{listener}}); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("DNS node %s: %w", d.name, err)
		}
		return nil
	})
	e.dnsLayer.run(func(ctx context.Context) error {
		look := time.NewTicker(time.Second)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				d.live.Expire(time.Now())
			case <-ctx.Done():
				return nil
			}
		}
	})
	e.dns = append(e.dns, d)
	return nil
}
