package direct

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is some nodes on a network that a test can look at and meddle with.
type world struct {
	*simnet.PerfectRouter
	nodes map[string]*node

	mu   sync.Mutex
	seen []simnet.Packet
	drop func(simnet.Packet) bool
}

// node is a node that takes reports.
type node struct {
	*Exchange
	conn *simnet.SimConn
	peer Peer
	key  ed25519.PrivateKey

	mu    sync.Mutex
	heard map[string][]string // of each other node, what it reported, in order
}

// SendPacket implements simnet.Router.
func (w *world) SendPacket(p simnet.Packet) error {
	p.Data = bytes.Clone(p.Data)
	w.mu.Lock()
	w.seen = append(w.seen, p)
	drops := w.drop != nil && w.drop(p)
	w.mu.Unlock()
	if drops {
		return nil
	}
	return w.PerfectRouter.SendPacket(p)
}

func (w *world) dropping(drop func(simnet.Packet) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop = drop
}

// start runs nodes of which each sends to all, in a bubble, and then what a test does with them.
func start(t *testing.T, names []string, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{PerfectRouter: &simnet.PerfectRouter{}, nodes: map[string]*node{}}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		for i, name := range names {
			public, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 8054)
			w.nodes[name] = &node{peer: Peer{public, addr}, key: private, heard: map[string][]string{}}
		}
		for _, name := range names {
			w.run(ctx, &running, name)
		}
		test(t, w)
	})
}

// run starts a node, with an incarnation of its own.
func (w *world) run(ctx context.Context, running *sync.WaitGroup, name string) {
	n := w.nodes[name]
	n.conn = simnet.NewSimConn(net.UDPAddrFromAddrPort(n.peer.Addr), w)
	n.Exchange = New(Config{
		Name: name, Key: n.key, Conn: n.conn,
		Peer: func(name string) Peer {
			if other := w.nodes[name]; other != nil {
				return other.peer
			}
			return Peer{}
		},
		All: func() []string {
			var all []string
			for name := range w.nodes {
				all = append(all, name)
			}
			return all
		},
		Heard: func(name string, report []byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.heard[name] = append(n.heard[name], string(report))
		},
	})
	running.Go(func() { _ = n.Run(ctx) })
}

func (n *node) has(t *testing.T, of string, want ...string) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := n.heard[of]; !slices.Equal(got, want) {
		t.Errorf("of %s: got %d reports %.100q, want %d %.100q", of, len(got), got, len(want), want)
	}
}

// TestReports go to all, small and large, and a node is alive for as long as it says so.
func TestReports(t *testing.T) {
	start(t, []string{"dns:a", "pop:b", "pop:c"}, func(t *testing.T, w *world) {
		a, b, c := w.nodes["dns:a"], w.nodes["pop:b"], w.nodes["pop:c"]
		large := make([]byte, 25*maxPayload) // simnet's queues take 32 packets
		for i := range large {
			large[i] = byte(rand.Uint32())
		}
		b.Send([]byte("one"))
		a.has(t, "pop:b", "one")
		b.Send(large)
		a.has(t, "pop:b", "one", string(large))
		c.has(t, "pop:b", "one", string(large))
		b.Send(make([]byte, MaxReport+1)) // too large: refused
		a.has(t, "pop:b", "one", string(large))
		if !a.Alive("pop:b") || a.Alive("pop:c") || a.Alive("pop:x") {
			t.Errorf("alive: b %v, want true; c %v, want false, since it has said nothing", a.Alive("pop:b"), a.Alive("pop:c"))
		}
		time.Sleep(time.Minute) // signs of life go on, and the report comes again, which is no news
		a.has(t, "pop:b", "one", string(large))
		if !a.Alive("pop:b") {
			t.Error("b is not alive")
		}
		w.dropping(func(p simnet.Packet) bool { return true })
		time.Sleep(Patience + time.Millisecond)
		if a.Alive("pop:b") {
			t.Error("b is alive, though nothing comes")
		}
	})
}

// TestLargest cuts the largest report into parts, and puts it together.
func TestLargest(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	e := New(Config{Name: strings.Repeat("n", maxName), Key: key})
	report := bytes.Repeat([]byte("0123456789abcdef"), MaxReport/16)
	var got assembly
	parts := e.parts(report, 1)
	for i, datagram := range parts {
		d, _, _, err := parse(datagram)
		if err != nil {
			t.Fatal(err)
		}
		whole := got.add(&d)
		if last := i == len(parts)-1; !last && got.add(&d) != nil || (whole != nil) != last || whole != nil && !bytes.Equal(whole, report) {
			t.Fatalf("part %d of %d: %d octets", i, len(parts), len(whole))
		}
	}
}

// TestLoss loses what is sent now and then: soon the newest report is there all the same.
func TestLoss(t *testing.T) {
	start(t, []string{"dns:a", "pop:b"}, func(t *testing.T, w *world) {
		a, b := w.nodes["dns:a"], w.nodes["pop:b"]
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 20 {
			lost := 0
			w.dropping(func(simnet.Packet) bool {
				if random.IntN(3) == 0 {
					lost++
					return true
				}
				return false
			})
			report := bytes.Repeat([]byte(fmt.Sprint(i)), 3000)
			b.Send(report)
			time.Sleep(20 * time.Second)
			synctest.Wait()
			a.mu.Lock()
			if all := a.heard["pop:b"]; len(all) == 0 || all[len(all)-1] != string(report) {
				t.Errorf("report %d has not come within 20 s", i)
			}
			a.mu.Unlock()
			if lost == 0 {
				t.Error("nothing was lost: the test shows nothing")
			}
		}
	})
}

