package packet

import (
	"net"
	"net/netip"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// headers of IPv4 and UDP.
const udpHeaders = 28

// ListenPacket binds a UDP socket of a host; port 0 stands for any that is free. Datagrams that nobody listens for are lost: there is no ICMP.
func (n *Network) ListenPacket(at netip.AddrPort) (net.PacketConn, error) {
	if at.Port() == 0 {
		n.mu.Lock()
		free, err := n.freePort(at.Addr())
		n.mu.Unlock()
		if err != nil {
			return nil, err
		}
		at = free
	}
	return &packetConn{simnet.NewSimConn(net.UDPAddrFromAddrPort(at), (*switchboard)(n)), n, at}, nil
}

// DialPacket returns a UDP socket of a host that is connected.
func (n *Network) DialPacket(from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	conn, err := n.ListenPacket(netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, err
	}
	return &connectedConn{conn, net.UDPAddrFromAddrPort(to)}, nil
}

// switchboard is a network as sockets of simnet see it.
type switchboard Network

// AddNode implements simnet.Router.
func (r *switchboard) AddNode(addr net.Addr, receiver simnet.PacketReceiver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sockets[addrOf(addr)] = receiver
}

// SendPacket implements simnet.Router.
func (r *switchboard) SendPacket(p simnet.Packet) error {
	n, from, to := (*Network)(r), addrOf(p.From), addrOf(p.To)
	return n.carry(from.Addr(), to.Addr(), len(p.Data)+udpHeaders, true, func() {
		n.mu.Lock()
		receiver := n.sockets[to]
		n.mu.Unlock()
		if receiver != nil {
			receiver.RecvPacket(p)
		}
	})
}

// packetConn is a socket until it is closed.
type packetConn struct {
	*simnet.SimConn
	network *Network
	at      netip.AddrPort
}

// Close implements net.PacketConn.
func (c *packetConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.sockets, c.at)
	c.network.mu.Unlock()
	return c.SimConn.Close()
}

// connectedConn is a socket that one other is talked with.
type connectedConn struct {
	net.PacketConn
	to *net.UDPAddr
}

// Read implements net.Conn.
func (c *connectedConn) Read(p []byte) (int, error) {
	for {
		n, from, err := c.ReadFrom(p)
		if err != nil || addrOf(from) == addrOf(c.to) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *connectedConn) Write(p []byte) (int, error) { return c.WriteTo(p, c.to) }

// RemoteAddr implements net.Conn.
func (c *connectedConn) RemoteAddr() net.Addr { return c.to }
