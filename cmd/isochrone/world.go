package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/cluster"
	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/sockets"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// world is what "isochrone up" runs.
type world struct {
	options upOptions
	log     *slog.Logger
	layers  *layers
	known   statedir.Up // what commands may know

	etcd           *embedded.Etcd
	client         *clientv3.Client
	store          *store.Store
	node           *node
	socketPool     *sockets.Pool // of DNS
	sources        *sources
	live           *router.Live
	dns            *dns.Server
	control        *controlParts
	pops           map[string]*dataplane.PoP   // those that run here
	clusters       map[string]*cluster.Cluster // likewise
	popSockets     map[string]listeners        // of the PoPs
	clusterSockets map[string]net.Listener     // of the clusters
}

func newWorld(o upOptions, log *slog.Logger) *world {
	return &world{
		options: o, log: log, layers: newLayers(), socketPool: new(sockets.Pool),
		pops: map[string]*dataplane.PoP{}, clusters: map[string]*cluster.Cluster{}, clusterSockets: map[string]net.Listener{},
	}
}

// start starts everything, from the ground up. What it has started is ended by layers and close.
func (w *world) start(ctx context.Context) error {
	database := make(chan error, 1)
	go func() { // the geo database and etcd take the longest to open
		var err error
		w.sources, err = openSources(w.options.sources, nil, w.log)
		database <- err
	}()
	err := w.startStore(ctx)
	if opened := <-database; err == nil {
		err = opened
	}
	if err != nil {
		return err
	}
	w.live = w.sources.live
	if err := w.startClusters(); err != nil {
		return err
	}
	if err := w.startFollowing(ctx); err != nil {
		return err
	}
	if err := w.options.seeing.start(ctx, w.node, w.layers.add()); err != nil {
		return err
	}
	if err := w.startPoPs(); err != nil {
		return err
	}
	return w.startFront(ctx)
}

// startStore starts etcd and writes into it what is missing: the example world at the first start, the addresses that this
// process chose, the example key and the probe key.
func (w *world) startStore(ctx context.Context) (err error) {
	ca, err := devca.Load(string(w.options.dir))
	if err != nil {
		return err
	}
	w.etcd, err = embedded.Start(ctx, embedded.Config{Dir: w.options.dir.path("etcd"), Listen: w.options.etcd.String()})
	if err != nil {
		return listenError(w.options.etcd, "--etcd", err)
	}
	w.client, err = etcdclient.Connect(clientv3.Config{Endpoints: []string{w.etcd.Endpoint()}})
	if err != nil {
		return err
	}
	w.known.Etcd, w.known.CA = w.etcd.Endpoint(), devca.Path(string(w.options.dir))
	w.store = store.New(w.client, storeRoot)
	w.node = newNode("up", hostName(), w.options.dir, w.options.dir.path("last-good.yaml"), w.log, newContact(w.log, "etcd"))
	w.node.ca, w.node.onHost = ca, true
	if w.node.secrets, err = newSecrets(w.options.secretKey, "up", w.log); err != nil {
		return err
	}
	snap, err := w.store.Read(ctx)
	if err != nil {
		return err
	}
	if len(snap.Faults) > 0 { // addresses are those of the last good topology
		last, err := store.Load(w.options.dir.path("last-good.yaml"))
		if err != nil {
			return err
		}
		snap.Topology = last.Topology
	}
	if err := w.place(ctx, snap); err != nil {
		return err
	}
	if w.known.APIKey, err = w.ensureKey(ctx, snap, "api.key", topology.Key{Note: "key of the example world"}); err != nil {
		return err
	}
	_, err = w.ensureKey(ctx, snap, "probe.key", topology.Key{Note: "key of the health checker's probes", Probe: true})
	return err
}

// ensureKey makes the key of a file, unless the file is there and the store knows its key.
func (w *world) ensureKey(ctx context.Context, snap *topology.Snapshot, file string, like topology.Key) (string, error) {
	if secret, err := w.options.dir.read(file); err == nil {
		if id, ok := topology.KeyID(secret); ok && snap.Keys.Lookup(id) != nil {
			return secret, nil
		}
	}
	id, secret, key, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		return "", err
	}
	key.Note, key.Probe = like.Note, like.Probe
	if _, err := w.store.PutKey(ctx, id, key, "up"); err != nil {
		return "", err
	}
	return secret, writeSecret(w.options.dir.path(file), secret)
}

