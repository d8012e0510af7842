package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/direct"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/health/vantage"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// looks is what a node is as a vantage: what it hears and what it says. The zero value hears, and says nothing.
type looks struct {
	changed chan struct{} // what is stored of this node's report has changed
	report  atomic.Pointer[[]byte]
	details atomic.Pointer[map[health.Target]probe.Target]
	direct  atomic.Pointer[direct.Exchange] // nil while it hears and says nothing directly

	telling sync.Mutex                // held while a vantage is told; it never waits for it
	mu      sync.Mutex                // never held while a vantage is called, which calls back
	vantage *vantage.Node             // nil while it does not look
	reports map[string]*health.Report // that are stored, by vantage
	answers answering                 // where DNS nodes answer
	peers   map[string]direct.Peer    // that are known, if stored or not
}

// stored is what the store is to have as this node's report, or nothing.
func (l *looks) stored() []byte {
	if text := l.report.Load(); text != nil {
		return *text
	}
	return nil
}

// moment takes what the store tells of the moment.
// isDown is asked with the names of nodes that have gone.
func (l *looks) moment(u store.Update, isDown func(node string) bool) {
	l.telling.Lock()
	defer l.telling.Unlock()
	news, gone := map[string]*health.Report{}, []string(nil)
	for key, text := range u.Put {
		name, ok := strings.CutPrefix(key, reportsPrefix)
		r, err := health.DecodeReport(text, time.Now())
		if ok && err == nil && r.Name == name { // else it is of a newer program, or of somebody else
			news[name] = r
		}
	}
	for _, key := range u.Delete {
		if name, ok := strings.CutPrefix(key, reportsPrefix); ok {
			gone = append(gone, name)
		}
	}
	l.mu.Lock()
	if u.Whole {
		for name := range l.reports {
			if news[name] == nil {
				gone = append(gone, name)
			}
		}
		for name := range l.answers { // from disk
			if news[name] == nil {
				l.answers.gone(name, isDown(name))
			}
		}
	}
	if l.reports == nil {
		l.reports = map[string]*health.Report{}
	}
	for name, r := range news {
		l.reports[name] = r
		l.meet(r)
		l.answers.hear(r)
	}
	for _, name := range gone {
		delete(l.reports, name)
		l.answers.gone(name, isDown(name))
	}
	v := l.vantage
	l.mu.Unlock()
	if v == nil {
		return
	}
	for _, r := range news {
		v.Hear(r, true)
	}
	for _, name := range gone {
		v.Gone(name)
	}
}

const reportsPrefix = "reports/"

// meet notes how a vantage is known directly. Only the store is believed in this: nobody else may write what stands there.
func (l *looks) meet(r *health.Report) {
	at, _ := netip.ParseAddrPort(r.Address)
	if l.peers == nil {
		l.peers = map[string]direct.Peer{}
	}
	if key, err := base64.RawURLEncoding.DecodeString(r.Key); err == nil && len(key) == ed25519.PublicKeySize {
		l.peers[r.Name] = direct.Peer{Key: key, Addr: at}
	}
}

func (l *looks) peer(name string) direct.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers[name]
}

// receivers are those who get every report: the DNS nodes, and from a DNS node all, who set their clocks by it.
func (l *looks) receivers(kind string) func() []string {
	return func() []string {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.DeleteFunc(slices.Collect(maps.Keys(l.peers)), func(name string) bool {
			return kind != "dns" && !strings.HasPrefix(name, "dns:")
		})
	}
}

// retain forgets how vantages are known directly that there are no more.
func (l *looks) retain(known []health.Vantage) {
	keep := map[string]bool{}
	for _, v := range known {
		keep[v.Name] = true
	}
	l.mu.Lock()
	for name := range l.reports { // this node's own too
		keep[name] = true
	}
	maps.DeleteFunc(l.peers, func(name string, _ direct.Peer) bool { return !keep[name] })
	l.mu.Unlock()
	if e := l.direct.Load(); e != nil {
		e.Forget(func(name string) bool { return keep[name] })
	}
}

// now returns the vantage, nil while the node does not look.
func (l *looks) now() *vantage.Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.vantage
}

