package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/certfile"
	"github.com/isochrone/isochrone/internal/flagfile"
	"github.com/isochrone/isochrone/internal/sockets"
	"github.com/isochrone/isochrone/internal/systemd"
)

// dnsNode is what "isochrone dns" runs.
type dnsNode struct {
	start *dnsFlags                // as it was started
	flags atomic.Pointer[dnsFlags] // as it was told last
	given flagfile.Given           // on the command line
	log   *slog.Logger
	level *slog.LevelVar

	layers  *layers
	pool    *sockets.Pool
	lock    *os.File
	node    *node
	sources *sources
	server  *dns.Server
	bound   dns.Sockets
	http    net.Listener // nil for none
	cert    atomic.Pointer[servedCert]
	reloads reloads

	bgp *dnsAnnouncer // nil for none

	configuring sync.Mutex
	settings    dns.Settings // of flags and files

	succeeded bool // by another process
	probing   atomic.Bool
	probed    atomic.Bool // each PoP, once
}

// servedCert is a certificate, which is renewed until stop.
type servedCert struct {
	*certfile.File
	stop context.CancelFunc
}

// runDNSNode runs a DNS node until it is told to end, or a successor has taken over.
func runDNSNode(command *cobra.Command, f *dnsFlags, given flagfile.Given) error {
	level := new(slog.LevelVar)
	d := &dnsNode{
		start: f, given: given, level: level, layers: newLayers(),
		log: slog.New(slog.NewTextHandler(command.ErrOrStderr(), &slog.HandlerOptions{Level: level})),
	}
	d.use(f)
	d.reloads.note(nil)
	var err error
	if d.pool, err = sockets.Inherit(); err != nil {
		return err
	}
	defer d.pool.Close()
	signals := watchSignals() // from now on they do not end the process
	defer signals.stop()
	if err := d.open(); err != nil {
		return err
	}
	defer d.lock.Close()
	if err := d.run(command.Context()); err != nil {
		return errors.Join(err, d.layers.stop())
	}
	d.announce(command.OutOrStdout())
	err = d.serve(command.Context(), signals)
	if !d.succeeded {
		d.node.retire()
	}
	return errors.Join(err, d.layers.stop())
}

// use takes flags as the current ones.
func (d *dnsNode) use(f *dnsFlags) {
	d.flags.Store(f)
	if d.level.Set(slog.LevelInfo); f.verbose {
		d.level.Set(slog.LevelDebug)
	}
}

// open takes the folder and the sockets, and gives up what only root may do.
func (d *dnsNode) open() (err error) {
	dir := stateDir(d.start.dir)
	made, err := makeFolders(dir.path(dnsFolder))
	if err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	if d.lock = d.pool.File(lockName); d.lock == nil {
		if d.lock, err = dir.lockFile(dnsFolder); err != nil {
			return err
		}
	}
	if d.bound, err = d.start.bind(d.pool); err != nil {
		return errors.Join(err, d.lock.Close())
	}
	if d.start.http.IsValid() {
		if d.http, err = d.pool.Stream(d.start.http); err != nil {
			return errors.Join(fmt.Errorf("http: %w", err), closeDNS(d.bound), d.lock.Close())
		}
	}
	if unused := d.pool.Unused(); len(unused) > 0 {
		d.log.Warn("sockets were passed to this process that it does not listen on", "addresses", strings.Join(unused, ", "))
	}
	if d.start.user != "" {
		if err = becomeUser(d.start.user, append(made, d.lock.Name())); err != nil {
			return errors.Join(fmt.Errorf("user: %w", err), closeDNS(d.bound), d.lock.Close())
		}
	}
	return nil
}

// dnsFolder is where a DNS node keeps what is its own in the state folder, which it may share with "isochrone up".
const dnsFolder = "dns"

// makeFolders makes a folder and those around it, and returns those that were missing.
func makeFolders(path string) (made []string, err error) {
	for at := path; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil || filepath.Dir(at) == at {
			break
		}
		made = append(made, at)
	}
	return made, os.MkdirAll(path, 0o700)
}

