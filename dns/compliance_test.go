package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// What RFC 1035, 2181, 6891, 7871, 7873, 8482, 8906, 9619 and 9824 ask of a server, over sockets, in packets that are written by hand.

func TestCompliance(t *testing.T) {
	const (
		rd, cd, ad, z, tc, aa, ra = 0x100, 0x10, 0x20, 0x40, 0x200, 0x400, 0x80
		opIQuery, opStatus        = 1 << 11, 2 << 11
		opNotify, opUpdate        = 4 << 11, 5 << 11
		do, co                    = flagDO, flagCO
	)
	var (
		one, additional = [4]byte{1, 0, 0, 0}, [4]byte{1, 0, 0, 1}
		soa             = asked("", dns.TypeSOA, 1)
		mail            = asked("mail", dns.TypeA, 1)
		client          = []byte{1, 2, 3, 4, 5, 6, 7, 8}
		record          = append([]byte(wireOf("mail")), 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 9)
	)
	s := signed(t, manifold(), nil, zoneName)
	settings := s.settings
	settings.NSID, settings.Version = "node 1", strings.Repeat("long ", 60)
	s.Configure(settings)
	named := newSocket(t, listen(t, s))
	plain := newSocket(t, listen(t, serve(t, manifold(), nil)))
	for _, test := range []struct {
		name   string
		on     *socket
		packet []byte
		want   string
	}{
		// RFC 8906 section 8.1: without EDNS.
		{"8.1.1: SOA", plain, handmade(0, one, soa), "NOERROR aa 1/1/0/0"},
		{"8.1.2: unknown type", plain, handmade(0, one, asked("", 1000, 1)), "NOERROR aa 1/0/1/0"},
		{"type 0", plain, handmade(0, one, asked("", 0, 1)), "NOERROR aa 1/0/1/0"},
		{"8.1.3.1: CD", plain, handmade(cd, one, soa), "NOERROR aa cd 1/1/0/0"},
		{"8.1.3.2: AD", plain, handmade(ad, one, soa), "NOERROR aa 1/1/0/0"},
		{"8.1.3.3: Z", plain, handmade(z, one, soa), "NOERROR aa 1/1/0/0"},
		{"8.1.3.4: RD", plain, handmade(rd, one, soa), "NOERROR aa rd 1/1/0/0"},
		{"all flags and a code", plain, handmade(rd|cd|ad|z|aa|ra|tc|0xf, one, soa), "NOERROR aa rd cd 1/1/0/0"},
		{"8.1.4: unknown opcode, header only", plain, handmade(15<<11, [4]byte{}), "NOTIMP 0/0/0/0"},
		{"opcode IQUERY", plain, handmade(opIQuery, [4]byte{0, 1, 0, 0}, record), "NOTIMP 0/0/0/0"},
		{"opcode STATUS", plain, handmade(opStatus|rd, [4]byte{}), "NOTIMP rd 0/0/0/0"},
		{"opcode NOTIFY", plain, handmade(opNotify|aa, one, soa), "NOTIMP 1/0/0/0"},
		{"opcode NOTIFY, EDNS", plain, handmade(opNotify|aa, additional, soa, opt(1232, 0, 0)), "NOTIMP 1/0/0/0 opt=0,1232"},
		{"opcode UPDATE", plain, handmade(opUpdate, [4]byte{1, 0, 1, 0}, soa, record), "NOTIMP 1/0/0/0"},
		{"unknown opcode, unknown sections", plain, handmade(14<<11, [4]byte{7, 7, 7, 7}, []byte("anything")), "NOTIMP 0/0/0/0"},

		// RFC 8906 section 8.2: with EDNS.
		{"8.2.1: plain EDNS", plain, handmade(0, additional, soa, opt(4096, 0, 0)), "NOERROR aa 1/1/0/0 opt=0,1232"},
		{"8.2.2: version 1", plain, handmade(0, additional, soa, opt(4096, 1, 0)), "BADVERS 1/0/0/0 opt=0,1232"},
		{"8.2.3: unknown option", plain, handmade(0, additional, soa, opt(4096, 0, 0, option(100, 1, 2))), "NOERROR aa 1/1/0/0 opt=0,1232"},
		{"unknown option without data", plain, handmade(0, additional, soa, opt(4096, 0, 0, option(65001))), "NOERROR aa 1/1/0/0 opt=0,1232"},
		{"8.2.4: unknown flags", plain, handmade(0, additional, soa, opt(4096, 0, 0x2fff)), "NOERROR aa 1/1/0/0 opt=0,1232"},
		{"8.2.5: version 1, unknown flags", plain, handmade(0, additional, soa, opt(4096, 1, 0x2fff)), "BADVERS 1/0/0/0 opt=0,1232"},
		{"8.2.6: version 1, unknown option", plain, handmade(0, additional, soa, opt(4096, 1, 0, option(100))), "BADVERS 1/0/0/0 opt=0,1232"},
		{"version 255, what would be no options", plain, handmade(0, additional, soa, opt(4096, 255, 0, []byte{1, 2, 3})), "BADVERS 1/0/0/0 opt=0,1232"},
		{"version 1, DO, malformed subnet", plain, handmade(0, additional, soa, opt(4096, 1, do, option(optionSubnet))), "BADVERS 1/0/0/0 opt=0,1232 do"},
		{"8.2.7: DO, unsigned", plain, handmade(0, additional, soa, opt(4096, 0, do)), "NOERROR aa 1/1/0/0 opt=0,1232 do"},
		{"8.2.7: DO, signed", named, handmade(0, additional, soa, opt(4096, 0, do)), "NOERROR aa 1/2/0/0 opt=0,1232 do"},
		{"CO with DO", named, handmade(0, additional, asked("nobody", 1, 1), opt(4096, 0, do|co)), "NXDOMAIN aa 1/0/4/0 opt=0,1232 do co"},
		{"CO without DO", named, handmade(0, additional, asked("nobody", 1, 1), opt(4096, 0, co)), "NXDOMAIN aa 1/0/1/0 opt=0,1232"},
		{"DO without CO", named, handmade(0, additional, asked("nobody", 1, 1), opt(4096, 0, do)), "NOERROR aa 1/0/4/0 opt=0,1232 do"},
		{"8.2.8: several options", named, handmade(0, additional, soa, opt(4096, 0, 0, option(optionNSID), option(optionCookie, client...), option(optionSubnet, 0, 1, 0, 0), option(9, 0))), "NOERROR aa 1/1/0/0 opt=0,1232 ecs cookie=24 nsid=node 1"},
		{"NSID, none to tell", plain, handmade(0, additional, soa, opt(4096, 0, 0, option(optionNSID))), "NOERROR aa 1/1/0/0 opt=0,1232"},
		{"BADVERS tells no cookie and no subnet", plain, handmade(0, additional, soa, opt(4096, 1, 0, option(optionCookie, client...), option(optionSubnet, 0, 1, 0, 0))), "BADVERS 1/0/0/0 opt=0,1232"},
		{"padding in clear text", plain, handmade(0, additional, soa, opt(4096, 0, 0, option(optionPadding, 0, 0, 0))), "NOERROR aa 1/1/0/0 opt=0,1232"},

		// Malformed EDNS. The answer has OPT, or it would say that the server knows none.
		{"subnet without data", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionSubnet))), "FORMERR 1/0/0/0 opt=0,1232"},
		{"two subnets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionSubnet, 0, 1, 0, 0), option(optionSubnet, 0, 1, 0, 0))), "FORMERR 1/0/0/0 opt=0,1232 ecs"},
		{"option longer than the record", plain, handmade(0, additional, mail, opt(1232, 0, 0, []byte{0, 100, 0, 5, 1, 2})), "FORMERR 1/0/0/0 opt=0,1232"},
		{"half an option", plain, handmade(0, additional, mail, opt(1232, 0, 0, []byte{0, 100, 0})), "FORMERR 1/0/0/0 opt=0,1232"},
		{"two OPT records", plain, handmade(0, [4]byte{1, 0, 0, 2}, mail, opt(1232, 0, 0), opt(1232, 0, 0)), "FORMERR 1/0/0/0 opt=0,1232"},
		{"OPT among answers", plain, handmade(0, [4]byte{1, 1, 0, 0}, mail, opt(1232, 0, 0)), "FORMERR 1/0/0/0"},
		{"OPT in authority", plain, handmade(0, [4]byte{1, 0, 1, 0}, mail, opt(1232, 0, 0)), "FORMERR 1/0/0/0"},
		{"OPT with a name", plain, handmade(0, additional, mail, []byte("\x01x"), opt(1232, 0, 0)), "FORMERR 1/0/0/0"},
		{"OPT with a pointer to the root", plain, handmade(0, additional, mail, []byte{0xc0, byte(headerSize + len(mail) - 5)}, opt(1232, 0, 0)[1:]), "FORMERR 1/0/0/0"},
		{"TSIG before OPT", plain, handmade(0, [4]byte{1, 0, 0, 2}, mail, []byte{0, 0, typeTSIG, 0, 255, 0, 0, 0, 0, 0, 0}, opt(1232, 0, 0)), "FORMERR 1/0/0/0"},
		{"TSIG without data", plain, handmade(0, additional, mail, []byte{0, 0, typeTSIG, 0, 255, 0, 0, 0, 0, 0, 0}), "FORMERR 1/0/0/0"},
		{"OPT behind another record", plain, handmade(0, [4]byte{1, 0, 0, 2}, mail, record, opt(1232, 0, 0)), "NOERROR aa 1/1/0/0 opt=0,1232"},
		{"records nobody asked for", plain, handmade(0, [4]byte{1, 1, 1, 0}, mail, record, record), "NOERROR aa 1/1/0/0"},

		// Cookies (RFC 7873 sections 4 and 5).
		{"cookie of 7 octets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie, client[:7]...))), "FORMERR 1/0/0/0 opt=0,1232"},
		{"cookie without data", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie))), "FORMERR 1/0/0/0 opt=0,1232"},
		{"cookie of 9 octets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie, append(client, 9)...))), "FORMERR 1/0/0/0 opt=0,1232"},
		{"cookie of 15 octets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie, make([]byte, 15)...))), "FORMERR 1/0/0/0 opt=0,1232"},
		{"cookie of 16 octets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie, make([]byte, 16)...))), "NOERROR aa 1/1/0/0 opt=0,1232 cookie=24"},
		{"cookie of 40 octets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie, make([]byte, 40)...))), "NOERROR aa 1/1/0/0 opt=0,1232 cookie=24"},
		{"cookie of 41 octets", plain, handmade(0, additional, mail, opt(1232, 0, 0, option(optionCookie, make([]byte, 41)...))), "FORMERR 1/0/0/0 opt=0,1232"},
		{"no question, client cookie", plain, handmade(0, [4]byte{0, 0, 0, 1}, opt(1232, 0, 0, option(optionCookie, client...))), "NOERROR 0/0/0/0 opt=0,1232 cookie=24"},
		{"no question, bad server cookie", plain, handmade(0, [4]byte{0, 0, 0, 1}, opt(1232, 0, 0, option(optionCookie, make([]byte, 24)...))), "BADCOOKIE 0/0/0/0 opt=0,1232 cookie=24"},
		{"no question, no cookie", plain, handmade(0, [4]byte{0, 0, 0, 1}, opt(1232, 0, 0)), "FORMERR 0/0/0/0 opt=0,1232"},

		// The question section (RFC 1035 section 4.1.2, RFC 9619).
		{"header only", plain, handmade(0, [4]byte{}), "FORMERR 0/0/0/0"},
		{"no header", plain, handmade(0, [4]byte{})[:11], "silence"},
		{"an answer", plain, handmade(0x8000, one, mail), "silence"},
		{"two questions", plain, handmade(0, [4]byte{2, 0, 0, 0}, mail, mail), "FORMERR 0/0/0/0"},
		{"more octets than the counts say", plain, handmade(0, one, mail, []byte{0}), "FORMERR 1/0/0/0"},
		{"fewer records than the counts say", plain, handmade(0, additional, mail), "FORMERR 1/0/0/0"},
		{"name with a pointer", plain, handmade(0, one, []byte{0xc0, 12, 0, 1, 0, 1}), "FORMERR 0/0/0/0"},
		{"name with a label and a pointer", plain, handmade(0, one, []byte{1, 'x', 0xc0, 12, 0, 1, 0, 1}), "FORMERR 0/0/0/0"},
		{"label type 0x40", plain, handmade(0, one, []byte{0x41, 'x', 0, 0, 1, 0, 1}), "FORMERR 0/0/0/0"},
		{"label type 0x80", plain, handmade(0, one, []byte{0x81, 'x', 0, 0, 1, 0, 1}), "FORMERR 0/0/0/0"},
		{"name of 255 octets", plain, handmade(0, one, labelsOf(255), []byte{0, 1, 0, 1}), "NXDOMAIN aa 1/0/1/0"},
		{"name of 255 octets, signed", named, handmade(0, additional, labelsOf(255), []byte{0, 1, 0, 1}, opt(1232, 0, do)), "NOERROR aa 1/0/4/0 opt=0,1232 do"},
		{"name of 254 octets, signed", named, handmade(0, additional, labelsOf(254), []byte{0, 1, 0, 1}, opt(1232, 0, do)), "NOERROR aa 1/0/4/0 opt=0,1232 do"},
		{"name of 256 octets", plain, handmade(0, one, labelsOf(256), []byte{0, 1, 0, 1}), "FORMERR 0/0/0/0"},
		{"name of all octets but letters", plain, handmade(0, one, append([]byte("\x08\x00.\\\"\xff @\x07"), asked("", 1, 1)...)), "NXDOMAIN aa 1/0/1/0"},
		{"name in capitals", plain, handmade(0, one, bytes.ToUpper(mail[:len(mail)-4]), mail[len(mail)-4:]), "NOERROR aa 1/1/0/0"},
		{"the root", plain, handmade(0, one, asked(".", dns.TypeNS, 1)), "REFUSED 1/0/0/0"},

		// Classes and types that stand in questions only.
		{"class ANY", plain, handmade(0, one, asked("mail", 1, 255)), "REFUSED 1/0/0/0"},
		{"class NONE", plain, handmade(0, one, asked("mail", 1, 254)), "REFUSED 1/0/0/0"},
		{"class 0", plain, handmade(0, one, asked("mail", 1, 0)), "REFUSED 1/0/0/0"},
		{"version.bind, not told", plain, handmade(0, one, asked("version.bind.", 16, 3)), "REFUSED 1/0/0/0"},
		{"id.server, not told", plain, handmade(0, one, asked("id.server.", 16, 3)), "REFUSED 1/0/0/0"},
		{"version.bind, longer than a string", named, handmade(0, one, asked("VERSION.bind.", 16, 3)), "NOERROR aa 1/1/0/0"},
		{"id.server", named, handmade(0, one, asked("id.server.", 16, 3)), "NOERROR aa 1/1/0/0"},
		{"id.server of another type", named, handmade(0, one, asked("id.server.", 1, 3)), "REFUSED 1/0/0/0"},
		{"id.server of class IN", named, handmade(0, one, asked("id.server.", 16, 1)), "REFUSED 1/0/0/0"},
		{"type OPT", plain, handmade(0, one, asked("mail", 41, 1)), "FORMERR 1/0/0/0"},
		{"type TSIG", plain, handmade(0, one, asked("mail", 250, 1)), "FORMERR 1/0/0/0"},
		{"type MAILB", plain, handmade(0, one, asked("mail", 253, 1)), "NOTIMP 1/0/0/0"},
		{"type ANY", plain, handmade(0, one, asked("mail", 255, 1)), "NOERROR aa 1/1/0/0"},
		{"type ANY of an alias", plain, handmade(0, one, asked("chain", 255, 1)), "NOERROR aa 1/1/0/0"},
		{"type ANY of nobody", plain, handmade(0, one, asked("nobody", 255, 1)), "NXDOMAIN aa 1/0/1/0"},
		{"type RRSIG of an unsigned alias", plain, handmade(0, one, asked("dangling", dns.TypeRRSIG, 1)), "NXDOMAIN aa 1/1/1/0"},
		{"aliases in a loop", plain, handmade(0, one, asked("loop", 1, 1)), "NOERROR aa 1/2/0/0"},
		{"aliases in a loop, signed", named, handmade(0, additional, asked("loop", 1, 1), opt(1232, 0, do)), "NOERROR aa 1/4/0/0 opt=0,1232 do"},
	} {
		for transport, send := range map[string]func([]byte) []byte{"UDP": test.on.overUDP, "TCP": test.on.overTCP} {
			got, _, _ := strings.Cut(told(send(test.packet), test.packet), " ede=")
			if got != test.want {
				t.Errorf("%s, over %s:\ngot  %s\nwant %s", test.name, transport, got, test.want)
			}
		}
	}
}

// TestComplianceOfSizes asks for answers of several sizes in all that an asker may say that it can receive.
func TestComplianceOfSizes(t *testing.T) {
	world := manifold()
	zone := world.Zones[zoneName]
	for i := range 24 { // 60 octets each, so that 8 do not fit 512 octets, and 24 do not fit 1232
		text := fmt.Sprintf("TXT \"%02d%s\"", i, strings.Repeat("x", 46))
		if i < 8 {
			zone.Records = append(zone.Records, "eight "+text)
		}
		if i < 16 {
			zone.Records = append(zone.Records, "sixteen "+text)
		}
		zone.Records = append(zone.Records, "many "+text)
	}
	zone.Records = append(zone.Records, "below NS ns.below")
	for i := range 40 {
		zone.Records = append(zone.Records, fmt.Sprintf("ns.below A 192.0.2.%d", 100+i))
	}
	sockets := newSocket(t, listen(t, signed(t, world, nil, zoneName)))
	for _, test := range []struct {
		name  string
		qtype uint16
		size  int // of EDNS; -1 for none
		do    bool
		limit int
		fits  bool
	}{
		{"eight", dns.TypeTXT, -1, false, 512, false},
		{"eight", dns.TypeTXT, 0, false, 512, false},
		{"eight", dns.TypeTXT, 511, false, 512, false},
		{"eight", dns.TypeTXT, 512, false, 512, false},
		{"eight", dns.TypeTXT, 1232, false, 1232, true},
		{"eight", dns.TypeTXT, 1232, true, 1232, true},
		{"eight", dns.TypeTXT, 65535, true, 1232, true},
		{"sixteen", dns.TypeTXT, 1024, false, 1024, false},
		{"sixteen", dns.TypeTXT, 1231, false, 1231, true},
		{"many", dns.TypeTXT, 4096, false, 1232, false},
		{"many", dns.TypeTXT, 4096, true, 1232, false},
		{"mail", dns.TypeA, 512, true, 512, true},
		{"mail", dns.TypeA, 0, true, 512, true},
		{"below", dns.TypeA, 512, false, 512, false}, // glue that a referral needs (RFC 9471)
	} {
		question := handmade(0, [4]byte{1, 0, 0, 0}, asked(test.name, test.qtype, 1))
		flags := uint16(0)
		if test.do {
			flags = flagDO
		}
		if test.size >= 0 {
			question = handmade(0, [4]byte{1, 0, 0, 1}, asked(test.name, test.qtype, 1), opt(uint16(test.size), 0, flags))
		}
		for range 2 { // by the full path, and perhaps by the fast one
			packet := sockets.overUDP(question)
			var m dns.Msg
			if err := m.Unpack(packet); err != nil {
				t.Fatal(err)
			}
			empty := len(m.Answer)+len(m.Ns) == 0 && !m.Authoritative && (m.IsEdns0() != nil) == (test.size >= 0)
			if len(packet) > test.limit || m.Truncated == test.fits || m.Truncated && !empty {
				t.Errorf("%s in %d octets, DO %v: %d octets of at most %d: %s", test.name, test.size, test.do, len(packet), test.limit, told(packet, question))
			}
			if test.do && test.fits {
				signatures := 0
				for _, rr := range m.Answer {
					if rr.Header().Rrtype == dns.TypeRRSIG {
						signatures++
					}
				}
				if signatures != 1 {
					t.Errorf("%s: %d signatures", test.name, signatures)
				}
			}
		}
		if got := told(sockets.overTCP(question), question); strings.Contains(got, " tc ") {
			t.Errorf("%s over TCP: %s", test.name, got)
		}
	}
}

// TestGlueIsLeftOut asks for name servers whose addresses do not fit: a full answer can do without (RFC 2181 section 9).
func TestGlueIsLeftOut(t *testing.T) {
	world := example()
	host := "ns1." + zoneName
	for i := range 60 {
		world.Zones[zoneName].Nameservers[host] = append(world.Zones[zoneName].Nameservers[host], netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}))
	}
	sockets := newSocket(t, listen(t, serve(t, world, nil)))
	question := handmade(0, [4]byte{1, 0, 0, 0}, asked("", dns.TypeNS, 1))
	if got, want := told(sockets.overUDP(question), question), "NOERROR aa 1/1/0/0"; got != want {
		t.Errorf("over UDP: got %s, want %s", got, want)
	}
	if got, want := told(sockets.overTCP(question), question), "NOERROR aa 1/1/0/61"; got != want {
		t.Errorf("over TCP: got %s, want %s", got, want)
	}
}

// TestComplianceCutShort sends a question cut at every length.
func TestComplianceCutShort(t *testing.T) {
	sockets := newSocket(t, listen(t, serve(t, manifold(), nil)))
	name := wireOf("mail")
	whole := handmade(0, [4]byte{1, 0, 0, 1}, asked("mail", 1, 1), opt(1232, 0, 0, option(optionSubnet, 0, 1, 24, 0, 192, 0, 2), option(optionCookie, 1, 2, 3, 4, 5, 6, 7, 8)))
	for n := range len(whole) + 1 {
		packet := whole[:n]
		want := "FORMERR 1/0/0/0"
		switch {
		case n < headerSize:
			want = "silence"
		case n < headerSize+len(name)+4:
			want = "FORMERR 0/0/0/0"
		case n == len(whole):
			want = "NOERROR aa 1/1/0/0 opt=0,1232 ecs cookie=24"
		}
		if got := told(sockets.overUDP(packet), packet); got != want {
			t.Errorf("%d octets of %d over UDP: got %s, want %s", n, len(whole), got, want)
		}
		if got := told(sockets.overTCP(packet), packet); got != want {
			t.Errorf("%d octets of %d over TCP: got %s, want %s", n, len(whole), got, want)
		}
	}
}
