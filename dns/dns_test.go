package dns

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// networks is a geo database of a few documentation prefixes. What it does not know is sent to fra1, which has the lowest
// mean RTT to the world's nodes; so the scope of an answer for Frankfurt is wide.
type networks struct{}

func (networks) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	place := func(lat, lon float64, country string) *router.Place {
		return &router.Place{Location: topology.Location{LatDeg: lat, LonDeg: lon, Country: country}}
	}
	return func(yield func(netip.Prefix, *router.Place) bool) {
		_ = yield(netip.MustParsePrefix("192.0.2.0/24"), place(1.29, 103.85, "SG")) &&
			yield(netip.MustParsePrefix("198.51.100.0/24"), place(50.1, 8.7, "DE")) &&
			yield(netip.MustParsePrefix("2001:db8:1::/48"), place(1.29, 103.85, "SG")) &&
			yield(netip.MustParsePrefix("2001:db8:2::/48"), place(50.1, 8.7, "DE"))
	}
}

const zoneName, serviceName = topology.ExampleZone, topology.ExampleService

// example is the example world with addresses 203.0.113.1 and so on; sin1 has an IPv6 address too.
func example() *topology.Topology {
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 8443)
	}
	for _, name := range topology.ExampleClusters {
		clusters[name] = "http://" + name + ".example"
	}
	t := topology.Example(netip.MustParseAddr("203.0.113.53"), pops, clusters)
	t.PoPs["sin1"].Addresses = append(t.PoPs["sin1"].Addresses, netip.MustParseAddr("2001:db8::1"))
	return t
}

// following returns the views of a topology.
func following(t testing.TB, world *topology.Topology) *router.Live {
	t.Helper()
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	live := router.NewLive(atlas)
	if err := live.Topology(&topology.Snapshot{Revision: 7, Good: 7, Topology: world}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return live
}

// serve returns a server of a topology with verdicts.
func serve(t testing.TB, world *topology.Topology, verdicts health.Verdicts) *Server {
	t.Helper()
	live := following(t, world)
	live.Verdicts(verdicts, time.Now())
	s := New(Config{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Unix(epochLength, 0) }})
	s.Publish(live.View())
	return s
}

// query makes a question; subnet may be empty.
func query(name string, qtype uint16, subnet string) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	if subnet == "" {
		return m
	}
	p := netip.MustParsePrefix(subnet)
	e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
	if p.Addr().Is6() {
		e.Family = 2
	}
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, e)
	return m
}

func ask(t testing.TB, s *Server, m *dns.Msg, from string) *dns.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(s.Answer(packet, netip.MustParseAddr(from), UDP)); err != nil {
		t.Fatal(err)
	}
	if answer.Id != m.Id || !answer.Response {
		t.Fatalf("answer %v is not for question %v", answer, m)
	}
	return answer
}

// summary is an answer in one line: code, flags, records, authority's type, scope, extended error.
func summary(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		words = append(words, "aa")
	}
	for _, rr := range m.Answer {
		words = append(words, strings.ReplaceAll(strings.TrimPrefix(rr.String(), rr.Header().Name+"\t"), "\t", " "))
	}
	for _, rr := range m.Ns {
		words = append(words, "/"+dns.TypeToString[rr.Header().Rrtype])
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			switch o := option.(type) {
			case *dns.EDNS0_SUBNET:
				words = append(words, fmt.Sprintf("scope=%d", o.SourceScope))
			case *dns.EDNS0_EDE:
				words = append(words, fmt.Sprintf("ede=%d", o.InfoCode))
			}
		}
	}
	return strings.Join(words, " ")
}

// downed has the verdict of PoPs that are down.
func downed(names ...string) health.Verdicts {
	v := health.Verdicts{}
	for _, name := range names {
		v[health.Target{Kind: health.PoP, Name: name}] = health.Verdict{Status: health.Down}
	}
	return v
}