// run starts all parts, from the ground up. What the node has kept on disk is in force when it returns.
func (d *dnsNode) run(ctx context.Context) error {
	dir := stateDir(d.start.dir)
	settings, err := d.start.settings.load()
	var cert *certfile.File
	if d.start.cert != "" {
		opened, certErr := certfile.Open(d.start.cert, d.start.certKey)
		if cert = opened; certErr != nil {
			err = errors.Join(err, fmt.Errorf("cert: %w", certErr))
		}
	}
	if err == nil {
		d.sources, err = openSources(d.start.sources, &keptSources{dir: dir.path(dnsFolder, "geo"), log: d.log}, d.log)
	}
	if err != nil {
		return errors.Join(err, closeDNS(d.bound))
	}
	name := strings.TrimPrefix(d.start.follow.knownAs(d.start.dir, "dns", d.start.name), "dns:")
	d.node = newNode("dns", name, dir, dir.path(dnsFolder, "last-good.yaml"), d.log, newContact(d.log, d.start.follow.with(d.start.dir)))
	d.start.vantage.apply(d.node, d.start.listen...)
	if d.node.secrets, err = newSecrets(d.start.settings.secretKey, "dns", d.log); err != nil {
		return errors.Join(err, closeDNS(d.bound))
	}
	if d.bgp, err = d.announcerOf(); err != nil {
		return errors.Join(err, closeDNS(d.bound))
	}
	if at := d.servesAt(); at != "" {
		d.node.serves.Store(&at)
	}
	d.node.secrets.changed = func() { d.configure(nil) }
	if before := d.inherited(); before != nil {
		d.node.before = before
		d.node.verdicts.Store(&before)
		d.sources.live.Verdicts(before, time.Now())
	}
	if d.start.probe && len(d.node.probeKeys()()) > 0 {
		if before := d.node.recall(); before != nil {
			d.sources.live.Verdicts(before, time.Now())
		}
	}
	d.server = dns.New(dns.Config{Log: d.log, NoSegmentation: !d.start.segmentation})
	d.configure(&settings)
	d.sources.live.Prepare(d.server.Prepare)
	d.sources.live.Follow(d.server.Publish)

	ground := d.layers.add()
	if cert != nil {
		d.serveCert(cert)
	}
	ground.run("certificate", func(ctx context.Context) error {
		<-ctx.Done()
		if served := d.cert.Load(); served != nil {
			served.stop()
		}
		return nil
	})
	tables := newCompiler(d.sources.live, d.log)
	d.node.decides(d.sources.live)
	d.node.resume(tables.take)
	ground.run("tables", tables.run)
	ground.run("topology", func(ctx context.Context) error { return d.node.follow(ctx, d.connect, tables.take) })

	above := d.layers.add()
	above.run("overrides", func(ctx context.Context) error { return expireOverrides(ctx, d.sources.live) })
	above.run("geo database", d.sources.watch)
	if d.start.probe {
		above.run("health", d.probe)
	}
	if d.http != nil {
		above.run("http", func(ctx context.Context) error { return d.monitor().run(ctx, d.http) })
	}
	d.bound.Cert = d.certificate
	d.layers.add().run("DNS", func(ctx context.Context) error {
		select { // questions wait in the sockets meanwhile, which is better than SERVFAIL
		case <-d.node.first:
		case <-time.After(firstViewWait):
		case <-ctx.Done():
		}
		return d.server.Run(ctx, d.bound)
	})
	if d.bgp != nil {
		d.bgp.start(d.layers.add())
	}
	return nil
}

// servesAt returns where other nodes look whether this one answers.
func (d *dnsNode) servesAt() string {
	var listens []netip.AddrPort
	for _, l := range d.bound.TCP {
		if at, err := netip.ParseAddrPort(l.Addr().String()); err == nil {
			listens = append(listens, at)
		}
	}
	var announced []netip.Prefix
	if d.bgp != nil {
		announced = d.bgp.current.Load().Prefixes
	}
	return servesAt(d.start.serves, listens, d.node.reports.at.Addr(), announced)
}

// configure has the server take settings, with the TSIG keys that were sealed for this node; nil stands for those of before.
func (d *dnsNode) configure(settings *dns.Settings) {
	d.configuring.Lock()
	defer d.configuring.Unlock()
	if settings != nil {
		d.settings = *settings
	}
	d.server.Configure(withSealedKeys(d.settings, d.node.secrets))
}

// connect returns what the node follows.
func (d *dnsNode) connect(ctx context.Context) (*upstream, error) {
	return d.start.follow.connect(ctx, d.start.dir, "dns", d.start.name)
}

// probe checks the health of the PoPs once there is a key to do it with.
func (d *dnsNode) probe(ctx context.Context) error {
	return d.node.probeWithKey(ctx, popTargets, func() { d.probing.Store(true) }, func(v health.Verdicts) { d.sources.live.Verdicts(v, time.Now()) })
}

// serveCert makes a certificate the one that is served, and renews it.
func (d *dnsNode) serveCert(cert *certfile.File) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		cert.Run(ctx, d.log)
	}()
	before := d.cert.Swap(&servedCert{cert, func() { cancel(); <-done }})
	if before != nil {
		before.stop()
	}
}

func (d *dnsNode) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := d.cert.Load(); cert != nil {
		return cert.Certificate(hello)
	}
	return nil, errors.New("there is no certificate")
}

// firstViewWait is how long questions wait for the first topology, at a start with nothing on disk.
const firstViewWait = 3 * time.Second

// announce says that questions are answered.
func (d *dnsNode) announce(out io.Writer) {
	var addrs []string
	add := func(listeners []net.Listener, over string) {
		for _, l := range listeners {
			addrs = append(addrs, l.Addr().String()+over)
		}
	}
	add(d.bound.TCP, "")
	add(d.bound.TLS, " over TLS")
	add(d.bound.HTTPS, " over HTTPS")
	on := ""
	if d.http != nil {
		on = ", http://" + d.http.Addr().String()
	}
	fmt.Fprintf(out, "DNS node serves %s (process %d%s)\n", strings.Join(addrs, ", "), os.Getpid(), on)
	if !d.pool.Succeeds() {
		systemd.Notify("READY=1")
	}
}