// begin has a vantage hear what has been heard before, and from now on.
func (l *looks) begin(v *vantage.Node) {
	l.telling.Lock()
	defer l.telling.Unlock()
	l.mu.Lock()
	l.vantage = v
	reports := slices.Collect(maps.Values(l.reports))
	l.mu.Unlock()
	for _, r := range reports {
		v.Hear(r, true)
	}
}

func (l *looks) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.vantage = nil
}

// checkHealth makes this node a vantage until ctx ends: it looks at the targets that list names for a topology, tells others, and makes the verdicts
// that all come to. Verdicts that differ for those who are answered by them are given to changed, which may be nil.
func (n *node) checkHealth(ctx context.Context, list func(*topology.Snapshot) []probe.Target, changed func(health.Verdicts)) error {
	keys := n.probeKeys()
	hasKey := len(keys()) > 0
	if !hasKey && n.kind == "pop" { // which looks at clusters alone then: they ask for no key
		list = clusterTargets
	} else if !hasKey {
		return fmt.Errorf("there is no key of probes: %s is not there, and none is sealed for this node", n.dir.path(probeKeyFile))
	}
	roots, err := n.roots()
	if err != nil {
		return err
	}
	prober := probe.New(probe.Config{Roots: roots, Keys: keys, Log: n.log})
	defer prober.Close()
	l, known := &n.looks, n.readKnown()
	if n.reports.key, n.reports.incarnation, err = n.reportIdentity(time.Now()); err != nil {
		return err
	}
	if before := n.recall(); before != nil && changed != nil {
		changed(before)
	}
	v := vantage.New(vantage.Config{
		Vantage: health.Vantage{Name: store.NodeName(n.kind, n.name), Region: n.region(), Looks: kindsOf(n.kind, hasKey)},
		Log:     n.log, Before: n.before, Known: known, Incarnation: n.reports.incarnation,
		Targets: func() []health.Target { return n.targets(list, hasKey) }, Describe: func(r *health.Report) { r.Serves = n.served() },
		Probe: func(ctx context.Context, t health.Target) health.Observation {
			if details := l.details.Load(); details != nil {
				return prober.Probe(ctx, (*details)[t])
			}
			return health.Observation{}
		},
		Publish: func(r *health.Report, nearby []string, lasting bool) { n.publish(r, nearby, lasting) },
		Judged:  n.judged(changed),
	})
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := n.openDirect(ctx, v, &running); err != nil {
		n.log.Warn("reports of vantages are neither sent nor heard directly, but by etcd alone", "error", err)
	}
	l.begin(v)
	defer l.end()
	running.Go(func() { n.attend(ctx, v) })
	if n.kind == "pop" || n.kind == "up" {
		running.Go(func() { n.tellOfPoPs(ctx, v) })
	}
	return v.Run(ctx)
}

// vantages tells what those say whose reports count here.
func (n *node) vantages() []controlplane.VantageStatus {
	v := n.looks.now()
	if v == nil {
		return []controlplane.VantageStatus{}
	}
	return controlplane.VantagesOf(v.Reports(), v.Judgement().Doubted)
}

// targets lists what there is to look at, and remembers how.
func (n *node) targets(list func(*topology.Snapshot) []probe.Target, dnsToo bool) []health.Target {
	snap := n.Snapshot()
	if snap == nil {
		return nil
	}
	details, names := map[health.Target]probe.Target{}, []health.Target(nil)
	all := list(snap)
	if dnsToo {
		all = append(all, n.dnsTargets(snap)...)
	}
	for _, t := range all {
		details[t.Target] = t
		names = append(names, t.Target)
	}
	n.looks.details.Store(&details)
	return names
}

// kindsOf returns at what kinds of target a kind of node looks.
func kindsOf(kind string, hasKey bool) health.Kinds {
	switch {
	case !hasKey:
		return health.KindsOf(health.Cluster)
	case kind == "dns":
		return health.KindsOf(health.PoP, health.DNS)
	}
	return 0
}

// region returns the code of the continent where this node is, or nothing.
func (n *node) region() string {
	if snap := n.Snapshot(); n.kind == "pop" && snap != nil {
		if p := snap.Topology.PoPs[n.name]; p != nil {
			return geo.ContinentOf(p.Location.Country)
		}
	}
	return n.where
}

