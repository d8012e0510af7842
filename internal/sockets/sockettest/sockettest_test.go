package sockettest

import (
	"net"
	"net/netip"
	"testing"
)

func TestBoth(t *testing.T) {
	tcp, udp := Both(t)
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	if got := udp.LocalAddr().(*net.UDPAddr).AddrPort(); got != at || !at.Addr().IsLoopback() {
		t.Errorf("TCP is at %v, UDP at %v", at, got)
	}
	tcp.Close()
	udp.Close()
	if conn, err := net.Dial("tcp", at.String()); err == nil { // nothing is kept open behind the caller's back
		conn.Close()
		t.Errorf("%v listens still", at)
	}
}

// TestReserve asks for ports that somebody has, by TCP, by UDP, at another address, or as a reserved one.
func TestReserve(t *testing.T) {
	at := Free(t)
	if _, ok := reserve(int(at.Port())); ok {
		t.Errorf("%v is given twice", at)
	}
	tcp, udp := Both(t)
	defer tcp.Close()
	defer udp.Close()
	if _, ok := reserve(tcp.Addr().(*net.TCPAddr).Port); ok {
		t.Errorf("%v is given although it listens", tcp.Addr())
	}
	tcp.Close()
	if _, ok := reserve(tcp.Addr().(*net.TCPAddr).Port); ok {
		t.Errorf("%v is given although UDP has it", tcp.Addr())
	}
	for range 2 { // a reserved port can be used, and used again
		tcp, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		tcp.Close()
		udp.Close()
	}
}

func TestFree(t *testing.T) {
	seen := map[netip.AddrPort]bool{}
	for range 100 {
		at := Free(t)
		if seen[at] {
			t.Fatalf("%v is given twice", at)
		}
		seen[at] = true
	}
}
