package handover

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// MeshConfig says what a mesh needs.
type MeshConfig struct {
	IDs *IDs // of this process
	// Secrets are those that all PoPs share, the present one first; the others are of a rotation that has not reached everybody yet. While
	// there is none, nothing is passed on.
	Secrets func() [][]byte
	// Address tells where a PoP takes packets of its connections: an address of its own, which BGP carries to nobody else, with the port of
	// its intake. It is called for each packet, and false for a PoP that is not known, or is known to be dead.
	Address func(pop uint32) (netip.AddrPort, bool)
}

// Mesh passes the packets of a connection that BGP has carried to another PoP on to the PoP whose connection it is. That one answers from the
// address that the client knows, which it has as well, so a client never sees that its route has changed. Packets go to an ordinary address
// and port of the PoP's intake, encrypted and authenticated; their first octet tells them from QUIC's (RFC 9443). It is safe for concurrent
// use.
type Mesh struct {
	config MeshConfig
	sealer *sealer
	opener *opener
	out    *net.UDPConn // which lets packets be fragmented, as a quic.Transport's socket does not
	Counts MeshCounts

	mu      sync.Mutex
	sockets map[netip.AddrPort]*Socket
}

// MeshCounts count packets. Passed went to another PoP, Taken came from one. Unknown are of PoPs that are not known or
// dead, or have an id that a client has made up, and are kept; Refused could not be
// authenticated, or make no sense; Homeless came for an address that this PoP does not have; Lost found no room.
type MeshCounts struct {
	Passed, Taken, Unknown, Refused, Homeless, Lost atomic.Uint64
}

// NewMesh returns a mesh without sockets.
func NewMesh(c MeshConfig) (*Mesh, error) {
	out, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	return &Mesh{config: c, sealer: newSealer(), opener: newOpener(), out: out, sockets: map[netip.AddrPort]*Socket{}}, nil
}

// Close closes the socket that packets leave by.
func (m *Mesh) Close() error { return m.out.Close() }

// Join has a socket pass packets on, and get those that are passed on to its address. It must be called before the socket is read for the first
// time.
func (m *Mesh) Join(s *Socket) {
	s.mesh = m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets[s.local()] = s
}

// leave forgets a socket, which is closed.
func (m *Mesh) leave(s *Socket) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sockets[s.local()] == s {
		delete(m.sockets, s.local())
	}
}

// isPassed reports whether a datagram was passed on by another PoP. QUIC's have the second bit set, whatever their version.
func isPassed(datagram []byte) bool { return len(datagram) > 0 && datagram[0] == passed }

// pass passes a packet on that a socket has read, if there is such a PoP to have it.
func (m *Mesh) pass(pop uint32, p *Packet) bool {
	to, known := m.config.Address(pop)
	if !known {
		return false
	}
	secrets := m.config.Secrets()
	if len(secrets) == 0 {
		return false
	}
	for _, datagram := range m.sealer.seal(secrets[0], p) {
		if _, err := m.out.WriteToUDPAddrPort(datagram, to); err != nil {
			m.Counts.Lost.Add(1)
			return true
		}
	}
	m.Counts.Passed.Add(1)
	return true
}

// take takes a datagram of another PoP.
func (m *Mesh) take(datagram []byte) {
	p, whole, err := m.opener.open(m.config.Secrets(), datagram)
	if err == nil && !whole {
		return
	}
	if err != nil {
		m.Counts.Refused.Add(1)
		return
	}
	ours := func(is ID) bool { return is.PoP == m.config.IDs.own.PoP }
	if id, ok := Destination(p.Data); !ok || !m.config.IDs.readings(id, ours) { // nothing is passed on twice
		m.Counts.Refused.Add(1)
		return
	}
	p.Interface = 0 // is another machine's
	m.mu.Lock()
	s := m.sockets[netip.AddrPortFrom(p.Destination, p.Port)]
	for _, all := range wildcards(p.Destination) {
		if s == nil {
			s = m.sockets[netip.AddrPortFrom(all, p.Port)]
		}
	}
	m.mu.Unlock()
	switch {
	case s == nil:
		m.Counts.Homeless.Add(1)
	case !s.inject(p):
		m.Counts.Lost.Add(1)
	default:
		m.Counts.Taken.Add(1)
	}
}

// wildcards returns the addresses of sockets that take packets to all addresses of a family: one of IPv6 may take IPv4's too.
func wildcards(a netip.Addr) []netip.Addr {
	if a.Is4() {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv6Unspecified()}
}