func TestAnswers(t *testing.T) {
	const local = "127.0.0.1"
	for _, test := range []struct {
		name     string
		change   func(*topology.Topology)
		verdicts health.Verdicts
		question *dns.Msg
		from     string
		want     string
	}{
		{name: "ECS in Singapore", question: query(serviceName, dns.TypeA, "192.0.2.0/24"), want: "NOERROR aa 20 IN A 203.0.113.1 scope=24"},
		{name: "ECS in Frankfurt", question: query(serviceName, dns.TypeA, "198.51.100.0/24"), want: "NOERROR aa 20 IN A 203.0.113.2 scope=6"},
		{name: "ECS coarser than the table", question: query(serviceName, dns.TypeA, "192.0.0.0/16"), want: "NOERROR aa 20 IN A 203.0.113.2 scope=23"},
		{name: "by the resolver", question: query(serviceName, dns.TypeA, ""), from: "192.0.2.9", want: "NOERROR aa 20 IN A 203.0.113.1"},
		{name: "SOURCE 0 is for the resolver alone", question: query(serviceName, dns.TypeA, "0.0.0.0/0"), from: "192.0.2.9", want: "NOERROR aa 20 IN A 203.0.113.1 scope=0"},
		{
			name: "ECS ignored", change: func(x *topology.Topology) { x.Services[serviceName].Steering.ECS = topology.IgnoreECS },
			question: query(serviceName, dns.TypeA, "198.51.100.0/24"), from: "192.0.2.9", want: "NOERROR aa 20 IN A 203.0.113.1 scope=0",
		},
		{name: "IPv6 ranks apart", question: query(serviceName, dns.TypeAAAA, "2001:db8:2::/48"), want: "NOERROR aa 20 IN AAAA 2001:db8::1 scope=0"},
		{
			name: "no address of the family", change: func(x *topology.Topology) { x.PoPs["sin1"].Addresses = x.PoPs["sin1"].Addresses[:1] },
			question: query(serviceName, dns.TypeAAAA, "2001:db8:2::/48"), want: "NOERROR aa /SOA scope=0",
		},
		{
			name: "a dead PoP is passed over", verdicts: downed("sin1"),
			question: query(serviceName, dns.TypeA, "192.0.2.0/24"), want: "NOERROR aa 20 IN A 203.0.113.4 scope=24",
		},
		{
			name: "all dead: open", verdicts: downed(topology.ExamplePoPs...),
			question: query(serviceName, dns.TypeA, "192.0.2.0/24"), want: "NOERROR aa 20 IN A 203.0.113.1 scope=24",
		},
		{
			name: "all dead: empty", verdicts: downed(topology.ExamplePoPs...),
			change:   func(x *topology.Topology) { x.Services[serviceName].Steering.WhenAllDown = topology.FailEmpty },
			question: query(serviceName, dns.TypeA, "192.0.2.0/24"), want: "NOERROR aa /SOA scope=0",
		},
		{
			name: "none allowed", change: func(x *topology.Topology) {
				for _, p := range x.PoPs {
					p.State = topology.Draining
				}
			},
			question: query(serviceName, dns.TypeA, "192.0.2.0/24"), want: "SERVFAIL scope=0 ede=18",
		},
		{
			name: "several answers", change: func(x *topology.Topology) { x.Services[serviceName].Steering.Answers = 2 },
			question: query(serviceName, dns.TypeA, "192.0.2.0/24"), want: "NOERROR aa 20 IN A 203.0.113.1 20 IN A 203.0.113.4 scope=24",
		},
		{
			name: "HTTPS", question: query(serviceName, dns.TypeHTTPS, "192.0.2.0/24"),
			want: `NOERROR aa 20 IN HTTPS 1 sin1.intake.isochrone.test. alpn="h3,h2" port="8443" ipv4hint="203.0.113.1" ipv6hint="2001:db8::1"` +
				` 20 IN HTTPS 2 nrt1.intake.isochrone.test. alpn="h3,h2" port="8443" ipv4hint="203.0.113.4"` +
				` 20 IN HTTPS 3 jnb1.intake.isochrone.test. alpn="h3,h2" port="8443" ipv4hint="203.0.113.6" scope=24`,
		},
		{name: "a PoP's own name", question: query("fra1."+serviceName, dns.TypeA, "192.0.2.0/24"), want: "NOERROR aa 20 IN A 203.0.113.2 scope=0"},
		{name: "case is kept", question: query("FRA1."+serviceName, dns.TypeA, ""), want: "NOERROR aa 20 IN A 203.0.113.2"},
		{name: "SOA", question: query(zoneName, dns.TypeSOA, ""), want: "NOERROR aa 3600 IN SOA ns1.isochrone.test. hostmaster.isochrone.test. 8 3600 600 604800 60"},
		{name: "NS", question: query(zoneName, dns.TypeNS, ""), want: "NOERROR aa 3600 IN NS ns1.isochrone.test."},
		{name: "name server's address", question: query("ns1."+zoneName, dns.TypeA, ""), want: "NOERROR aa 3600 IN A 203.0.113.53"},
		{name: "no data", question: query(serviceName, dns.TypeMX, "192.0.2.0/24"), want: "NOERROR aa /SOA scope=0"},
		{name: "no name", question: query("nobody."+zoneName, dns.TypeA, "192.0.2.0/24"), want: "NXDOMAIN aa /SOA scope=0"},
		{name: "not our zone", question: query("example.com", dns.TypeA, "192.0.2.0/24"), want: "REFUSED scope=0 ede=20"},
		{name: "ANY", question: query(serviceName, dns.TypeANY, ""), want: `NOERROR aa 60 IN HINFO "RFC8482" ""`},
		{name: "zone transfer", question: query(zoneName, dns.TypeAXFR, ""), want: "REFUSED"},
		{
			name: "another opcode", question: func() *dns.Msg { m := query(zoneName, dns.TypeSOA, ""); m.Opcode = dns.OpcodeNotify; return m }(),
			want: "NOTIMP",
		},
		{
			name: "a class of the past", question: func() *dns.Msg {
				m := query(zoneName, dns.TypeSOA, "")
				m.Question[0].Qclass = dns.ClassCHAOS
				return m
			}(), want: "REFUSED",
		},
		{
			name: "a version of the future", question: func() *dns.Msg {
				m := query(zoneName, dns.TypeSOA, "192.0.2.0/24")
				m.IsEdns0().SetVersion(1)
				return m
			}(), want: "BADSIG", // as the package calls code 16, which is BADVERS here
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			world := example()
			if test.change != nil {
				test.change(world)
			}
			from := test.from
			if from == "" {
				from = local
			}
			if got := summary(ask(t, serve(t, world, test.verdicts), test.question, from)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestEmptyNonTerminal(t *testing.T) {
	world := example()
	world.Services["in.a.deep."+zoneName] = world.Services[serviceName]
	got := summary(ask(t, serve(t, world, nil), query("deep."+zoneName, dns.TypeA, ""), "127.0.0.1"))
	if want := "NOERROR aa /SOA"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBeforeTheFirstTopology(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	got := summary(ask(t, s, query(serviceName, dns.TypeA, "192.0.2.0/24"), "127.0.0.1"))
	if want := "SERVFAIL scope=0 ede=14"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMalformedSubnets has options that RFC 7871 calls errors, each of which package miekg/dns takes without one.
func TestMalformedSubnets(t *testing.T) {
	s := serve(t, example(), nil)
	for name, option := range map[string][]byte{
		"bits behind the source length": {0, 1, 20, 0, 192, 0, 255},
		"address too long":              {0, 1, 24, 0, 192, 0, 2, 0},
		"address too short":             {0, 1, 24, 0, 192, 0},
		"scope in a question":           {0, 1, 24, 24, 192, 0, 2},
		"source longer than IPv4":       {0, 1, 33, 0, 192, 0, 2, 0, 0},
		"unknown family":                {0, 3, 24, 0, 192, 0, 2},
		"family 0 with an address":      {0, 0, 8, 0, 192},
		"cut short":                     {0, 1, 24},
	} {
		m := query(serviceName, dns.TypeA, "")
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: option}}
		if got := ask(t, s, m, "127.0.0.1").Rcode; got != dns.RcodeFormatError {
			t.Errorf("%s: got %s, want FORMERR", name, dns.RcodeToString[got])
		}
	}
	m := query(serviceName, dns.TypeA, "")
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 0, 0, 0}}}
	if got := ask(t, s, m, "127.0.0.1").Rcode; got != dns.RcodeSuccess {
		t.Errorf("family 0 and source 0, as dig +subnet=0 sends: got %s", dns.RcodeToString[got])
	}
}

// TestMappedSubnet asks for IPv4 clients in IPv6 form, whose scope counts the bits of the form, so that what all clients of IPv4 get is
// no answer for those of IPv6.
func TestMappedSubnet(t *testing.T) {
	alone := example()
	alone.Services[serviceName].PoPs = []string{"fra1"}
	for _, test := range []struct {
		world *topology.Topology
		addr  string
		bits  byte
		want  string
	}{
		{example(), "::ffff:198.51.100.0", 120, "NOERROR aa 20 IN A 203.0.113.2 scope=102"},
		{example(), "::ffff:0.0.0.0", 96, "NOERROR aa 20 IN A 203.0.113.2 scope=97"},
		{alone, "::ffff:198.51.100.0", 120, "NOERROR aa 20 IN A 203.0.113.2 scope=96"},
	} {
		m := query(serviceName, dns.TypeA, "")
		m.SetEdns0(1232, false)
		option := append([]byte{0, 2, test.bits, 0}, netip.MustParseAddr(test.addr).AsSlice()[:test.bits/8]...)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: option}}
		s := serve(t, test.world, nil)
		for _, path := range []string{"full", "fast"} {
			if got := summary(ask(t, s, m, "192.0.2.1")); got != test.want {
				t.Errorf("%s/%d, %s path: got %s, want %s", test.addr, test.bits, path, got, test.want)
			}
		}
	}
}

