package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/certs"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/dataplane/tracing"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/health/probekey"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// node is what every process of Isochrone has: the topology as it follows it, and the verdicts that it reaches itself.
type node struct {
	kind      string // as it is registered: dns, pop, control or up; empty for what is not
	name      string // among those of its kind
	started   time.Time
	dir       stateDir
	lastGood  string // path of the last good topology on disk
	log       *slog.Logger
	contact   *contact
	ca        *devca.CA            // nil for a DNS node, which issues no certificates
	secrets   *secrets             // nil for who has a use for none
	announces *announcements       // nil for who announces nothing by BGP
	before    health.Verdicts      // of the process that this one replaces
	access    *dataplane.AccessLog // of the PoPs; nil for none
	tracer    *tracing.Tracer      // likewise
	certs     *certs.Source        // of the PoPs

	upstream atomic.Pointer[upstream] // nil before the first
	serves   atomic.Pointer[string]   // address and port where a DNS node answers others; nil for none
	snapshot atomic.Pointer[topology.Snapshot]
	verdicts atomic.Pointer[health.Verdicts]
	looks    looks
	shares   spilling
	running  sync.Map      // the PoPs that run here, by name
	calling  sync.Map      // how they call others, likewise
	reports  reporting     // of vantages, directly
	onHost   bool          // what stands on the loopback interface of another node is on this machine
	where    string        // the code of the continent where a node is that the topology does not place, or nothing
	first    chan struct{} // closed when there is a snapshot
	followed chan struct{} // closed when one has come from upstream
	fresh    func()        // closes followed
}

func newNode(kind, name string, dir stateDir, lastGood string, log *slog.Logger, contact *contact) *node {
	n := &node{
		kind: kind, name: name, started: time.Now().UTC().Truncate(time.Second), dir: dir, lastGood: lastGood, log: log, contact: contact,
		first: make(chan struct{}), followed: make(chan struct{}),
	}
	n.looks.changed = make(chan struct{}, 1)
	n.fresh = sync.OnceFunc(func() { close(n.followed) })
	return n
}

// take puts a snapshot in force.
func (n *node) take(snap *topology.Snapshot, also func(*topology.Snapshot)) {
	before := n.snapshot.Swap(snap)
	n.tell(before, snap)
	if n.secrets != nil {
		n.secrets.take(snap)
	}
	if also != nil {
		also(snap)
	}
	if before == nil {
		close(n.first)
	}
}

// tell logs what a person at the terminal wants to know of a new snapshot.
func (n *node) tell(before, snap *topology.Snapshot) {
	switch {
	case before != nil && before.Good != snap.Good:
		n.log.Info("new topology in force", "revision", snap.Good)
	case len(snap.Faults) > 0:
		for _, fault := range snap.Faults {
			if before == nil || !slices.Contains(before.Faults, fault) {
				n.log.Error("the newest topology is invalid, the last good one stays in force", "good", snap.Good, "fault", fault.String())
			}
		}
	case before != nil && len(before.Faults) > 0:
		n.log.Info("the newest topology is valid again, and is the one in force", "good", snap.Good)
	}
}

// Snapshot returns the newest snapshot, nil before the first.
func (n *node) Snapshot() *topology.Snapshot { return n.snapshot.Load() }

// Verdicts returns the present verdicts.
func (n *node) Verdicts() health.Verdicts {
	if v := n.verdicts.Load(); v != nil {
		return *v
	}
	return nil
}

