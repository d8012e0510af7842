package intakeclient

import (
	"net"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// longestHold is how long packets are held back at most: if quic-go does not take a session that allows early data for one.
const longestHold = 500 * time.Millisecond

// gate is a UDP socket whose packets can be held back for a moment: while a connection opens its first stream in 0-RTT, quic-go must
// not handle the server's transport parameters, which it would replace under the eyes of the one who opens (v0.65.0). That takes
// microseconds, and on real networks nothing comes in that time.
type gate struct {
	*net.UDPConn
	batch *ipv4.PacketConn
	held  sync.RWMutex // by those who open for reading, by who hands packets on for writing
}

func newGate(udp *net.UDPConn) *gate { return &gate{UDPConn: udp, batch: ipv4.NewPacketConn(udp)} }

// hold holds back what comes until release, which may be called again.
func (g *gate) hold() (release func()) {
	g.held.RLock()
	open := sync.OnceFunc(g.held.RUnlock)
	late := time.AfterFunc(longestHold, open)
	return func() {
		late.Stop()
		open()
	}
}

// ReadBatch is how quic-go reads (as ipv4.PacketConn has it, for IPv6 too).
func (g *gate) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	n, err := g.batch.ReadBatch(messages, flags)
	g.pass()
	return n, err
}

// ReadMsgUDP is how quic-go reads where it cannot read several packets at once.
func (g *gate) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, addr, err = g.UDPConn.ReadMsgUDP(b, oob)
	g.pass()
	return n, oobn, flags, addr, err
}

func (g *gate) pass() {
	g.held.Lock()
	defer g.held.Unlock()
}