func TestAnswersAreNotAnswered(t *testing.T) {
	s := serve(t, example(), nil)
	m := query(serviceName, dns.TypeA, "")
	m.Response = true
	packet, _ := m.Pack()
	for _, p := range [][]byte{packet, packet[:11], {}} {
		if got := s.Answer(p, netip.MustParseAddr("127.0.0.1"), UDP); got != nil {
			t.Errorf("got %x for %x, want no answer", got, p)
		}
	}
	if got := s.Stats()["ignored"]; got != 3 {
		t.Errorf("got %d ignored, want 3", got)
	}
}

// TestTruncation asks for what does not fit 512 octets, over UDP and over TCP.
func TestTruncation(t *testing.T) {
	world := example()
	p := world.PoPs["sin1"]
	for i := range 60 {
		p.Addresses = append(p.Addresses, netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}))
	}
	s := serve(t, world, nil)
	packet, _ := query(serviceName, dns.TypeA, "").Pack()
	from := netip.MustParseAddr("192.0.2.1")
	var udp, tcp dns.Msg
	short := s.Answer(packet, from, UDP)
	if err := udp.Unpack(short); err != nil || !udp.Truncated || len(short) > 512 {
		t.Errorf("UDP: %d octets, truncated %v, error %v", len(short), udp.Truncated, err)
	}
	if err := tcp.Unpack(s.Answer(packet, from, TCP)); err != nil || tcp.Truncated || len(tcp.Answer) != 61 {
		t.Errorf("TCP: %d records, truncated %v, error %v", len(tcp.Answer), tcp.Truncated, err)
	}
}

