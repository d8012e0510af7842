package dns

import (
	"flag"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var madeUpNames = flag.Int("madeup", 5_000, "how many names TestMadeUpNames makes up")

// TestMadeUpNames asks a signed zone for names that nobody has asked for before, each of which costs a signature, and between them for
// one that the fast path knows. That is answered whatever else is asked; of the others, those are dropped that the full path cannot
// keep up with; and none is kept for long.
// hotEvery is after how many made-up names a hot one is asked for.
const hotEvery = 32

func TestMadeUpNames(t *testing.T) {
	s := signedAt(t, time.Now, manifold(), nil, zoneName)
	at := listen(t, s)
	sockets := newSocket(t, at)
	hot := handmade(0, [4]byte{1, 0, 0, 1}, asked("intake", dns.TypeA, 1), opt(1232, 0, flagDO, option(optionSubnet, 0, 1, 24, 0, 192, 0, 2)))
	sum := func(of func(*counts) *atomic.Uint64) uint64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return sum(s.shards, of)
	}
	quick := func() uint64 { return sum(func(c *counts) *atomic.Uint64 { return &c.quick }) }
	for deadline := time.Now().Add(10 * time.Second); quick() == 0; { // until the fast path knows it
		if sockets.overUDP(hot); time.Now().After(deadline) {
			t.Fatal("the fast path does not learn an answer")
		}
	}
	flood, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	var (
		answered, lost int
		slowest, total time.Duration
		buffer         = make([]byte, bufferSize)
		known, before  = quick(), heap()
		largest        = before
		began          = time.Now()
	)
	for i := range *madeUpNames {
		below := [...]string{"", "wild", "alias", "b.c"}[i%4]
		name := []byte(strconv.Itoa(100_000_000 + i))
		flood.Write(handmade(0, [4]byte{1, 0, 0, 1}, []byte{byte(len(name))}, name, asked(below, [...]uint16{dns.TypeA, dns.TypeTXT}[i/4%2], 1), opt(1232, 0, flagDO)))
		if i%(*madeUpNames/8+1) == 0 {
			largest = max(largest, heap())
		}
		if i%hotEvery != 0 {
			continue
		}
		asked := time.Now()
		sockets.udp.SetDeadline(asked.Add(2 * time.Second))
		sockets.udp.Write(hot)
		if n, err := sockets.udp.Read(buffer); err != nil || told(buffer[:n], hot) != "NOERROR aa 1/2/0/0 opt=0,1232 do ecs" {
			lost++
			continue
		}
		answered++
		took := time.Since(asked)
		total, slowest = total+took, max(slowest, took)
	}
	dropped := sum(func(c *counts) *atomic.Uint64 { return &c.dropped })
	t.Logf("%d made-up names in %v, %d of them dropped; %d known questions answered, %d lost, in %v on average and %v at most; heap %d MB before, %d at most",
		*madeUpNames, time.Since(began).Round(time.Millisecond), dropped, answered, lost, total/time.Duration(max(answered, 1)), slowest, before, largest)
	if lost > answered/100 {
		t.Errorf("%d of %d questions that the fast path knows are not answered", lost, answered+lost)
	}
	if got := quick() - known; got < uint64(answered) {
		t.Errorf("the fast path has answered %d of %d questions", got, answered)
	}
	if largest > before+128 {
		t.Errorf("%d MB are in use, %d before", largest, before)
	}
	for _, c := range s.shards[1:] { // the threads of the sockets
		for state := range c.cookies {
			if n := c.cookies[state].Load(); n != 0 { // which the full path counts
				t.Errorf("the thread of a socket has answered %d questions by the full path", n)
			}
		}
	}
	if n := len(s.serving.Load().index.quick); n > 100 {
		t.Errorf("the index has grown to %d names", n)
	}
}
