package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// allowed counts how many of n answers to an address pass at a time.
func allowed(l *limiter, from string, at time.Duration, n int) (passed int) {
	var limited uint32
	for range n {
		if l.allow(netip.MustParseAddr(from), int64(at), &limited) == passes {
			passed++
		}
	}
	return passed
}

func TestRateLimit(t *testing.T) {
	l := newLimiter(RateLimit{PerSecond: 100, Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/24")}})
	for _, step := range []struct {
		name string
		from string
		at   time.Duration
		n    int
		want int
	}{
		{"a second's worth at once", "192.0.2.1", time.Hour, 250, 100},
		{"a neighbour in the /24 shares it", "192.0.2.200", time.Hour, 10, 0},
		{"another /24 has its own", "192.0.3.1", time.Hour, 250, 100},
		{"a tenth later a tenth is refilled", "192.0.2.1", time.Hour + 100*time.Millisecond, 250, 10},
		{"no more than a second's worth is ever saved", "192.0.2.1", 2 * time.Hour, 250, 100},
		{"IPv6", "2001:db8:0:1::1", time.Hour, 250, 100},
		{"shares a /56", "2001:db8:0:ff::1", time.Hour, 10, 0},
		{"and no more", "2001:db8:0:100::1", time.Hour, 250, 100},
		{"exempt", "198.51.100.99", time.Hour, 250, 250},
		{"when the times begin anew, the bucket is full before", "192.0.2.1", (timeMask-1)<<tickBits - time.Second, 250, 100},
		{"and refilled behind", "192.0.2.1", (timeMask+1)<<tickBits + time.Second, 250, 100},
		{"and limits", "192.0.2.1", (timeMask+1)<<tickBits + time.Second, 250, 0},
	} {
		if got := allowed(l, step.from, step.at, step.n); got != step.want {
			t.Errorf("%s: %d of %d answers pass, want %d", step.name, got, step.n, step.want)
		}
	}
	if newLimiter(RateLimit{}) != nil {
		t.Error("the zero value limits")
	}
}

// TestRateLimitSlips sends every third answer over the limit truncated.
func TestRateLimitSlips(t *testing.T) {
	for slip, want := range map[int]int{0: 0, 1: 90, 2: 45, 3: 30} {
		l := newLimiter(RateLimit{PerSecond: 10, Slip: slip})
		var (
			limited uint32
			got     [3]int
		)
		for range 100 {
			got[l.allow(netip.MustParseAddr("192.0.2.1"), 1e12, &limited)]++
		}
		if got[passes] != 10 || got[slips] != want {
			t.Errorf("slip %d: %d pass and %d slip, want 10 and %d", slip, got[passes], got[slips], want)
		}
	}
}

// TestRateLimitOverTime asks for twice the rate for ten seconds, in steps of a batch.
func TestRateLimitOverTime(t *testing.T) {
	l := newLimiter(RateLimit{PerSecond: 1000})
	passed := 0
	for at := time.Duration(0); at < 10*time.Second; at += time.Millisecond {
		passed += allowed(l, "192.0.2.1", time.Hour+at, 2)
	}
	if passed < 10_990 || passed > 11_000 { // the rate, and once a second's worth
		t.Errorf("%d answers of 20000 pass in ten seconds, want 11000", passed)
	}
}

// TestRateLimitUnderPressure has a million forged prefixes a second fight for buckets with one that stays within its limit, and one
// that does not.
func TestRateLimitUnderPressure(t *testing.T) {
	l := newLimiter(RateLimit{PerSecond: 100})
	var (
		random       = rand.New(rand.NewPCG(1, 2))
		limited      uint32
		honest, loud int
	)
	forged := func() netip.Addr {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], 0x2000<<48|random.Uint64()>>4)
		return netip.AddrFrom16(a)
	}
	for tick := range 1000 { // milliseconds
		at := int64(time.Hour) + int64(tick)*int64(time.Millisecond)
		for range 1000 {
			l.allow(forged(), at, &limited)
		}
		if tick%12 == 0 && l.allow(netip.MustParseAddr("192.0.2.1"), at, &limited) == passes {
			honest++
		}
		for range 5 {
			if l.allow(netip.MustParseAddr("203.0.113.1"), at, &limited) == passes {
				loud++
			}
		}
	}
	if honest != 84 {
		t.Errorf("%d of 84 honest questions are answered", honest)
	}
	if loud > 220 {
		t.Errorf("%d of 5000 questions over the limit are answered, want about 200: the bucket is lost", loud)
	}
}