// listen starts a server on real sockets and returns its address.
func listen(t *testing.T, s *Server) netip.AddrPort {
	t.Helper()
	tcp, udp := sockettest.Both(t)
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, Sockets{UDP: []*net.UDPConn{udp}, TCP: []net.Listener{tcp}}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
	})
	return at
}

func TestOverSockets(t *testing.T) {
	at := listen(t, serve(t, example(), nil))
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: 20 * time.Second}
		answer, _, err := client.Exchange(query(serviceName, dns.TypeA, "198.51.100.0/24"), at.String())
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		if got, want := summary(answer), "NOERROR aa 20 IN A 203.0.113.2 scope=6"; got != want {
			t.Errorf("%s: got %s, want %s", network, got, want)
		}
	}
}

// TestOverTCPManyQuestionsOneConnection sends them all before it reads (RFC 7766 section 6.2.1.1).
func TestOverTCPManyQuestionsOneConnection(t *testing.T) {
	conn, err := net.Dial("tcp", listen(t, serve(t, example(), nil)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	var all bytes.Buffer
	for id := range 50 {
		m := query(serviceName, dns.TypeA, "192.0.2.0/24")
		m.Id = uint16(id)
		packet, _ := m.Pack()
		all.Write([]byte{0, byte(len(packet))})
		all.Write(packet)
	}
	if _, err := conn.Write(all.Bytes()); err != nil {
		t.Fatal(err)
	}
	framed := dns.Conn{Conn: conn}
	seen := map[uint16]bool{}
	for range 50 {
		answer, err := framed.ReadMsg()
		if err != nil || seen[answer.Id] || answer.Id >= 50 {
			t.Fatalf("answer %v, %v", answer, err)
		}
		seen[answer.Id] = true
	}
}

// TestKdig asks by a program that is not ours.
func TestKdig(t *testing.T) {
	kdig, err := exec.LookPath("kdig")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("kdig is missing: install knot-dnsutils")
		}
		t.Skip("kdig is missing: install knot-dnsutils")
	}
	at := listen(t, serve(t, example(), nil))
	for _, test := range []struct{ arguments, want string }{
		{"+subnet=192.0.2.0/24 " + serviceName, "203.0.113.1"},
		{"+subnet=198.51.100.0/24 " + serviceName, "203.0.113.2"},
		{"+tcp +subnet=198.51.100.0/24 " + serviceName, "203.0.113.2"},
		{"sin1." + serviceName + " AAAA", "2001:db8::1"},
		{"+subnet=192.0.2.0/24 " + serviceName + " HTTPS", "1 sin1.intake.isochrone.test. alpn=h3,h2 port=8443"},
	} {
		arguments := append([]string{"@" + at.Addr().String(), "-p", fmt.Sprint(at.Port()), "+short"}, strings.Fields(test.arguments)...)
		out, err := exec.Command(kdig, arguments...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), test.want) {
			t.Errorf("kdig %s: %v: got %s want %s", test.arguments, err, out, test.want)
		}
	}
}

