package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
)

// threadAndClient returns a thread that is driven by hand, and a socket that is connected to its own.
func threadAndClient(t testing.TB, s *Server) (*udpThread, int) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	at := conn.LocalAddr().(*net.UDPAddr)
	thread, err := s.newUDPThread(conn)
	if err != nil {
		t.Fatal(err)
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(thread.fd)
		unix.Close(client)
	})
	if err := unix.Connect(client, &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return thread, client
}

// TestSegmentation sends runs of answers in one piece; where that cannot be, each by itself, and none of them is lost or doubled.
func TestSegmentation(t *testing.T) {
	for _, possible := range []bool{true, false} {
		s := serve(t, manifold(), nil)
		thread, client := threadAndClient(t, s)
		if !possible { // without checksums the system refuses to cut messages
			if err := unix.SetsockoptInt(thread.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
				t.Fatal(err)
			}
		}
		const questions = 30
		want := map[string]bool{}
		for i := range questions {
			m := query(serviceName, dns.TypeA, "192.0.2.0/24")
			if i%7 == 6 {
				m = query(serviceName, dns.TypeHTTPS, "192.0.2.0/24")
			}
			m.Id = uint16(i)
			packet, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			want[string(s.Answer(packet, netip.MustParseAddr("127.0.0.1"), UDP))] = true
			if _, err := unix.Write(client, packet); err != nil {
				t.Fatal(err)
			}
		}
		if err := thread.step(); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, bufferSize)
		for i := range questions {
			n, err := unix.Read(client, answer)
			if err != nil || !want[string(answer[:n])] {
				t.Fatalf("segmentation %v, answer %d: %x, %v", possible, i, answer[:max(n, 0)], err)
			}
			delete(want, string(answer[:n]))
		}
		if n, _, err := unix.Recvfrom(client, answer, unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("segmentation %v: another answer %x, %v", possible, answer[:max(n, 0)], err)
		}
		if thread.segmented != possible {
			t.Errorf("segmented %v, want %v", thread.segmented, possible)
		}
	}
}

// TestSocketLoopAllocatesNothing drives the loop of a real socket by hand, a batch at a time.
func TestSocketLoopAllocatesNothing(t *testing.T) {
	s := serve(t, manifold(), nil)
	s.Configure(Settings{RateLimit: RateLimit{PerSecond: 1e7, Slip: 2}})
	thread, client := threadAndClient(t, s)
	var packets [][]byte
	for _, m := range []*dns.Msg{
		query(serviceName, dns.TypeA, "192.0.2.0/24"), query(serviceName, dns.TypeAAAA, ""), query("two."+zoneName, dns.TypeHTTPS, "198.51.100.0/24"),
		query("sin1."+serviceName, dns.TypeA, ""), query(serviceName, dns.TypeMX, ""),
	} {
		if opt := m.IsEdns0(); opt != nil {
			opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
		}
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, packet)
		s.Answer(packet, netip.MustParseAddr("127.0.0.1"), UDP) // so that the fast path knows it
	}
	answer := make([]byte, bufferSize)
	batch := func() {
		for _, packet := range packets {
			if _, err := unix.Write(client, packet); err != nil {
				t.Fatal(err)
			}
		}
		if err := thread.step(); err != nil {
			t.Fatal(err)
		}
		for _, packet := range packets {
			n, err := unix.Read(client, answer)
			if err != nil || n <= len(packet)-4 || answer[0] != packet[0] || answer[1] != packet[1] || answer[2]&0x80 == 0 || answer[3]&0xf != 0 {
				t.Fatalf("question %x: answer %x, error %v", packet, answer[:max(n, 0)], err)
			}
		}
	}
	if got := testing.AllocsPerRun(200, batch); got != 0 {
		t.Errorf("got %v allocations for %d questions, want none", got, len(packets))
	}
	if got := thread.counts.quick.Load(); got != uint64(201*len(packets)) {
		t.Errorf("the fast path has counted %d answers, want %d", got, 201*len(packets))
	}
}