// TestRateLimitConcurrently hammers one bucket and its neighbours from several threads, whose clocks differ by a little.
func TestRateLimitConcurrently(t *testing.T) {
	l := newLimiter(RateLimit{PerSecond: 1000})
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		total   int
	)
	for g := range 4 {
		running.Go(func() {
			passed := 0
			for i := range 20_000 {
				passed += allowed(l, "192.0.2.1", time.Hour+time.Duration(g)*time.Microsecond, 1)
				allowed(l, netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), byte(g), 1}).String(), time.Hour, 1)
			}
			mu.Lock()
			total += passed
			mu.Unlock()
		})
	}
	running.Wait()
	if total != 1000 {
		t.Errorf("%d answers pass at one moment, want 1000", total)
	}
}

// TestRateLimitOverSockets has an asker over the limit who gets truncated answers, and none; one with a cookie and one over TCP get
// all of theirs.
func TestRateLimitOverSockets(t *testing.T) {
	s := signed(t, manifold(), nil, zoneName)
	settings := s.settings
	settings.RateLimit = RateLimit{PerSecond: 1, Slip: 1}
	s.Configure(settings) // the server's time stands still
	sockets := newSocket(t, listen(t, s))
	ask := func(do uint16, options ...[]byte) []byte {
		return handmade(0x110, [4]byte{1, 0, 0, 1}, asked("mail", 1, 1), opt(1232, 0, do, options...))
	}
	client := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	first := sockets.overUDP(ask(0, option(optionCookie, client...)))
	cookie := first[len(first)-clientCookieSize-serverCookieSize:]
	for _, test := range []struct {
		name   string
		send   func([]byte) []byte
		packet []byte
		want   string
	}{
		{"over the limit", sockets.overUDP, ask(0), "NOERROR tc rd cd 1/0/0/0 opt=0,1232"},
		{"with a client cookie alone", sockets.overUDP, ask(flagDO, option(optionCookie, client...)), "NOERROR tc rd cd 1/0/0/0 opt=0,1232 do cookie=24"},
		{"with the cookie of another", sockets.overUDP, ask(0, option(optionCookie, append([]byte{9}, cookie[1:]...)...)), "NOERROR tc rd cd 1/0/0/0 opt=0,1232 cookie=24"},
		{"without EDNS", sockets.overUDP, handmade(0, [4]byte{1, 0, 0, 0}, asked("mail", 1, 1)), "NOERROR tc 1/0/0/0"},
		{"for nobody", sockets.overUDP, handmade(0, [4]byte{1, 0, 0, 0}, asked("nobody", 1, 1)), "NOERROR tc 1/0/0/0"},
		{"with a server cookie", sockets.overUDP, ask(0, option(optionCookie, cookie...)), "NOERROR aa rd cd 1/1/0/0 opt=0,1232 cookie=24"},
		{"with a server cookie again", sockets.overUDP, ask(flagDO, option(optionCookie, cookie...)), "NOERROR aa rd cd 1/2/0/0 opt=0,1232 do cookie=24"},
		{"over TCP", sockets.overTCP, ask(0), "NOERROR aa rd cd 1/1/0/0 opt=0,1232"},
	} {
		packet := test.send(test.packet)
		if got := told(packet, test.packet); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if most := len(test.packet) + serverCookieSize; strings.Contains(test.want, " tc ") && len(packet) > most { // who is forged gets no more than was sent
			t.Errorf("%s: %d octets for %d", test.name, len(packet), len(test.packet))
		}
	}
}
