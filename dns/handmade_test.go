package dns

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Packets written by hand, which no library would write.

// handmade writes a packet: the header's flags, the counts, and what follows it.
func handmade(flags uint16, counts [4]byte, parts ...[]byte) []byte {
	packet := []byte{0xab, 0xcd, byte(flags >> 8), byte(flags), 0, counts[0], 0, counts[1], 0, counts[2], 0, counts[3]}
	return append(packet, bytes.Join(parts, nil)...)
}

// asked writes a question section of one question.
func asked(name string, qtype, class uint16) []byte {
	return append([]byte(wireOf(name)), byte(qtype>>8), byte(qtype), byte(class>>8), byte(class))
}

// wireOf writes a name below the zone, or, with a dot at its end, a whole one, in the case that it has.
func wireOf(name string) string {
	if !strings.HasSuffix(name, ".") {
		name = strings.TrimPrefix(name+"."+zoneName+".", ".")
	}
	var octets [300]byte
	n, err := dns.PackDomainName(name, octets[:], 0, nil, false)
	if err != nil {
		panic(err)
	}
	return string(octets[:n])
}

// opt writes an OPT record: requestor's size, version, flags, and options as they are.
func opt(size uint16, version byte, flags uint16, options ...[]byte) []byte {
	data := bytes.Join(options, nil)
	record := []byte{0, 0, typeOPT, byte(size >> 8), byte(size), 0, version, byte(flags >> 8), byte(flags), byte(len(data) >> 8), byte(len(data))}
	return append(record, data...)
}

func option(code uint16, data ...byte) []byte {
	return append([]byte{byte(code >> 8), byte(code), byte(len(data) >> 8), byte(len(data))}, data...)
}

// labelsOf is a name of so many octets that is below the zone.
func labelsOf(octets int) []byte {
	zone := wireOf("")
	var name []byte
	for left := octets - len(zone); left > 0; {
		n := min(left, 64)
		if left-n == 1 { // no label has no octet
			n--
		}
		name = append(append(name, byte(n-1)), bytes.Repeat([]byte("x"), n-1)...)
		left -= n
	}
	return append(name, zone...)
}

// told is an answer in one line: code, flags, counts, OPT.
func told(packet, question []byte) string {
	if packet == nil {
		return "silence"
	}
	var m dns.Msg
	if err := m.Unpack(packet); err != nil {
		return fmt.Sprintf("unreadable: %v", err)
	}
	if !m.Response || !bytes.Equal(packet[:2], question[:2]) || m.Opcode != int(question[2]>>3&15) {
		return fmt.Sprintf("not an answer to %x: %x", question, packet)
	}
	rcode, ok := map[int]string{16: "BADVERS"}[m.Rcode]
	if !ok {
		rcode = dns.RcodeToString[m.Rcode]
	}
	words := []string{rcode}
	for _, flag := range []struct {
		set  bool
		name string
	}{{m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}, {m.Zero, "z"}, {m.AuthenticatedData, "ad"}, {m.CheckingDisabled, "cd"}} {
		if flag.set {
			words = append(words, flag.name)
		}
	}
	extra := len(m.Extra)
	e := m.IsEdns0()
	if e != nil {
		extra--
	}
	words = append(words, fmt.Sprintf("%d/%d/%d/%d", len(m.Question), len(m.Answer), len(m.Ns), extra))
	if len(m.Question) == 1 {
		if n := 12 + len(wireOf(m.Question[0].Name)) + 4; len(question) < n || !bytes.Equal(packet[12:n], question[12:n]) {
			words = append(words, "with another question")
		}
	}
	if e == nil {
		return strings.Join(words, " ")
	}
	words = append(words, fmt.Sprintf("opt=%d,%d", e.Version(), e.UDPSize()))
	if e.Do() {
		words = append(words, "do")
	}
	if e.Co() {
		words = append(words, "co")
	}
	if unknown := e.Hdr.Ttl & 0x3fff; unknown != 0 {
		words = append(words, fmt.Sprintf("flags=%x", unknown))
	}
	for _, o := range e.Option {
		switch o := o.(type) {
		case *dns.EDNS0_EDE:
			words = append(words, fmt.Sprintf("ede=%d", o.InfoCode))
		case *dns.EDNS0_COOKIE:
			words = append(words, fmt.Sprintf("cookie=%d", len(o.Cookie)/2))
		case *dns.EDNS0_SUBNET:
			words = append(words, "ecs")
		case *dns.EDNS0_NSID:
			text, _ := hex.DecodeString(o.Nsid)
			words = append(words, "nsid="+string(text))
		default:
			words = append(words, fmt.Sprintf("option=%d", o.Option()))
		}
	}
	return strings.Join(words, " ")
}

// socket sends packets over UDP, or over one TCP connection after the other.
type socket struct {
	t   *testing.T
	udp net.Conn
	at  netip.AddrPort
}

func newSocket(t *testing.T, at netip.AddrPort) *socket {
	t.Helper()
	udp, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	return &socket{t, udp, at}
}

// marker is a question whose answer shows that what was sent before it is not answered.
var marker = append([]byte{0xff, 0xfe}, handmade(0, [4]byte{1, 0, 0, 0}, asked("ns1", dns.TypeA, 1))[2:]...)

// overUDP returns the answer to a packet, nil for none.
func (s *socket) overUDP(packet []byte) (answer []byte) {
	s.t.Helper()
	s.udp.SetDeadline(time.Now().Add(20 * time.Second))
	buffer := make([]byte, 65536)
	s.udp.Write(packet)
	if len(packet) < headerSize || packet[2]&0x80 != 0 { // there should be none
		s.udp.Write(marker)
	}
	n, err := s.udp.Read(buffer)
	if err != nil {
		s.t.Fatalf("%x over UDP: %v", packet, err)
	}
	if bytes.Equal(buffer[:2], marker[:2]) {
		return nil
	}
	return buffer[:n]
}

// overTCP likewise; a server that has nothing to say closes the connection.
func (s *socket) overTCP(packet []byte) (answer []byte) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.at.String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.Write(append([]byte{byte(len(packet) >> 8), byte(len(packet))}, packet...))
	length := make([]byte, 2)
	if _, err := io.ReadFull(conn, length); err == io.EOF {
		return nil
	} else if err != nil {
		s.t.Fatalf("%x over TCP: %v", packet, err)
	}
	answer = make([]byte, int(length[0])<<8|int(length[1]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		s.t.Fatalf("%x over TCP: %v", packet, err)
	}
	return answer
}