// TestReplayAndForgery sends what was sent before, by a node that is silent since, and what another key has signed.
func TestReplayAndForgery(t *testing.T) {
	start(t, []string{"dns:a", "pop:b", "pop:liar"}, func(t *testing.T, w *world) {
		a, b, liar := w.nodes["dns:a"], w.nodes["pop:b"], w.nodes["pop:liar"]
		b.Send([]byte("well"))
		b.Send([]byte("ill"))
		time.Sleep(3 * time.Second)
		a.has(t, "pop:b", "well", "ill")
		w.mu.Lock()
		recorded := slices.Clone(w.seen)
		w.mu.Unlock()
		w.dropping(func(p simnet.Packet) bool { return p.From.String() == b.peer.Addr.String() }) // b is dead
		for range 10 {
			time.Sleep(time.Second)
			for _, p := range recorded {
				if p.To.String() == a.peer.Addr.String() {
					_, _ = liar.conn.WriteTo(p.Data, p.To)
				}
			}
			forged := datagram{what: part, count: 1, incarnation: b.incarnation + 1, began: b.incarnation + 1, sequence: 9, name: "pop:b", payload: []byte("well")}
			_, _ = liar.conn.WriteTo(forged.append(nil, liar.key), net.UDPAddrFromAddrPort(a.peer.Addr))
		}
		a.has(t, "pop:b", "well", "ill")
		if a.Alive("pop:b") {
			t.Error("what was sent before keeps a dead node alive")
		}
		if a.Counts.Replayed.Load() == 0 || a.Counts.Forged.Load() == 0 {
			t.Errorf("%d were replayed, %d forged: want some of each", a.Counts.Replayed.Load(), a.Counts.Forged.Load())
		}
	})
}

// TestRestart has a node begin anew: its numbers begin anew too, and it is heard.
func TestRestart(t *testing.T) {
	start(t, []string{"dns:a", "pop:b"}, func(t *testing.T, w *world) {
		a := w.nodes["dns:a"]
		w.nodes["pop:b"].Send([]byte("one"))
		w.nodes["pop:b"].Send([]byte("two"))
		a.has(t, "pop:b", "one", "two")
		w.nodes["pop:b"].conn.Close()
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		w.run(ctx, &running, "pop:b")
		w.nodes["pop:b"].Send([]byte("three"))
		a.has(t, "pop:b", "one", "two", "three")
	})
}

// TestClockSetBack has a node begin anew after its clock was set back: it is heard if it knows which incarnations it has had, or has a new key.
func TestClockSetBack(t *testing.T) {
	newKey := func() ed25519.PrivateKey {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, clock := newKey(), time.Now()
	var heard []string
	var wall time.Time
	a := New(Config{
		Name: "dns:a", Key: newKey(),
		Peer:  func(string) Peer { return Peer{Key: key.Public().(ed25519.PublicKey)} },
		Heard: func(_ string, report []byte) { heard = append(heard, string(report)) },
		Sign:  func(_ string, says time.Time) { wall = says },
	})
	begin := func(incarnation uint64) *Exchange {
		return New(Config{Name: "pop:b", Key: key, Now: func() time.Time { return clock }, Incarnation: incarnation})
	}
	say := func(b *Exchange, report string) {
		for _, d := range b.parts([]byte(report), 1) {
			a.take(d, nil)
		}
	}
	first := begin(0)
	say(first, "one")
	clock = clock.Add(-time.Hour)
	say(begin(0), "lost")
	large := strings.Repeat("three", 1000)
	say(begin(first.incarnation+1), large)
	if !wall.Equal(clock) {
		t.Errorf("it says that its clock is at %v, want %v", wall, clock)
	}
	key = newKey()
	say(begin(0), "four")
	if want := []string{"one", large, "four"}; !slices.Equal(heard, want) {
		t.Errorf("heard %d reports, want %d", len(heard), len(want))
	}
	if got := a.Counts.Replayed.Load(); got != 1 {
		t.Errorf("%d datagrams count as replayed, want 1", got)
	}
}

// FuzzParse holds that what can be parsed is what append makes.
func FuzzParse(f *testing.F) {
	_, key, _ := ed25519.GenerateKey(nil)
	for _, d := range []datagram{
		{what: part, count: 2, index: 1, incarnation: 1, began: 1, sequence: 2, sent: 3, name: "pop:a", payload: []byte("x")},
		{what: part, count: 2, index: 1, incarnation: 9, began: 1, sequence: 2, sent: 3, name: "pop:a", payload: []byte("x")},
		{what: beat, incarnation: 1, sequence: 2, sent: 3, name: "pop:a"},
		{what: wants, incarnation: 1, name: "dns:a", payload: []byte("pop:a")},
	} {
		f.Add(d.append(nil, key))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, signed, signature, err := parse(b)
		if err != nil {
			return
		}
		if again := d.append(nil, key); !bytes.Equal(again[:len(signed)], signed) || !bytes.Equal(append(bytes.Clone(signed), signature...), b) {
			t.Errorf("%x became %x", signed, again[:len(signed)])
		}
	})
}
