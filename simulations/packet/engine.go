package packet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/virtual"
	"github.com/isochrone/isochrone/simulations/world"
	"github.com/isochrone/isochrone/topology"
)

// MostClients is how many clients a scenario of the packet level has at the most.
const MostClients = 10_000

// Fixed begins the name of a policy that sends all clients to one PoP, such as fixed:iad1.
const Fixed = "fixed:"

// ErrUnsupported says that a scenario has something in it that is not for the packet level.
var ErrUnsupported = errors.New("not for the packet level")

// engine is a world while it runs.
type engine struct {
	scenario *scenario.Scenario
	world    *world.World
	policy   scenario.PolicyName
	seed     uint64
	chance   draw
	progress scenario.Progress
	dir      string
	watched  bool // health is looked after: something may happen
	fixed    int  // the PoP of all clients; -1 for none

	ground   *ground
	network  *Network
	store    *store
	ca       *devca.CA
	key      string
	probeKey string
	quota    *quota.Memory
	topology *topology.Topology
	log      lockedBuffer

	clusters []*clusterNode
	pops     []*popNode
	dns      []*dnsNode
	popOf    map[netip.AddrPort]int

	clusterLayer, popLayer, dnsLayer, clientLayer *layer

	stop   context.Context
	cancel context.CancelFunc
	faults faults
	record
}

// Run runs a scenario in virtual time, by a policy: ours, nearest, or Fixed with the name of a PoP. It may take seconds for each minute of the
// scenario; progress, which may be nil, is told how far it is. The error wraps ErrUnsupported when the scenario or the policy is not for this level.
//
// Clients post on connections of their own; on a new one if the last was idle for half a minute, or with the probability that the scenario says. In a
// scenario without duration each posts once on a new connection and once more on the same. Health is looked after in scenarios in which something happens.
func Run(ctx context.Context, s *scenario.Scenario, w *world.World, policy scenario.PolicyName, seed uint64, progress scenario.Progress) (*scenario.Run, error) {
	e, err := simulate(ctx, s, w, policy, seed, progress)
	if err != nil {
		return nil, err
	}
	return e.figures(), nil
}

// simulate runs a scenario, and returns the world as it has been.
func simulate(ctx context.Context, s *scenario.Scenario, w *world.World, policy scenario.PolicyName, seed uint64, progress scenario.Progress) (*engine, error) {
	e := &engine{
		scenario: s, world: w, policy: policy, seed: seed, chance: draw(0).with(seed), progress: progress, watched: len(s.Timeline) > 0, fixed: -1,
		popOf: map[netip.AddrPort]int{},
	}
	if e.progress == nil {
		e.progress = func(float64) {}
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(Scratch(), "isochrone-simulation-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	e.dir = dir
	err = virtual.Run(func() error {
		err := e.start()
		if err == nil {
			err = e.play(ctx)
		}
		return errors.Join(err, e.end())
	})
	return e, err
}

// Scratch returns a folder for files that need not outlive the process: in memory where the system has such a folder, since a disk that is waited for
// makes simulations slow, and changes nothing in them.
func Scratch() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// check refuses what this level does not have.
func (e *engine) check() error {
	switch name, isFixed := strings.CutPrefix(string(e.policy), Fixed); {
	case isFixed:
		number, ok := e.world.PoP(name)
		if !ok {
			return fmt.Errorf("policy %s: there is no PoP %q", e.policy, name)
		}
		e.fixed = number
	case e.policy != scenario.Ours && e.policy != scenario.Nearest:
		return fmt.Errorf("policy %s: %w: it has ours, nearest and %sPOP", e.policy, ErrUnsupported, Fixed)
	}
	if n := e.world.Nodes; n > MostClients {
		return fmt.Errorf("%d clients: %w: it has %d at the most", n, ErrUnsupported, MostClients)
	}
	for i := range e.scenario.Timeline {
		switch event := &e.scenario.Timeline[i]; {
		case event.Flip != nil:
			return fmt.Errorf("timeline[%d].%s: %w", i, event.Kind(), ErrUnsupported)
		case event.BrownOut != nil && event.BrownOut.Capacity > 0:
			return fmt.Errorf("timeline[%d].brown_out.capacity: %w: work of processors takes no virtual time", i, ErrUnsupported)
		}
	}
	if faults := e.world.Check(e.scenario.Timeline); len(faults) > 0 {
		return &scenario.InvalidError{Faults: faults}
	}
	var err error
	e.topology, err = e.addressed()
	return err
}

// addressed returns the world's topology with the addresses that PoPs and clusters have here, and without what needs anycast.
func (e *engine) addressed() (*topology.Topology, error) {
	t, err := topology.Parse(e.world.Topology.Marshal())
	if err != nil {
		return nil, err
	}
	for i, site := range e.world.PoPs {
		p := t.PoPs[site.Name]
		p.Addresses, p.Port, p.VIPs, p.Announces = []netip.Addr{popAddr(i)}, 443, nil, nil
		e.popOf[netip.AddrPortFrom(popAddr(i), 443)] = i
	}
	for i, site := range e.world.Clusters {
		t.Clusters[site.Name].Endpoints = []string{fmt.Sprintf("http://%v:80", clusterAddr(i))}
	}
	if faults := t.Validate(); len(faults) > 0 {
		return nil, fmt.Errorf("a topology without anycast: %w: %v", ErrUnsupported, faults[0])
	}
	return t, nil
}

// The addresses of what a world has. Clients have theirs of their networks, and resolvers as the world says.
func popAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte((i + 1) >> 8), byte(i + 1)})
}
func clusterAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}) }
func dnsAddr(i int) netip.Addr     { return netip.AddrFrom4([4]byte{192, 0, 2, byte(53 + i)}) }

