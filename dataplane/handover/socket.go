package handover

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

// Socket is a UDP socket that can pass packets to the process before, or receive them from the one after it. It is a
// quic.OOBCapablePacketConn: segmentation, batches and ECN work as with the UDP socket alone. Closing it closes the connections
// that were given to it. ReadBatch is for one goroutine; other methods may be called at any time.
type Socket struct {
	*net.UDPConn
	batch  *ipv4.PacketConn
	ids    *IDs
	before atomic.Pointer[peer] // who gets what belongs to it; nil for nobody
	after  atomic.Pointer[peer] // from whom packets come; nil while they come from UDP
	mesh   *Mesh                // of the PoPs; nil for none
	lost   atomic.Uint64
	buffer []byte

	mu       sync.Mutex
	deadline time.Time // as it was set from outside
	waiting  []Packet  // that other PoPs have passed on; a read is woken while there are any
	turn     bool      // some of them were read last: now it is the turn of what has come here
}

// peer is the connection to another process: it keeps the borders of messages, and their order (SOCK_SEQPACKET).
type peer struct{ net.Conn }

// NewSocket returns a Socket on a UDP socket, which has the ids of this process.
func NewSocket(udp *net.UDPConn, ids *IDs) *Socket {
	return &Socket{UDPConn: udp, batch: ipv4.NewPacketConn(udp), ids: ids, buffer: make([]byte, maxPassed)}
}

// PassTo passes packets of other generations to the process before this one, until that ends.
func (s *Socket) PassTo(before net.Conn) {
	s.swap(&s.before, before)
}

// ReceiveFrom leaves the UDP socket to the process after this one, and reads what that passes on. If that process ends, it reads the
// UDP socket again.
func (s *Socket) ReceiveFrom(after net.Conn) {
	s.swap(&s.after, after)
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.UDPConn.SetReadDeadline(longAgo) // wakes a read; ReadBatch sees why
	_ = s.wake(after)
}

// longAgo is a deadline that ends a read.
var longAgo = time.Unix(1, 0)

// wake ends a read of a source when there are packets of other PoPs to read, and else gives it the deadline that was set from outside. It is
// called with s.mu held.
func (s *Socket) wake(source net.Conn) error {
	if len(s.waiting) > 0 {
		return source.SetReadDeadline(longAgo)
	}
	return source.SetReadDeadline(s.deadline)
}

// source returns where packets are read, but for those of other PoPs.
func (s *Socket) source() net.Conn {
	if after := s.after.Load(); after != nil {
		return after
	}
	return s.UDPConn
}

func (s *Socket) swap(at *atomic.Pointer[peer], c net.Conn) {
	if old := at.Swap(&peer{c}); old != nil {
		old.Close()
	}
}

// Lost returns how many packets could not be passed on: the other process did not read them in time.
func (s *Socket) Lost() uint64 { return s.lost.Load() }

// SetReadDeadline implements net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return s.wake(s.source())
}

// SetDeadline implements net.PacketConn.
func (s *Socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// Close implements net.PacketConn.
func (s *Socket) Close() error {
	if s.mesh != nil {
		s.mesh.leave(s)
	}
	for _, at := range []*atomic.Pointer[peer]{&s.before, &s.after} {
		if p := at.Load(); p != nil {
			p.Close()
		}
	}
	return s.UDPConn.Close()
}

// ReadBatch reads the packets of this process. It is what quic-go reads by. Packets that other PoPs have passed on, and those that have come
// here, are read by turns.
func (s *Socket) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	for {
		if n := s.injected(messages); n > 0 {
			if n = s.sort(s.before.Load(), messages[:n]); n == 0 {
				continue
			}
			return n, nil
		}
		after := s.after.Load()
		n, err := 0, error(nil)
		if after != nil {
			n, err = s.receive(after, messages)
		} else {
			n, err = s.batch.ReadBatch(messages, flags)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && s.goesOn():
			continue
		case err != nil && after != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed):
			s.abandoned(after)
			continue
		case err != nil || after != nil:
			return n, err
		}
		if before := s.before.Load(); before != nil || s.mesh != nil {
			if n = s.sort(before, messages[:n]); n == 0 {
				continue
			}
		}
		return n, nil
	}
}

// goesOn reports whether a read was ended for what there is to read elsewhere, and not by the deadline that was set from outside.
func (s *Socket) goesOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
		return false
	}
	return s.after.Load() != nil || len(s.waiting) > 0
}

// maxInjected is how many packets of other PoPs may wait to be read.
const maxInjected = 1024

// glance is how long a read waits for packets that have come here, while others wait.
const glance = 50 * time.Microsecond

// inject has a packet of another PoP read as one of this socket, and reports whether there is room for it.
func (s *Socket) inject(p Packet) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= maxInjected {
		return false
	}
	s.waiting = append(s.waiting, p)
	if len(s.waiting) == 1 {
		_ = s.wake(s.source())
	}
	return true
}