// FuzzAnswer feeds packets. Every answer must be readable, belong to its question, and fit what the asker can receive.
func FuzzAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		query(serviceName, dns.TypeA, "192.0.2.0/24"), query(serviceName, dns.TypeHTTPS, "2001:db8:1::/48"),
		query(zoneName, dns.TypeANY, ""), query("x.y."+zoneName, dns.TypeSOA, "0.0.0.0/0"),
	} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	s := serve(f, example(), nil)
	f.Fuzz(func(t *testing.T, packet []byte) {
		packed := s.Answer(packet, netip.MustParseAddr("192.0.2.1"), UDP)
		if n := s.Stats()["panics"]; n > 0 {
			t.Fatal("panicked")
		}
		if packed == nil {
			return
		}
		var answer dns.Msg
		if err := answer.Unpack(packed); err != nil {
			t.Fatalf("unreadable answer: %v", err)
		}
		if len(packed) > maxUDP || !answer.Response || packed[0] != packet[0] || packed[1] != packet[1] {
			t.Errorf("bad answer %x", packed)
		}
	})
}

// FuzzSubnet holds the strict parser to what RFC 7871 says, by way of a second implementation that writes options.
func FuzzSubnet(f *testing.F) {
	f.Add([]byte{0, 1, 24, 0, 192, 0, 2})
	f.Add([]byte{0, 2, 48, 0, 0x20, 1, 0x0d, 0xb8, 0, 1})
	f.Add([]byte{0, 2, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, option []byte) {
		var s subnet
		if !s.parse(option) || !s.prefix.IsValid() {
			return
		}
		// What is accepted is what miekg/dns writes for the same prefix, and comes back with nothing but the scope changed.
		addr := s.prefix.Addr()
		bits := s.prefix.Bits()
		family := uint16(familyIPv4)
		if s.mapped {
			addr, bits = netip.AddrFrom16(addr.As16()), bits+96
		}
		if addr.Is6() {
			family = familyIPv6
		}
		packed, err := (&dns.Msg{Extra: []dns.RR{&dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{
			&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(bits), Address: net.IP(addr.AsSlice())},
		}}}}).Pack()
		if err != nil || !bytes.HasSuffix(packed, option) {
			t.Errorf("accepted %x, written as %x, %v", option, packed, err)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	s := serve(b, example(), nil)
	packet, _ := query(serviceName, dns.TypeA, "192.0.2.0/24").Pack()
	from := netip.MustParseAddr("127.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		s.Answer(packet, from, UDP)
	}
}
