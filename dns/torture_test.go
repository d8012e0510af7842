package dns

import (
	"bytes"
	"encoding/binary"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var tortureTime = flag.Duration("torture", 2*time.Second, "how long TestTorture sends packets")

// TestTorture sends random, mutated, cut and spliced packets over UDP and TCP as fast as it can. Each answer must be readable and
// belong to a question, nothing may panic, and in the end the server is as it was.
func TestTorture(t *testing.T) {
	s := signedAt(t, time.Now, manifold(), nil, zoneName, "child."+zoneName)
	settings := s.settings
	settings.TSIG, settings.NSID, settings.Version = transferKeys(), "node 1", "1"
	settings.Transfer = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/9")}
	settings.RateLimit = RateLimit{PerSecond: 1e6, Slip: 2}
	s.Configure(settings)
	s.config.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	at := listen(t, s)
	sane := newSocket(t, at)
	sane.overUDP(marker)
	goroutines := runtime.NumGoroutine()
	t.Logf("before: %d goroutines, RSS %d MB, heap %d MB", goroutines, rss(t), heap())

	var (
		tally   tally
		running sync.WaitGroup
		end     = time.Now().Add(*tortureTime)
	)
	for i := range 2 {
		running.Go(func() { tally.overUDP(t, at, newTorturer(uint64(i)), end) })
		running.Go(func() { tally.overTCP(t, at, newTorturer(uint64(10+i)), end) })
	}
	watched := watch(end, func() {
		t.Logf("%d packets, %d answers over UDP; %d packets, %d answers over TCP; %d goroutines, RSS %d MB, heap %d MB",
			tally.udp.sent.Load(), tally.udp.answers.Load(), tally.tcp.sent.Load(), tally.tcp.answers.Load(), runtime.NumGoroutine(), rss(t), heap())
	})
	running.Wait()
	watched.Wait()

	for _, c := range []struct {
		name string
		*traffic
	}{{"UDP", &tally.udp}, {"TCP", &tally.tcp}} {
		if c.sent.Load() == 0 || c.answers.Load() == 0 {
			t.Errorf("%d packets and %d answers over %s", c.sent.Load(), c.answers.Load(), c.name)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
		runtime.Gosched() // connections that end
		sane.overTCP(marker)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if mb := heap(); mb > 256 {
		t.Errorf("%d MB are in use", mb)
	}
	if n := s.Stats()["panics"]; n != 0 {
		t.Errorf("%d panics", n)
	}
	question := handmade(0x100, [4]byte{1, 0, 0, 1}, asked("mail", dns.TypeA, 1), opt(1232, 0, flagDO))
	for _, answer := range [][]byte{sane.overUDP(question), sane.overTCP(question)} {
		if got, want := told(answer, question), "NOERROR aa rd 1/2/0/0 opt=0,1232 do"; got != want {
			t.Errorf("behind it: got %s, want %s", got, want)
		}
	}
	t.Logf("after: %d goroutines, RSS %d MB, heap %d MB; %v", runtime.NumGoroutine(), rss(t), heap(), s.Stats())
}

// watch calls tell ten times until the end.
func watch(end time.Time, tell func()) *sync.WaitGroup {
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(max(time.Until(end)/10, time.Millisecond))
		defer tick.Stop()
		for range 9 {
			<-tick.C
			tell()
		}
	})
	return &running
}

// rss is the resident memory of the process, in MB; 0 where the system does not tell.
func rss(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(status))[1])
	if err != nil {
		t.Error(err)
	}
	return pages * os.Getpagesize() >> 20
}

// heap is what is in use, in MB.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 20
}

type traffic struct{ sent, answers atomic.Uint64 }

type tally struct{ udp, tcp traffic }

// check holds an answer to the questions that had its number.
func (c *traffic) check(t *testing.T, answer []byte, questions func(id uint16) [][]byte, over Transport) {
	c.answers.Add(1)
	var m dns.Msg
	if err := m.Unpack(answer); err != nil || !m.Response {
		t.Errorf("not a readable answer: %v: %x", err, answer)
		return
	}
	for _, question := range questions(m.Id) {
		if len(question) < headerSize || m.Opcode != int(question[2]>>3&15) || over == UDP && len(answer) > maxUDP {
			continue
		}
		if binary.BigEndian.Uint16(answer[4:]) == 0 {
			return
		}
		if end := nameEnd(answer, headerSize) + 4; end <= len(question) && bytes.Equal(answer[headerSize:end], question[headerSize:end]) {
			return
		}
	}
	t.Errorf("nobody has asked for the answer %x", answer)
}

// overUDP sends and receives by one socket.
func (c *tally) overUDP(t *testing.T, at netip.AddrPort, from *torturer, end time.Time) {
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: from.address()}, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Error(err)
		return
	}
	var (
		mu      sync.Mutex
		sent    [1 << 16][2][]byte // the last two packets of each number
		reading sync.WaitGroup
	)
	reading.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			c.udp.check(t, buffer[:n], func(id uint16) [][]byte {
				mu.Lock()
				defer mu.Unlock()
				return [][]byte{sent[id][0], sent[id][1]}
			}, UDP)
		}
	})
	for id := uint16(0); time.Now().Before(end); id++ {
		packet := from.packet(id)
		mu.Lock()
		sent[id] = [2][]byte{packet, sent[id][0]}
		mu.Unlock()
		conn.Write(packet)
		c.udp.sent.Add(1)
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	reading.Wait()
	conn.Close()
}

// overTCP makes connection after connection, each for some packets, some with a false length; some it leaves without reading.
func (c *tally) overTCP(t *testing.T, at netip.AddrPort, from *torturer, end time.Time) {
	for time.Now().Before(end) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.address()}}
		conn, err := dialer.Dial("tcp", at.String())
		if err != nil {
			continue // all ports of this address are taken
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		var (
			all  []byte
			lied bool // from where on anything may look like a question
		)
		packets := make([][]byte, 1+from.IntN(30))
		for id := range packets {
			packets[id] = from.packet(uint16(id))
			length := len(packets[id])
			if from.IntN(100) == 0 {
				length, lied = from.IntN(1<<16), true
			}
			all = append(binary.BigEndian.AppendUint16(all, uint16(length)), packets[id]...)
		}
		conn.Write(all) // the server may have closed it before the end
		c.tcp.sent.Add(uint64(len(packets)))
		if from.IntN(20) != 0 {
			conn.(*net.TCPConn).CloseWrite()
			c.readTCP(t, conn, packets, lied)
		}
		conn.Close()
	}
}

func (c *tally) readTCP(t *testing.T, conn net.Conn, packets [][]byte, lied bool) {
	var length [2]byte
	for {
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return // the server closes when it is out of step with us
		}
		answer := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, answer); err != nil {
			return
		}
		c.tcp.check(t, answer, func(id uint16) [][]byte {
			switch {
			case lied:
				return [][]byte{answer}
			case int(id) < len(packets):
				return packets[id : id+1]
			}
			return nil
		}, TCP)
	}
}