// publish tells others what this node says.
func (n *node) publish(r *health.Report, nearby []string, lasting bool) {
	l, e := &n.looks, n.looks.direct.Load()
	if e != nil {
		r.Key, r.Address = base64.RawURLEncoding.EncodeToString(n.reports.key.Public().(ed25519.PublicKey)), n.reports.address()
	}
	text := r.Append(nil, 0, time.Now())
	if lasting {
		l.report.Store(&text)
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
	if e != nil {
		e.Send(text, nearby...)
	}
}

// judged returns what takes verdicts: those that differ for those who are answered by them are given on.
func (n *node) judged(changed func(health.Verdicts)) func(health.Judgement) {
	var before health.Verdicts
	return func(j health.Judgement) {
		n.verdicts.Store(&j.Verdicts)
		if changed != nil && !j.Verdicts.SameStatus(before) {
			changed(j.Verdicts)
		}
		before = j.Verdicts
	}
}

// storePatience is how long the store may be silent before nobody counts as alive for what stands there.
const storePatience = 6 * time.Second

// attend tells a vantage whether the store can be read and who is there no more, and keeps what a restart needs, until ctx ends.
func (n *node) attend(ctx context.Context, v *vantage.Node) {
	var kept keptHealth
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		v.Store(n.contact.age() < storePatience)
		snap := n.Snapshot()
		if snap == nil {
			continue
		}
		for _, known := range v.Known() {
			if pop, ok := strings.CutPrefix(known.Name, "pop:"); ok && snap.Topology.PoPs[pop] == nil {
				v.Forget(known.Name)
			}
		}
		known := v.Known()
		n.looks.retain(known)
		n.keepHealth(&kept, known, time.Now())
	}
}

// reporting is where a node takes reports of others directly.
type reporting struct {
	at          netip.AddrPort // to listen on; invalid for nowhere
	key         ed25519.PrivateKey
	incarnation int64 // more than all that were used with the key
	conn        *net.UDPConn
}

// address is where others find it.
func (r *reporting) address() string { return r.conn.LocalAddr().String() }

// openDirect has a vantage heard and hear directly, until ctx ends, if this node is to. An address that is in use may be the predecessor's, who is
// about to end: it is tried again.
func (n *node) openDirect(ctx context.Context, v *vantage.Node, running *sync.WaitGroup) error {
	if !n.reports.at.IsValid() {
		return nil
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(n.reports.at))
	if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("reports: %w", err)
	}
	if err == nil {
		return n.runDirect(ctx, v, conn, running)
	}
	n.log.Info("reports of vantages will be heard directly once their address is free", "address", n.reports.at)
	running.Go(func() {
		again := time.NewTicker(time.Second)
		defer again.Stop()
		for {
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
			if conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(n.reports.at)); err == nil {
				if err := n.runDirect(ctx, v, conn, running); err != nil {
					n.log.Warn("reports of vantages are neither sent nor heard directly, but by etcd alone", "error", err)
				}
				return
			}
		}
	})
	return nil
}

// runDirect has a vantage heard and hear by a socket, until ctx ends.
func (n *node) runDirect(ctx context.Context, v *vantage.Node, conn *net.UDPConn, running *sync.WaitGroup) error {
	n.reports.conn = conn
	l := &n.looks
	e := direct.New(direct.Config{
		Name: store.NodeName(n.kind, n.name), Key: n.reports.key, Incarnation: uint64(n.reports.incarnation), Conn: conn, Peer: l.peer, All: l.receivers(n.kind), Log: n.log,
		Heard: func(name string, text []byte) {
			if r, err := health.DecodeReport(text, time.Now()); err == nil && r.Name == name {
				l.heardDirectly(r)
				v.Hear(r, false)
			}
		},
		Sign: v.Sign,
	})
	l.direct.Store(e)
	running.Go(func() {
		_ = e.Run(ctx)
		l.direct.Store(nil)
	})
	n.log.Log(ctx, slog.LevelDebug, "reports of vantages are heard directly", "address", conn.LocalAddr().String())
	return nil
}
