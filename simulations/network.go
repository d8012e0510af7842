package simulations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// Site is a place of the simulated world, such as sin.
type Site string

// Link is the pair of sites that a round-trip time belongs to, in either order.
type Link [2]Site

// String returns the sites with a comma between them.
func (l Link) String() string { return string(l[0]) + "," + string(l[1]) }

// RTTs are the round-trip times of links. A site is no time away from itself.
type RTTs map[Link]time.Duration

// Between returns the round-trip time between two sites, and whether there is a link.
func (r RTTs) Between(a, b Site) (time.Duration, bool) {
	if a == b {
		return 0, true
	}
	if rtt, ok := r[Link{a, b}]; ok {
		return rtt, true
	}
	rtt, ok := r[Link{b, a}]
	return rtt, ok
}

// Links returns the links in the order of their names.
func (r RTTs) Links() iter.Seq[Link] {
	return slices.Values(slices.SortedFunc(maps.Keys(r), func(a, b Link) int { return cmp.Compare(a.String(), b.String()) }))
}

// Network carries packets and streams between the hosts of sites. It lives in virtual time.
type Network struct {
	rtts   RTTs
	router simnet.PerfectRouter

	streams   sync.WaitGroup // goroutines that carry them
	mu        sync.Mutex
	hosts     map[netip.Addr]Site
	listeners map[string]*listener // by address and port
}

// NewNetwork returns a network without hosts.
func NewNetwork(rtts RTTs) *Network {
	return &Network{rtts: rtts, hosts: map[netip.Addr]Site{}, listeners: map[string]*listener{}}
}

// Wait waits until all streams have been closed, and what was written to them has arrived.
func (n *Network) Wait() { n.streams.Wait() }

// Host puts a new host at a site and returns its address.
func (n *Network) Host(at Site) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := len(n.hosts) + 1
	addr := netip.AddrFrom4([4]byte{10, 0, byte(number >> 8), byte(number)})
	n.hosts[addr] = at
	return addr
}

// rtt returns the round-trip time between two hosts.
func (n *Network) rtt(a, b netip.Addr) (time.Duration, error) {
	n.mu.Lock()
	from, to := n.hosts[a.Unmap()], n.hosts[b.Unmap()]
	n.mu.Unlock()
	rtt, ok := n.rtts.Between(from, to)
	if !ok {
		return 0, fmt.Errorf("the simulated network has no link %v", Link{from, to})
	}
	return rtt, nil
}

// ListenPacket binds a UDP socket of a host.
func (n *Network) ListenPacket(at netip.AddrPort) net.PacketConn {
	link := &simnet.SimulatedLink{UploadPacket: &n.router, LatencyFunc: func(p simnet.Packet) time.Duration {
		rtt, err := n.rtt(p.From.(*net.UDPAddr).AddrPort().Addr(), at.Addr())
		if err != nil {
			panic(err) // a world whose clients ask hosts that they have no link to is wrongly built
		}
		return rtt / 2
	}}
	addr := net.UDPAddrFromAddrPort(at)
	socket := &packetConn{simnet.NewBlockingSimConn(addr, link), link}
	n.router.AddNode(addr, link)
	link.Start()
	return socket
}

// packetConn is a socket with the goroutines of its link.
type packetConn struct {
	*simnet.SimConn
	link *simnet.SimulatedLink
}

// Close ends the link too.
func (c *packetConn) Close() error {
	return errors.Join(c.SimConn.Close(), c.link.Close())
}

// Listen binds a TCP socket of a host.
func (n *Network) Listen(at netip.AddrPort) net.Listener {
	l := &listener{at: net.TCPAddrFromAddrPort(at), accept: make(chan net.Conn, 128), closed: make(chan struct{})}
	n.mu.Lock()
	n.listeners[at.String()] = l
	n.mu.Unlock()
	return l
}

// Dialer returns a function that opens streams from a host.
func (n *Network) Dialer(from netip.Addr) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		rtt, err := n.rtt(from, to.Addr())
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(rtt): // SYN, and SYN with ACK
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		n.mu.Lock()
		l := n.listeners[address]
		n.mu.Unlock()
		if l == nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: syscall.ECONNREFUSED}
		}
		near, far := n.stream(net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), l.at, rtt/2)
		return near, l.give(far)
	}
}