// startFollowing waits for the first snapshot.
func (w *world) startFollowing(ctx context.Context) error {
	tables := newCompiler(w.live, w.log)
	w.node.decides(w.live)
	connect := func(context.Context) (*upstream, error) {
		up := etcdUpstream(w.client, storeRoot, "up", hostName())
		up.close = func() error { return nil } // PoPs may need the client after it
		return up, nil
	}
	layer := w.layers.add()
	layer.run("tables", tables.run)
	layer.run("topology", func(ctx context.Context) error { return w.node.follow(ctx, connect, tables.take) })
	return w.await(ctx, w.node.first)
}

// await waits until ready is closed, or a component has failed.
func (w *world) await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case err := <-w.layers.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startClusters starts the reference clusters on the sockets that place has bound.
func (w *world) startClusters() error {
	layer := w.layers.add()
	for name, l := range w.clusterSockets {
		c, err := openCluster(w.options.dir, name)
		if err != nil {
			return err
		}
		w.clusters[name] = c
		layer.run("cluster "+name, func(ctx context.Context) error { return errors.Join(serveHTTP(ctx, l, c), c.Close()) })
	}
	return nil
}

// openCluster opens the reference cluster of a name.
func openCluster(dir stateDir, name string) (*cluster.Cluster, error) {
	token, err := dir.secret("clusters", name, "token")
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	c, err := cluster.Open(dir.path("clusters", name), token)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	return c, nil
}

// startPoPs starts the dataplanes on the sockets that place has bound.
func (w *world) startPoPs() error {
	if err := w.node.openCerts(&w.options.certs, w.layers.add()); err != nil {
		return err
	}
	layer := w.layers.add()
	for _, name := range slices.Sorted(maps.Keys(w.popSockets)) {
		process, err := newPoPProcess(name, new(sockets.Pool), transportFlags{drainTimeout: time.Second}, w.log.With("pop", name))
		if err != nil {
			return err
		}
		pop, err := w.node.runPoP(process, func() ([]listeners, error) { return []listeners{w.popSockets[name]}, nil }, layer)
		if err != nil {
			return err
		}
		w.pops[name] = pop
	}
	return nil
}

// startFront starts what the world sees first: DNS, health, the API.
func (w *world) startFront(ctx context.Context) error {
	layer := w.layers.add()
	layer.run("health", func(ctx context.Context) error {
		return w.node.checkHealth(ctx, everything, func(v health.Verdicts) { w.live.Verdicts(v, time.Now()) })
	})
	layer.run("overrides", func(ctx context.Context) error { return expireOverrides(ctx, w.live) })
	layer.run("geo database", w.sources.watch)

	if err := w.startDNS(layer); err != nil {
		return err
	}

	return w.startAPI(ctx, layer)
}

// startAPI starts the control API, and all else that a control plane does.
func (w *world) startAPI(ctx context.Context, on *layer) error {
	api, err := net.Listen("tcp", w.options.api.String())
	if err != nil {
		return listenError(w.options.api, "--api", err)
	}
	w.known.API = "http://" + api.Addr().String()
	w.control = newControlParts(w.client, storeRoot, store.NodeName("up", hostName()), w.node, w.sources, w.log)
	w.control.service.Activity, w.control.service.Traffic = w.activity, newTraffic(w.activity).rate
	if err := w.control.ensureToken(ctx, w.options.dir); err != nil {
		return errors.Join(err, api.Close())
	}
	if err := w.control.service.Auth.Load(ctx); err != nil { // so that the token is good at once
		return errors.Join(err, api.Close())
	}
	if err := w.control.issue(&w.options.issue, w.node.secrets.identities, w.node); err != nil {
		return errors.Join(err, api.Close())
	}
	w.control.run(on)
	on.run("API", func(ctx context.Context) error {
		return serveHTTP(ctx, api, w.control.handler(w.registry(), ctx.Done(), nil))
	})
	return nil
}

