// Package sockettest gives tests sockets and ports that no other test has, of this process or of one that runs beside it.
package sockettest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/isochrone/isochrone/internal/sockets"
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Both returns a TCP listener and a UDP socket of one port of 127.0.0.1. They are the caller's to close.
func Both(t testing.TB) (net.Listener, *net.UDPConn) {
	t.Helper()
	var pool sockets.Pool
	defer pool.Close()
	tcp, udp, err := pool.Both(netip.AddrPortFrom(loopback, 0), 1)
	if err != nil {
		t.Fatal(err)
	}
	return tcp, udp[0]
}

// The ports of Free: the system gives none of them to a socket that asks for any, nor to one that connects
// (net.ipv4.ip_local_port_range begins at 32768).
const (
	firstPort = 10_000
	ports     = 20_000
)

// guard has, while a test owns a port, a listener of that port. Nobody else uses the address.
const guard = "127.77.77.77"

// Free returns 127.0.0.1 with a port that is free at all addresses, for TCP and for UDP, and that is given to nobody else before
// the test ends, so that one may close what listens there and listen again, or leave it to another process.
func Free(t testing.TB) netip.AddrPort {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.N(ports)
		if held, ok := reserve(port); ok {
			t.Cleanup(func() { held.Close() })
			return netip.AddrPortFrom(loopback, uint16(port))
		}
	}
	t.Fatal("no port is free")
	return netip.AddrPort{}
}

// reserve takes a port unless somebody has it.
func reserve(port int) (held net.Listener, ok bool) {
	everywhere := fmt.Sprintf("0.0.0.0:%d", port)
	tcp, err := net.Listen("tcp4", everywhere)
	if err != nil {
		return nil, false
	}
	udp, err := net.ListenPacket("udp4", everywhere)
	tcp.Close()
	if err != nil {
		return nil, false
	}
	udp.Close()
	held, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", guard, port))
	return held, err == nil
}
