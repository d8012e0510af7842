package sockets

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// exchange answers packets at each of the sockets until they are closed, and counts how many each got.
func exchange(t *testing.T, conns []*net.UDPConn) []int {
	t.Helper()
	const packets = 64
	got, done := make([]int, len(conns)), make(chan struct{})
	for i, c := range conns {
		go func() {
			defer func() { done <- struct{}{} }()
			for buffer := make([]byte, 16); ; got[i]++ {
				n, from, err := c.ReadFromUDPAddrPort(buffer)
				if err != nil {
					return
				}
				c.WriteToUDPAddrPort(buffer[:n], from)
			}
		}()
	}
	for range packets {
		c, err := net.DialUDP("udp", nil, conns[0].LocalAddr().(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	for _, c := range conns {
		c.Close()
	}
	for range conns {
		<-done
	}
	return got
}

func TestSeveralQueues(t *testing.T) {
	p := new(Pool)
	defer p.Close()
	tcp, udp, err := p.Both(loopback, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	want := 4
	if !manyQueues {
		want = 1
	}
	if len(udp) != want {
		t.Fatalf("got %d sockets, want %d", len(udp), want)
	}
	busy := 0
	for _, n := range exchange(t, udp) {
		if n > 0 {
			busy++
		}
	}
	if busy < min(want, 2) {
		t.Errorf("only %d of %d sockets got packets", busy, want)
	}
}

func TestOptions(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the options are those of Linux")
	}
	p := new(Pool)
	defer p.Close()
	udp, err := p.Packets(loopback, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer udp[0].Close()
	raw, err := udp[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = control(raw, func(fd int) error {
		discover, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, 10) // IP_MTU_DISCOVER
		if err != nil || discover != 3 {                             // IP_PMTUDISC_PROBE
			t.Errorf("path MTU discovery is %d, %v", discover, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTaken(t *testing.T) {
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	at := other.LocalAddr().(*net.UDPAddr).AddrPort()
	p := new(Pool)
	defer p.Close()
	for _, n := range []int{1, 2} {
		if _, err := p.Packets(at, n); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), at.String()) {
			t.Errorf("%d sockets: got %v", n, err)
		}
	}
	if _, err := p.Stream(netip.MustParseAddrPort("192.0.2.1:0")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("got %v", err)
	}
	if len(p.kept) != 0 {
		t.Errorf("%d sockets are kept", len(p.kept))
	}
}

// TestTakeOver hands sockets to a second pool of this process, as Pass does to another one.
func TestTakeOver(t *testing.T) {
	first := new(Pool)
	tcp, udp, err := first.Both(loopback, 2)
	if err != nil {
		t.Fatal(err)
	}
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	second := &Pool{}
	for _, fd := range first.kept {
		again, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		second.inherit(socketName, again)
	}
	asker, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	if _, err := asker.Write([]byte("in the queue")); err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	for _, c := range udp {
		c.Close()
	}
	first.Close()

	tcp, udp, err = second.Both(at, 5) // more threads than queues
	if err != nil || len(udp) != 5 {
		t.Fatalf("got %d sockets, %v", len(udp), err)
	}
	defer tcp.Close()
	if unused := second.Unused(); len(unused) > 0 {
		t.Errorf("unused are %v", unused)
	}
	exchange(t, udp)
	if _, err := asker.Read(make([]byte, 32)); err != nil {
		t.Errorf("what was in the queue is lost: %v", err)
	}
	second.Close()
}

func TestInherit(t *testing.T) {
	for value, want := range map[string]string{"socket": "want NAME=DESCRIPTOR", "socket=1": "want NAME=DESCRIPTOR", "": ""} {
		t.Setenv(variable, value)
		p, err := Inherit()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", value, err, want)
		}
		if err == nil && !p.Succeeds() {
			t.Error("it has a predecessor")
		}
	}
	t.Setenv("LISTEN_PID", "1") // of another process
	t.Setenv("LISTEN_FDS", "7")
	if p, err := Inherit(); err != nil || p.Succeeds() || len(p.spare) > 0 {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, there := os.LookupEnv("LISTEN_FDS"); there {
		t.Error("the environment has not forgotten")
	}
}
