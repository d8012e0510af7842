package packet

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/direct"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/health/vantage"
	"github.com/isochrone/isochrone/topology"
)

// looker is a node as a vantage: it probes over the simulated network, tells what it sees by the store and directly, and reaches verdicts.
type looker struct {
	engine   *engine
	name     string // such as pop:sin1
	addr     netip.Addr
	serves   string // of a DNS node: where it answers
	member   *member
	node     *vantage.Node
	prober   *probe.Prober
	exchange *direct.Exchange
	key      ed25519.PrivateKey
	verdicts atomic.Pointer[health.Verdicts]
	details  atomic.Pointer[map[health.Target]probe.Target]

	mu       sync.Mutex
	snapshot *topology.Snapshot
	texts    map[string][]byte
	reports  map[string]*health.Report
	peers    map[string]direct.Peer
	news     chan struct{} // that hear has taken, and the vantage was not told
}

const reportsPort = 8054

// newLooker makes a vantage. Judged is called with verdicts; it may be nil. Heard is called with snapshots that differ.
func (e *engine) newLooker(name string, addr netip.Addr, region, serves string, judged func(health.Verdicts), heard func(*topology.Snapshot)) *looker {
	seed := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, e.seed))
	l := &looker{
		engine: e, name: name, addr: addr, serves: serves, key: ed25519.NewKeyFromSeed(seed[:]), reports: map[string]*health.Report{}, peers: map[string]direct.Peer{},
		news: make(chan struct{}, 1),
	}
	looks := health.Kinds(0)
	if serves != "" {
		looks = health.KindsOf(health.PoP, health.DNS)
	}
	l.prober = probe.New(probe.Config{
		Roots: e.ca.Pool(), Keys: probe.Key(e.probeKey), Dial: e.network.Dialer(addr), Wrap: Pace,
		Listen: func() (net.PacketConn, error) { return e.network.ListenPacket(netip.AddrPortFrom(addr, 0)) },
	})
	l.node = vantage.New(vantage.Config{
		Vantage: health.Vantage{Name: name, Region: region, Looks: looks},
		Targets: l.targets,
		Probe: func(ctx context.Context, t health.Target) health.Observation {
			if details := l.details.Load(); details != nil {
				return l.prober.Probe(ctx, (*details)[t])
			}
			return health.Observation{}
		},
		Publish: l.publish,
		Judged: func(j health.Judgement) {
			l.verdicts.Store(&j.Verdicts)
			if judged != nil {
				judged(j.Verdicts)
			}
		},
		Describe: func(r *health.Report) { r.Serves = l.serves },
	})
	l.member = e.store.join(name, addr, func(snap *topology.Snapshot, texts map[string][]byte) {
		l.mu.Lock()
		differs := l.snapshot != snap
		l.snapshot, l.texts = snap, texts
		l.mu.Unlock()
		if differs && heard != nil {
			heard(snap)
		}
		select {
		case l.news <- struct{}{}:
		default:
		}
	})
	return l
}

func (l *looker) now() *topology.Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot
}

// held returns the verdicts of the node.
func (l *looker) held() health.Verdicts {
	if v := l.verdicts.Load(); v != nil {
		return *v
	}
	return nil
}

// run looks until ctx ends.
func (l *looker) run(ctx context.Context) error {
	conn, err := l.engine.network.ListenPacket(netip.AddrPortFrom(l.addr, reportsPort))
	if err != nil {
		return err
	}
	l.exchange = direct.New(direct.Config{
		Name: l.name, Key: l.key, Conn: conn, Peer: l.peer, All: l.receivers, Sign: l.node.Sign,
		Heard: func(name string, text []byte) {
			if r, err := health.DecodeReport(text, time.Now()); err == nil && r.Name == name {
				l.node.Hear(r, false)
			}
		},
	})
	// Whatever is done every second is done at moments of its own, in each node and among them: of two things at one moment, either may come first.
	stagger := l.engine.chance.with(uint64(forStart)).of(l.addr, l.addr, time.Time{}).below(time.Second)
	var running sync.WaitGroup
	running.Go(func() {
		if wait(ctx, stagger) {
			_ = l.exchange.Run(ctx)
		} else {
			conn.Close()
		}
	})
	running.Go(func() {
		if wait(ctx, stagger+1_700_001) {
			l.attend(ctx)
		}
	})
	if wait(ctx, stagger+3_300_003) {
		_ = l.node.Run(ctx)
	}
	running.Wait()
	l.prober.Close()
	return nil
}