// probeWithKey checks health as checkHealth does, once there is a key to do it with; then it calls begins.
func (n *node) probeWithKey(ctx context.Context, list func(*topology.Snapshot) []probe.Target, begins func(), changed func(health.Verdicts)) error {
	keys := n.probeKeys()
	look := time.NewTicker(sourcesInterval)
	defer look.Stop()
	for told := false; ; told = true {
		if len(keys()) > 0 {
			begins()
			return n.checkHealth(ctx, list, changed)
		}
		if !told {
			n.log.Warn("nobody probes from here, and so all count as well: there is no key for it", "file", n.dir.path(probeKeyFile), "secret", probekey.Secret)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// roots returns the CA that issues PoPs' certificates: that of ca.pem, or nil for those of the system.
func (n *node) roots() (*x509.CertPool, error) {
	if n.ca != nil {
		return n.ca.Pool(), nil
	}
	text, err := os.ReadFile(devca.Path(string(n.dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s has no certificate in PEM", devca.Path(string(n.dir)))
	}
	return pool, err
}

// receiptKeyFile is where in a PoP's folder the key of its receipts is.
const receiptKeyFile = "receipt.key"

// runPoP makes the dataplane of one PoP, with its spool, and runs it on a layer. Bind is called when nobody else runs this PoP, but
// perhaps the process before this one, which leaves it its sockets and its spool.
func (n *node) runPoP(process *popProcess, bind func() ([]listeners, error), on *layer) (*dataplane.PoP, error) {
	name := process.name
	if err := process.open(n.dir); err != nil {
		return nil, err
	}
	sockets, err := bind()
	if err != nil {
		return nil, errors.Join(err, process.lock.Close())
	}
	secret, err := n.dir.secret("service.secret")
	if err != nil {
		return nil, errors.Join(err, process.lock.Close())
	}
	if err := process.serve(n, sockets, secret, on); err != nil {
		return nil, errors.Join(err, process.lock.Close())
	}
	log := n.log.With("pop", name)
	receiptKey, err := receipt.LoadOrCreateKey(n.dir.path("pops", name, receiptKeyFile))
	if err != nil {
		return nil, errors.Join(err, process.lock.Close())
	}
	signer := receipt.NewSigner(receiptKey)
	queue, err := spool.Open(n.dir.path("pops", name, "spool"), spool.Options{Log: log, Seal: dataplane.Seal(signer, name)})
	if err != nil {
		return nil, errors.Join(err, process.lock.Close())
	}
	others := n.newPeers(name, process.secrets, log)
	grants := quota.New(quota.Config{PoP: name, Store: n, Homes: others.homes, Log: log})
	pop := dataplane.New(dataplane.Config{
		Name: name, Snapshot: n.Snapshot, Verdicts: n.Verdicts, Model: rtt.Default(), Spool: queue,
		Quota: grants, Secret: n.serviceSecret([]byte(secret)), WebhookSecret: n.webhookSecret, Receipts: signer,
		ClusterToken: n.clusterToken, Log: log, Access: n.access, Tracer: n.tracer, Front: process.front,
		Peer: others.outcome, Peers: others.server.Before, Beside: others.metrics,
	})
	others.serve(n, grants, pop.Outcome)
	on.run("PoP "+name, func(ctx context.Context) error {
		defer process.lock.Close()
		defer others.client.Close()
		return runBeside(ctx, grants.Run, func(ctx context.Context) error { return pop.Run(ctx) })
	})
	process.started(pop)
	n.running.Store(name, pop)
	n.calling.Store(name, others.client)
	return pop, nil
}

// runBeside runs what another one needs until its very end, which may be long after that of ctx.
func runBeside(ctx context.Context, needed, what func(context.Context) error) error {
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = needed(beside) // ends with its context
	}()
	defer func() { end(); <-done }()
	return what(ctx)
}

// certificate returns, of the node's own CA, that of the service that a client asks for, of this address when it asks for none, or of the first
// service.
func (n *node) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	services := n.Snapshot().Topology.Services
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if at, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String()); err == nil && name == "" {
		return n.ca.Certificate(at.Addr().Unmap().WithZone("").String(), time.Now())
	}
	if services[name] == nil {
		if len(services) == 0 {
			return nil, errors.New("the topology has no service")
		}
		name = slices.Min(slices.Collect(maps.Keys(services)))
	}
	return n.ca.Certificate(name, time.Now())
}

// clusterToken returns the bearer token of a cluster: that of the sealed secrets, else that of the state directory, else nothing.
func (n *node) clusterToken(cluster string) string {
	if token, ok := n.secrets.value(clusterTokenSecret + cluster); ok {
		return string(token)
	}
	token, err := n.dir.read("clusters", cluster, "token")
	if err != nil {
		return ""
	}
	return token
}

// serviceSecret returns the key of a service's request ids: that of the sealed secrets, else that of this machine.
func (n *node) serviceSecret(ofMachine []byte) func(service string) []byte {
	return func(service string) []byte {
		if secret, ok := n.secrets.value(serviceHMACSecret + service); ok {
			return secret
		}
		return ofMachine
	}
}

// webhookSecret returns the key of the signatures of a service's payloads: a sealed secret, or nothing.
func (n *node) webhookSecret(service string) []byte {
	secret, _ := n.secrets.value(webhookHMACSecret + service)
	return secret
}

// popTargets lists the PoPs for probing. Each is asked for the first service that it offers; one that offers none is not
// probed, since nobody is sent there.
func popTargets(snap *topology.Snapshot) []probe.Target {
	var targets []probe.Target
	for name, p := range snap.Topology.PoPs {
		service := firstService(snap.Topology, name)
		if service == "" || p.State == topology.Disabled {
			continue
		}
		t := probe.Target{
			Target: health.Target{Kind: health.PoP, Name: name}, Service: service, Path: dataplane.Path,
			Body: probeBody(snap.Topology.Services[service]), How: snap.Topology.Services[service].Probed(),
		}
		for _, a := range p.Addresses {
			t.Addrs = append(t.Addrs, netip.AddrPortFrom(a, p.Port))
		}
		targets = append(targets, t)
	}
	return targets
}

func firstService(t *topology.Topology, pop string) string {
	for _, name := range slices.Sorted(maps.Keys(t.Services)) {
		if offered := t.Services[name].PoPs; offered == nil || slices.Contains(offered, pop) {
			return name
		}
	}
	return ""
}

// probeBody makes a payload that a service accepts.
func probeBody(s *topology.Service) []byte {
	object := map[string]string{}
	for _, field := range s.Intake.RequiredFields {
		object[field] = "probe"
	}
	body, err := json.Marshal(object)
	if err != nil {
		panic(err) // strings can be written
	}
	return body
}