var etcdAddr = netip.AddrFrom4([4]byte{10, 2, 0, 1})

// mostDNS is how many DNS nodes there are at the most, one beside each of the first clusters.
const mostDNS = 4

// start starts everything but the clients.
func (e *engine) start() error {
	e.stop, e.cancel = context.WithCancel(context.Background())
	e.clusterLayer, e.popLayer, e.dnsLayer, e.clientLayer = newLayer(), newLayer(), newLayer(), newLayer()
	e.ground = newGround(e.world)
	e.network = New(Config{Way: e.ground.way, Seed: e.seed, MTU: e.scenario.World.Network.MTU})
	e.quota = quota.NewMemory(1)
	e.faults.ground = e.ground
	e.network.Break(e.faults.of)
	var err error
	if e.ca, err = devca.New(time.Now()); err != nil {
		return err
	}
	snap, err := e.firstSnapshot()
	if err != nil {
		return err
	}
	e.place()
	e.store = newStore(e.network, etcdAddr, snap)
	for i := range e.world.Clusters {
		if err := e.startCluster(i); err != nil {
			return err
		}
	}
	for i := range min(mostDNS, len(e.world.Clusters)) {
		if err := e.startDNS(i); err != nil {
			return err
		}
	}
	for i := range e.world.PoPs {
		if err := e.addPoP(i); err != nil {
			return err
		}
	}
	return nil
}

// place puts all hosts into the network, but for clients and resolvers.
func (e *engine) place() {
	put := func(addr netip.Addr, s stand) {
		e.ground.put(addr, s)
		e.network.Add(&Host{Addr: addr})
	}
	for i, p := range e.world.PoPs {
		put(popAddr(i), stand{kind: popKind, number: i, name: p.Name, Location: p.Location})
	}
	for i, c := range e.world.Clusters {
		put(clusterAddr(i), stand{kind: clusterKind, number: i, name: c.Name, Location: c.Location})
		if i < mostDNS {
			put(dnsAddr(i), stand{kind: dnsKind, number: i, name: c.Name, Location: c.Location})
		}
	}
	first := e.world.Clusters[0]
	put(etcdAddr, stand{kind: clusterKind, number: 0, name: first.Name, Location: first.Location})
}

// plenty is a quota that no scenario reaches.
const plenty = 1 << 40

func (e *engine) firstSnapshot() (*topology.Snapshot, error) {
	id, key, record, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		return nil, err
	}
	probeID, probeKey, probeRecord, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		return nil, err
	}
	record.QuotaPerMinute, probeRecord.Probe = plenty, true
	e.key, e.probeKey = key, probeKey
	return &topology.Snapshot{
		Revision: 1, Good: 1, Topology: e.topology, Overrides: map[string]*topology.Override{},
		Keys: topology.NewKeySet(map[string]*topology.Key{id: record, probeID: probeRecord}),
	}, nil
}

// end ends everything, the clients first.
func (e *engine) end() error {
	e.cancel()
	var errs []error
	for _, l := range []*layer{e.clientLayer, e.popLayer, e.dnsLayer, e.clusterLayer} {
		e.network.Break(nil)
		errs = append(errs, l.end())
	}
	e.network.Wait()
	if said := e.log.String(); said != "" {
		errs = append(errs, fmt.Errorf("nodes complained: %s", said))
	}
	return errors.Join(errs...)
}

// body makes a payload that the world's service accepts, of about the size that the scenario says.
func (e *engine) body(c *client, number uint64) []byte {
	object := map[string]string{}
	for _, field := range e.topology.Services[e.world.Service].Intake.RequiredFields {
		object[field] = "simulated"
	}
	if c != nil {
		object["post"] = fmt.Sprintf("%d-%d", c.number, number)
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err) // strings can be written
	}
	if lacks := e.scenario.World.Clients.Body - len(text) - len(`,"x":""`); c != nil && lacks > 0 {
		text = fmt.Appendf(text[:len(text)-1], `,"x":"%s"}`, strings.Repeat("x", lacks))
	}
	return text
}

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

// String returns what was written.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
