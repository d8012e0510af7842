package main

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// echo sends questions back as answers, except each n-th (none for 0), until the test ends.
func echo(t *testing.T, n uint64) (netip.AddrPort, *atomic.Uint64) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var received atomic.Uint64
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, maxAnswer)
		for {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if count := received.Add(1); n > 0 && count%n == 0 {
				continue
			}
			buf[2] |= 0x80
			_, _ = conn.WriteToUDPAddrPort(buf[:size], from)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), &received
}

func testLoader(t *testing.T, target netip.AddrPort, rate float64) *loader {
	t.Helper()
	q, err := newQuestions([]question{{"a.test.", dns.TypeA}}, options{ecs: "random24", cookie: true, seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := config{questions: q, timeout: 50 * time.Millisecond, outstanding: 30, sockets: 3, rate: rate}
	l, err := newLoader(target, c, newDatagrams())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// After a drain each question is accounted for: answered, or given up.
func TestDrainAccountsForEveryQuestion(t *testing.T) {
	target, received := echo(t, 10)
	l := testLoader(t, target, 0)
	r := l.run(200 * time.Millisecond)
	l.drain(r)
	if got, want := r.Answered+r.Timeouts, received.Load(); got != want {
		t.Errorf("%d answered and %d timed out, want %d questions", r.Answered, r.Timeouts, want)
	}
	if r.Errors+r.Late > 0 || r.Answered == 0 || r.Timeouts == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestRateIsHeld(t *testing.T) {
	target, received := echo(t, 0)
	l := testLoader(t, target, 2000)
	r := l.run(time.Second)
	l.drain(r)
	if n := received.Load() + r.Unsent; n < 1700 || n > 2300 {
		t.Errorf("%d questions were due in a second, want about 2000", n)
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat([]byte("42 (a ) b) S 1 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 17 1 0 0 0 0 0\n"))
	if want := (process{42, 41, 1, "a ) b"}); err != nil || p != want {
		t.Errorf("got %+v, %v; want %+v", p, err, want)
	}
	for _, bad := range []string{"", "42 )a( S", "42 (a) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestUsageIsToldApart(t *testing.T) {
	before := usage{
		1: {process{1, 10, 0, "server"}, 5}, 2: {process{2, 10, 1, "etcd"}, 5}, 3: {process{3, 20, 0, "other"}, 5},
		4: {process{4, 10, 0, hogCommand}, 5}, 5: {process{5, 30, 0, "stranger"}, 5},
	}
	after := usage{
		1: {process{1, 10, 0, "server"}, 105}, 2: {process{2, 10, 1, "etcd"}, 7}, 3: {process{3, 20, 0, "other"}, 8},
		4: {process{4, 10, 0, hogCommand}, 900}, 6: {process{6, 30, 0, "stranger"}, 4},
	}
	own, idle, others := after.since(before, 10, map[int]bool{10: true, 20: true})
	if own != 100 || idle != 3 || others != 6 {
		t.Errorf("got %d, %d, %d; want 100, 3, 6", own, idle, others)
	}
	if !after.serves(20) || after.serves(40) {
		t.Error("does not know which sessions serve")
	}
}

// What the kernel tells of this very process.
func TestReadUsage(t *testing.T) {
	u, err := readUsage()
	if err != nil {
		t.Fatal(err)
	}
	if self := u[os.Getpid()]; self.cpu <= 0 {
		t.Errorf("got %+v for this process", self)
	}
}