// startDNS starts the DNS server, with the settings that "isochrone dns" has when nothing is said.
func (w *world) startDNS(on *layer) error {
	var defaults dnsFlags
	defaults.register(pflag.NewFlagSet("dns", pflag.ContinueOnError))
	defaults.settings.keys, defaults.settings.rateLimit = w.options.dir.path("dnssec-keys"), 0 // all clients are this machine
	settings, err := defaults.settings.load()
	if err != nil {
		return err
	}
	bound, err := bindDNS(w.socketPool, []netip.AddrPort{w.options.dns}, defaults.workers)
	if err != nil {
		return listenError(w.options.dns, "--dns", err)
	}
	w.known.DNS = bound.TCP[0].Addr().String()
	w.dns = dns.New(dns.Config{Log: w.log})
	w.dns.Configure(settings)
	w.live.Prepare(w.dns.Prepare)
	w.live.Follow(w.dns.Publish)
	on.run("DNS", func(ctx context.Context) error { return w.dns.Run(ctx, bound) })
	return nil
}

// activity tells what the parts of this process have done.
// registry has the metrics of all that runs here.
func (w *world) registry() *prometheus.Registry {
	registry := newRegistry(w.node)
	w.sources.measure(registry)
	registry.MustRegister(w.dns.Collector())
	registry.MustRegister(w.node.certs.Collector())
	w.control.measure(registry)
	for _, pop := range w.pops {
		registry.MustRegister(pop.Collector())
	}
	return registry
}

func (w *world) activity() controlplane.Activity {
	a := controlplane.Activity{DNS: w.dns.Stats(), PoPs: map[string]controlplane.Counts{}, Clusters: map[string]controlplane.Counts{}}
	for name, pop := range w.pops {
		a.PoPs[name] = pop.Stats()
	}
	for name, c := range w.clusters {
		s := c.Stats()
		a.Clusters[name] = controlplane.Counts{
			"stored": s.Stored, "bytes": s.Bytes, "conflicts": s.Conflicts, "duplicates": s.Duplicates, "refused": s.Refused,
		}
	}
	return a
}

// readyTimeout is how long "isochrone up" waits for good verdicts before it says who lacks one.
const readyTimeout = 10 * time.Second

// awaitReady waits until everything that runs here is held to be well.
func (w *world) awaitReady(ctx context.Context) error {
	deadline := time.After(readyTimeout)
	check := time.NewTicker(5 * time.Millisecond)
	defer check.Stop()
	for {
		missing := w.notUp()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-check.C:
		case <-deadline:
			w.log.Warn("not everything is well yet", "missing", strings.Join(missing, ", "))
			return nil
		case err := <-w.layers.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notUp lists what runs here, should be probed, and is not held to be up.
func (w *world) notUp() []string {
	verdicts, missing := w.node.Verdicts(), []string(nil)
	for _, t := range everything(w.node.Snapshot()) {
		here := w.pops[t.Name] != nil
		if t.Kind == health.Cluster {
			here = w.clusters[t.Name] != nil
		}
		if is := verdicts[t.Target].Status; here && is != health.Up && is != health.Degraded {
			missing = append(missing, t.Target.String())
		}
	}
	slices.Sort(missing)
	return missing
}

// everything lists all PoPs and clusters for probing.
func everything(snap *topology.Snapshot) []probe.Target {
	return append(popTargets(snap), clusterTargets(snap)...)
}

// expireOverrides renews the view whenever an override ends.
func expireOverrides(ctx context.Context, live *router.Live) error {
	for {
		wait := time.Second // overrides may come at any time
		if next := live.Expire(time.Now()); !next.IsZero() {
			wait = min(wait, max(time.Until(next), 0))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serveHTTP serves until ctx ends, and then finishes what is in flight.
func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10, IdleTimeout: time.Minute}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})()
	if err := server.Serve(l); err != http.ErrServerClosed {
		return err
	}
	<-stopped
	return nil
}

// close ends what layers do not hold.
func (w *world) close() {
	w.socketPool.Close()
	if w.client != nil {
		w.client.Close()
	}
	if w.etcd != nil {
		w.etcd.Close()
	}
}