// injected reads packets of other PoPs, if it is their turn.
func (s *Socket) injected(messages []ipv4.Message) int {
	if s.mesh == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn {
		if s.turn = false; len(s.waiting) == 0 {
			_ = s.wake(s.source())
		} else if soon := time.Now().Add(glance); s.deadline.IsZero() || soon.Before(s.deadline) {
			_ = s.source().SetReadDeadline(soon)
		}
		return 0
	}
	if len(s.waiting) == 0 {
		return 0
	}
	n := min(len(messages), len(s.waiting))
	for i := range n {
		s.waiting[i].fill(&messages[i])
	}
	if s.waiting = s.waiting[n:]; len(s.waiting) == 0 {
		s.waiting = nil
	}
	s.turn = true
	return n
}

// fill makes a message of a packet.
func (p *Packet) fill(m *ipv4.Message) {
	m.N = copy(m.Buffers[0], p.Data)
	m.NN = p.writeControl(m.OOB[:cap(m.OOB)])
	m.Addr = net.UDPAddrFromAddrPort(p.Source)
}

// local returns the address of the socket.
func (s *Socket) local() netip.AddrPort {
	at := s.UDPConn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// abandoned reads UDP again: nobody passes packets on any more.
func (s *Socket) abandoned(after *peer) {
	after.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.after.CompareAndSwap(after, nil) {
		_ = s.wake(s.UDPConn)
	}
}

// sort passes foreign packets on, and moves the others to the front. Before may be nil.
func (s *Socket) sort(before *peer, messages []ipv4.Message) int {
	own := 0
	for i := range messages {
		m := &messages[i]
		if s.elsewhere(before, m) {
			continue
		}
		// The buffers stay where they are, which quic-go owns by index; what is in them moves.
		if to := &messages[own]; own != i {
			to.N = copy(to.Buffers[0][:cap(to.Buffers[0])], m.Buffers[0][:m.N])
			to.NN = copy(to.OOB[:cap(to.OOB)], m.OOB[:m.NN])
			to.Flags, to.Addr = m.Flags, m.Addr
		}
		own++
	}
	return own
}

// elsewhere passes a packet on that is not for this process, or is one that was passed on.
func (s *Socket) elsewhere(before *peer, m *ipv4.Message) bool {
	data := m.Buffers[0][:m.N]
	if s.mesh != nil && isPassed(data) {
		s.mesh.take(data)
		return true
	}
	id, ok := Destination(data)
	if !ok {
		return false
	}
	if s.ids.Decode(id) == s.ids.own { // as nearly all do
		return false
	}
	gone := false
	known := s.ids.readings(id, func(is ID) bool {
		switch {
		case is.PoP != s.ids.own.PoP:
			gone = s.mesh != nil && s.toPoP(is.PoP, m)
			return gone
		case is.Generation != s.ids.own.Generation && before != nil:
			if p, ok := s.packet(m); ok {
				s.write(before, p.Append(s.buffer[:0]))
			}
			gone = true
		}
		return true
	})
	if !known && s.mesh != nil {
		s.mesh.Counts.Unknown.Add(1)
	}
	return gone
}

// toPoP passes a packet on to another PoP, if there is such a one.
func (s *Socket) toPoP(pop uint32, m *ipv4.Message) bool {
	p, ok := s.packet(m)
	at := s.local()
	if p.Port = at.Port(); !p.Destination.IsValid() {
		p.Destination = at.Addr()
	}
	return ok && s.mesh.pass(pop, &p)
}

// packet returns what was read as it is passed on.
func (s *Socket) packet(m *ipv4.Message) (Packet, bool) {
	from, ok := m.Addr.(*net.UDPAddr)
	if !ok || m.N > maxDatagram {
		return Packet{}, false
	}
	p := Packet{Source: from.AddrPort(), Data: m.Buffers[0][:m.N]}
	p.readControl(m.OOB[:m.NN])
	return p, true
}

// write sends a packet to the process before this one. Nobody waits for one that does not read: a lost packet is sent again.
func (s *Socket) write(before *peer, packet []byte) {
	_ = before.SetWriteDeadline(time.Now().Add(passTimeout))
	if _, err := before.Write(packet); err != nil {
		s.lost.Add(1)
		if !errors.Is(err, os.ErrDeadlineExceeded) && s.before.CompareAndSwap(before, nil) {
			before.Close()
		}
	}
}

// passTimeout is how long a packet waits for the other process to read: the queue between them is full then.
const passTimeout = time.Millisecond

// receive reads one packet from the process after this one.
func (s *Socket) receive(after *peer, messages []ipv4.Message) (int, error) {
	for {
		n, err := after.Read(s.buffer)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		p, err := Decode(s.buffer[:n])
		if err != nil {
			s.lost.Add(1)
			continue
		}
		m := &messages[0]
		if before := s.before.Load(); before != nil && s.ids.foreign(p.Data) { // a third process still ends
			s.write(before, s.buffer[:n])
			continue
		}
		p.fill(m)
		return 1, nil
	}
}