// TestUDPAnswersWhatWaits ends a server while questions wait for the full path: they are answered by the socket that they came to.
func TestUDPAnswersWhatWaits(t *testing.T) {
	s := signedAt(t, time.Now, manifold(), nil, zoneName)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, Sockets{UDP: []*net.UDPConn{conn}}) }()
	release := make(chan struct{})
	for range runtime.GOMAXPROCS(0) { // keeps the full path busy
		s.others <- &job{packet: marker, reply: func(_, _ []byte) { <-release }, done: func() {}}
	}
	const questions = 64
	for i := range questions {
		name := append([]byte{6}, strconv.Itoa(100_000+i)...)
		client.Write(handmade(0, [4]byte{1, 0, 0, 1}, name, asked("", dns.TypeA, 1), opt(1232, 0, flagDO)))
	}
	for deadline := time.Now().Add(10 * time.Second); s.Stats()["udp"] < questions; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the questions do not arrive")
		}
	}
	cancel()
	time.AfterFunc(3*idleCheck, func() { close(release) }) // when the socket's thread has ended, but for what waits
	if err := <-done; err != context.Canceled {
		t.Fatal(err)
	}
	buffer := make([]byte, bufferSize)
	client.SetReadDeadline(time.Now().Add(2 * time.Second))
	for i := range questions { // all is sent by now
		if _, err := client.Read(buffer); err != nil {
			t.Fatalf("%d of %d questions are answered: %v", i, questions, err)
		}
	}
}

// TestSwapsLoseNothing replaces the view all the time, by edits too, while questions come as fast as they are answered: all are.
func TestSwapsLoseNothing(t *testing.T) {
	batches := 150
	askSwapping(t, func(live *router.Live, ctx context.Context) {
		snap := *live.View().Table.Snapshot()
		for i := 0; ctx.Err() == nil; i++ {
			live.Verdicts([]health.Verdicts{downed("sin1"), downed("nrt1")}[i%2], time.Now())
			if i%50 == 0 {
				next := snap
				next.Topology, next.Good, next.Revision = manifold(), snap.Good+int64(i), snap.Good+int64(i)
				if err := live.Topology(&next, time.Now()); err != nil {
					t.Error(err)
				}
			}
		}
	}, func() bool { batches--; return batches >= 0 })
}

// BenchmarkSocket asks a thread over a real socket, 32 questions at a time, with a view that stays and with a hundred new ones a second.
func BenchmarkSocket(b *testing.B) {
	for _, swapping := range []bool{false, true} {
		b.Run(map[bool]string{false: "still", true: "swapping"}[swapping], func(b *testing.B) {
			askSwapping(b, func(live *router.Live, ctx context.Context) {
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for i := 0; swapping; i++ {
					select {
					case <-tick.C:
						live.Verdicts([]health.Verdicts{downed("sin1"), downed("nrt1")}[i%2], time.Now())
					case <-ctx.Done():
						return
					}
				}
			}, b.Loop)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchSize), "ns/question")
		})
	}
}

// askSwapping asks batch after batch while more says so, over a real socket, and beside swap, which is to end with its context.
func askSwapping(tb testing.TB, swap func(live *router.Live, ctx context.Context), more func() bool) {
	tb.Helper()
	live := following(tb, manifold())
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	live.Prepare(s.Prepare)
	live.Follow(s.Publish)
	thread, client := threadAndClient(tb, s)
	if err := unix.SetsockoptTimeval(client, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		tb.Fatal(err)
	}
	packet := packOf(tb, query(serviceName, dns.TypeA, "198.51.100.0/24"))
	for _, verdicts := range []health.Verdicts{downed("sin1"), downed("nrt1")} { // so that the fast path knows both answers
		live.Verdicts(verdicts, time.Now())
		s.Answer(packet, netip.MustParseAddr("127.0.0.1"), UDP)
	}
	var front, workers sync.WaitGroup
	ctx, cancel := context.WithCancel(tb.Context())
	front.Go(func() { _ = thread.run() })
	front.Go(func() { swap(live, ctx) })
	workers.Go(s.work) // the full path
	defer func() {
		cancel()
		thread.stopped.Store(true)
		front.Wait()
		close(s.known)
		close(s.others)
		workers.Wait()
	}()
	answer := make([]byte, bufferSize)
	for more() {
		for range batchSize {
			if _, err := unix.Write(client, packet); err != nil {
				tb.Fatal(err)
			}
		}
		for range batchSize {
			if n, err := unix.Read(client, answer); err != nil || n < len(packet) || answer[3]&0xf != 0 || answer[7] != 1 {
				tb.Fatalf("answer %x, %v", answer[:max(n, 0)], err)
			}
		}
	}
}