// attend speaks to the store, and tells the vantage what is heard of it, until ctx ends.
func (l *looker) attend(ctx context.Context) {
	look := time.NewTicker(keepAlive)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.news:
			l.learn()
		case <-look.C:
			l.member.speak()
			l.node.Store(l.member.age() < 6*time.Second)
			if snap := l.now(); snap != nil {
				for _, known := range l.node.Known() {
					if pop, ok := strings.CutPrefix(known.Name, "pop:"); ok && snap.Topology.PoPs[pop] == nil {
						l.node.Forget(known.Name)
					}
				}
			}
		}
	}
}

// learn tells the vantage which reports in the store have changed.
func (l *looker) learn() {
	var changed []*health.Report
	var gone []string
	l.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(l.texts)) {
		text := l.texts[name]
		if name == l.name {
			continue
		}
		r, err := health.DecodeReport(text, time.Now())
		if err != nil {
			continue
		}
		if known := l.reports[name]; known != nil && known.Incarnation == r.Incarnation && known.Sequence == r.Sequence {
			continue
		}
		l.reports[name] = r
		at, _ := netip.ParseAddrPort(r.Address)
		if key, err := base64.RawURLEncoding.DecodeString(r.Key); err == nil && len(key) == ed25519.PublicKeySize {
			l.peers[name] = direct.Peer{Key: key, Addr: at}
		}
		changed = append(changed, r)
	}
	for name := range l.reports {
		if l.texts[name] == nil {
			delete(l.reports, name)
			gone = append(gone, name)
		}
	}
	l.mu.Unlock()
	for _, r := range changed {
		l.node.Hear(r, true)
	}
	slices.Sort(gone)
	for _, name := range gone {
		l.node.Gone(name)
	}
}

func (l *looker) peer(name string) direct.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers[name]
}

// receivers are those who get every report: the DNS nodes, and from a DNS node all.
func (l *looker) receivers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := slices.DeleteFunc(slices.Collect(maps.Keys(l.peers)), func(name string) bool { return l.serves == "" && !strings.HasPrefix(name, "dns:") })
	slices.Sort(names)
	return names
}

func (l *looker) publish(r *health.Report, nearby []string, lasting bool) {
	r.Key, r.Address = base64.RawURLEncoding.EncodeToString(l.key.Public().(ed25519.PublicKey)), netip.AddrPortFrom(l.addr, reportsPort).String()
	text := r.Append(nil, 0, time.Now())
	if lasting {
		l.member.put(text)
	}
	if l.exchange != nil {
		l.exchange.Send(text, nearby...)
	}
}

// targets lists what there is to look at.
func (l *looker) targets() []health.Target {
	snap := l.now()
	l.mu.Lock()
	reports := maps.Clone(l.reports)
	l.mu.Unlock()
	service := l.engine.world.Service
	all := probe.DNSTargets(reports, snap)
	for name, p := range snap.Topology.PoPs {
		if p.State == topology.Disabled {
			continue
		}
		t := probe.Target{
			Target: health.Target{Kind: health.PoP, Name: name}, Service: service, Path: dataplane.Path, Body: l.engine.body(nil, 0),
			How: snap.Topology.Services[service].Probed(),
		}
		for _, a := range p.Addresses {
			t.Addrs = append(t.Addrs, netip.AddrPortFrom(a, p.Port))
		}
		all = append(all, t)
	}
	for name, c := range snap.Topology.Clusters {
		if c.State != topology.Disabled {
			all = append(all, probe.Target{Target: health.Target{Kind: health.Cluster, Name: name}, Endpoints: c.Endpoints, Healthz: c.Probed().Path})
		}
	}
	details, names := map[health.Target]probe.Target{}, []health.Target(nil)
	for _, t := range all {
		details[t.Target] = t
		names = append(names, t.Target)
	}
	l.details.Store(&details)
	return names
}
