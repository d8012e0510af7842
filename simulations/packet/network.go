package packet

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// Config says what a network is like.
type Config struct {
	Way  func(from, to *Host) (Way, error) // how packets get from one host to another; asked once for each pair
	Seed uint64                            // of chance
	MTU  int                               // octets of an IP packet; longer ones are dropped without a word; default 1500
}

// Host is a machine with one address.
type Host struct {
	Addr netip.Addr
	Site Site
	Line Line

	up, down queue
	port     uint16 // that was given out last
}

// Fault is what a network does to packets from one host to another beside what it always does.
type Fault struct {
	Cut   bool          // nothing arrives
	Loss  float64       // of bursts, 0..1
	Delay time.Duration // added
}

// Network carries packets and streams between hosts. It lives in virtual time.
//
// Packets that a host sends to another within a millisecond are one burst: they have the same delay and, if they are datagrams, are lost together. How
// a sender divides what it says at one moment into datagrams differs from run to run, since goroutines race; what becomes of it must not.
type Network struct {
	config Config
	chance draw
	wire   *wire
	fault  atomic.Pointer[func(from, to netip.Addr) Fault] // nil for none

	mu        sync.Mutex
	hosts     map[netip.Addr]*Host
	flows     map[[2]netip.Addr]*flow
	sockets   map[netip.AddrPort]simnet.PacketReceiver
	listeners map[netip.AddrPort]*listener
	counts    Counts
}

// Counts tell what became of packets.
type Counts struct {
	Carried, Lost, TooLong, Dropped, Cut uint64 // Dropped: a queue was full
}

// burst is the time within which packets have one fate.
const burst = time.Millisecond

// flow is what goes from one host to another.
type flow struct {
	way      Way
	from, to *Host
	last     time.Time // when the last packet arrives: the next does not overtake it
	at       time.Time // when the last burst began
	number   uint64    // of its packets
}

// New returns a network without hosts.
func New(c Config) *Network {
	c.MTU = cmp.Or(c.MTU, 1500)
	return &Network{
		config: c, chance: draw(0).with(c.Seed), wire: newWire(), hosts: map[netip.Addr]*Host{}, flows: map[[2]netip.Addr]*flow{},
		sockets: map[netip.AddrPort]simnet.PacketReceiver{}, listeners: map[netip.AddrPort]*listener{},
	}
}

// Wait waits until nothing is on the way any more, neither packets nor what waits to be sent again. No host sends anything then.
func (n *Network) Wait() { n.wire.running.Wait() }

// Counts tells what became of packets until now. It differs a little from run to run, as the number of packets does.
func (n *Network) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Host puts a new host at a site and returns its address.
func (n *Network) Host(at Site) netip.Addr {
	n.mu.Lock()
	number := len(n.hosts) + 1
	n.mu.Unlock()
	h := &Host{Addr: netip.AddrFrom4([4]byte{10, 0, byte(number >> 8), byte(number)}), Site: at}
	n.Add(h)
	return h.Addr
}

// Add puts a host into the network. It must not be changed afterwards.
func (n *Network) Add(h *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wait := cmp.Or(h.Line.Queue, defaultQueue)
	h.up, h.down, h.port = queue{rate: h.Line.Up, wait: wait}, queue{rate: h.Line.Down, wait: wait}, 40000
	n.hosts[h.Addr] = h
}

// Break has a function say what is broken, from now on; nil: nothing. It is called for each packet, when it is sent and when it arrives.
func (n *Network) Break(fault func(from, to netip.Addr) Fault) {
	if fault == nil {
		n.fault.Store(nil)
		return
	}
	n.fault.Store(&fault)
}

func (n *Network) broken(from, to netip.Addr) Fault {
	if fault := n.fault.Load(); fault != nil {
		return (*fault)(from, to)
	}
	return Fault{}
}

// flow returns that between two hosts. The caller holds the mutex.
func (n *Network) flow(from, to netip.Addr) (*flow, error) {
	if f := n.flows[[2]netip.Addr{from, to}]; f != nil {
		return f, nil
	}
	f := &flow{from: n.hosts[from], to: n.hosts[to]}
	if f.from == nil || f.to == nil {
		return nil, fmt.Errorf("the simulated network has no way from %v to %v: one of them is not in it", from, to)
	}
	var err error
	if f.way, err = n.config.Way(f.from, f.to); err != nil {
		return nil, err
	}
	n.flows[[2]netip.Addr{from, to}] = f
	return f, nil
}

// carry brings a packet of some octets, with all headers, from one host to another, or loses it. Those of a burst that are lost together have no
// number; the others are numbered as they come.
func (n *Network) carry(from, to netip.Addr, octets int, together bool, deliver func()) error {
	fault := n.broken(from, to)
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	f, err := n.flow(from, to)
	if err != nil {
		return err
	}
	if at := now.Truncate(burst); at.Equal(f.at) {
		f.number++
	} else {
		f.at, f.number = at, 0
	}
	chance := n.chance.of(from, to, f.at)
	each := chance.with(f.number)
	if together {
		each = chance
	}
	switch {
	case octets > n.config.MTU:
		n.counts.TooLong++
		return nil
	case fault.Cut:
		n.counts.Cut++
		return nil
	case each.with(uint64(forLoss)).uniform() < f.way.Loss, each.with(uint64(forMore)).uniform() < fault.Loss:
		n.counts.Lost++
		return nil
	}
	sent, room := f.from.up.leave(now, octets)
	if !room {
		n.counts.Dropped++
		return nil
	}
	n.wire.at(n.due(f, sent.Add(fault.Delay), chance), from, to, func() { n.arrive(f, octets, deliver) })
	return nil
}

// due returns when a packet arrives. It does not overtake others, unless it is one of those that are reordered: these are held back by a quarter of
// the way, at least a millisecond, and of a burst of several packets the first is held back alone.
func (n *Network) due(f *flow, sent time.Time, chance draw) time.Time {
	due := sent.Add(f.way.late(chance))
	if f.number == 0 && chance.with(uint64(forReorder)).uniform() < f.way.Reorder {
		return due.Add(max(f.way.Delay/4, time.Millisecond))
	}
	if due.Before(f.last) {
		due = f.last
	}
	f.last = due
	return due
}

// arrive takes a packet at the line of the host that it is for.
func (n *Network) arrive(f *flow, octets int, deliver func()) {
	if n.broken(f.from.Addr, f.to.Addr).Cut {
		n.count(&n.counts.Cut)
		return
	}
	if f.to.down.rate == 0 {
		n.count(&n.counts.Carried)
		deliver()
		return
	}
	n.mu.Lock()
	now := time.Now()
	done, room := f.to.down.leave(now, octets)
	n.mu.Unlock()
	if !room {
		n.count(&n.counts.Dropped)
		return
	}
	n.count(&n.counts.Carried)
	n.wire.at(done, f.from.Addr, f.to.Addr, deliver)
}

func (n *Network) count(what *uint64) {
	n.mu.Lock()
	*what++
	n.mu.Unlock()
}

// port returns one of a host that is not in use. The caller holds the mutex.
func (n *Network) freePort(of netip.Addr) (netip.AddrPort, error) {
	h := n.hosts[of]
	if h == nil {
		return netip.AddrPort{}, fmt.Errorf("the simulated network has no host %v", of)
	}
	for range 25000 {
		if h.port++; h.port >= 65000 {
			h.port = 40000
		}
		at := netip.AddrPortFrom(of, h.port)
		if _, used := n.sockets[at]; !used {
			return at, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("host %v of the simulated network has no free port", of)
}

// addrOf returns the address and port of a net.Addr of this network.
func addrOf(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
