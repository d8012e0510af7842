package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/miekg/dns"
)

// The errors of parseQuery. errIgnore is for what deserves no answer: what is no question at all.
var (
	errIgnore    = errors.New("not a question")
	errMalformed = errors.New("malformed question")
)

// query is a question as it stands in a packet.
type query struct {
	id     uint16
	opcode int
	rd, cd bool
	name   string // fully qualified, in presentation form, in the asker's case
	qtype  uint16
	class  uint16
	edns   *edns // nil without OPT
}

// edns is what a question's OPT record says (RFC 6891).
type edns struct {
	size    uint16 // what the asker can receive over UDP
	version uint8
	do      bool
	subnet  *subnet // nil without ECS
}

// subnet is a client subnet option (RFC 7871 section 6), checked.
type subnet struct {
	family uint16
	prefix netip.Prefix // invalid for a source of length 0 and family 0, which some clients send
	option []byte       // as received: family, source, scope and address
}

const headerSize = 12

// parseQuery reads a packet. With errMalformed, and for other opcodes than QUERY, the query has at least id, opcode and
// flags, for the answer's header.
func parseQuery(packet []byte) (query, error) {
	if len(packet) < headerSize || packet[2]&0x80 != 0 { // an answer is never answered
		return query{}, errIgnore
	}
	q := query{
		id:     binary.BigEndian.Uint16(packet),
		opcode: int(packet[2] >> 3 & 0xf),
		rd:     packet[2]&1 != 0,
		cd:     packet[3]&0x10 != 0,
	}
	if q.opcode != dns.OpcodeQuery {
		return q, nil
	}
	if binary.BigEndian.Uint16(packet[4:]) != 1 {
		return q, errMalformed
	}
	name, off, err := dns.UnpackDomainName(packet, headerSize)
	if err != nil || off+4 > len(packet) {
		return q, errMalformed
	}
	q.name = name
	q.qtype, q.class = binary.BigEndian.Uint16(packet[off:]), binary.BigEndian.Uint16(packet[off+2:])
	off += 4
	leading := int(binary.BigEndian.Uint16(packet[6:])) + int(binary.BigEndian.Uint16(packet[8:]))
	additional := int(binary.BigEndian.Uint16(packet[10:]))
	for i := range leading + additional {
		r, next, err := parseRecord(packet, off)
		if err != nil {
			return q, err
		}
		off = next
		if r.rtype != dns.TypeOPT || i < leading {
			continue
		}
		if q.edns != nil || !r.root { // RFC 6891 section 6.1.1
			return q, errMalformed
		}
		if q.edns, err = parseOPT(r); err != nil {
			return q, err
		}
	}
	if off != len(packet) {
		return q, errMalformed
	}
	return q, nil
}

// record is a resource record of a question, which is of interest only if it is OPT.
type record struct {
	root  bool // its name is the root
	rtype uint16
	class uint16
	ttl   uint32
	data  []byte
}

func parseRecord(packet []byte, off int) (record, int, error) {
	start := off
	off, ok := skipName(packet, off)
	if !ok || off+10 > len(packet) {
		return record{}, 0, errMalformed
	}
	r := record{
		root:  packet[start] == 0,
		rtype: binary.BigEndian.Uint16(packet[off:]),
		class: binary.BigEndian.Uint16(packet[off+2:]),
		ttl:   binary.BigEndian.Uint32(packet[off+4:]),
	}
	end := off + 10 + int(binary.BigEndian.Uint16(packet[off+8:]))
	if end > len(packet) {
		return record{}, 0, errMalformed
	}
	r.data = packet[off+10 : end]
	return r, end, nil
}

// skipName returns the offset behind a name, which may end in a pointer.
func skipName(packet []byte, off int) (int, bool) {
	for off < len(packet) {
		switch length := int(packet[off]); {
		case length == 0:
			return off + 1, true
		case length >= 0xc0:
			return off + 2, off+2 <= len(packet)
		case length >= 0x40:
			return 0, false
		default:
			off += 1 + length
		}
	}
	return 0, false
}

func parseOPT(r record) (*edns, error) {
	e := &edns{size: r.class, version: uint8(r.ttl >> 16), do: r.ttl&0x8000 != 0}
	for data := r.data; len(data) > 0; {
		if len(data) < 4 {
			return nil, errMalformed
		}
		code, length := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		if 4+length > len(data) {
			return nil, errMalformed
		}
		option := data[4 : 4+length]
		data = data[4+length:]
		if code != dns.EDNS0SUBNET {
			continue // RFC 6891 section 6.1.2: unknown options are ignored
		}
		if e.subnet != nil {
			return nil, errMalformed
		}
		var err error
		if e.subnet, err = parseSubnet(option); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// The address families of client subnets (IANA).
const (
	familyNone = 0
	familyIPv4 = 1
	familyIPv6 = 2
)

// parseSubnet reads a client subnet option strictly (RFC 7871 sections 6 and 7.1.1): the address has just the octets that the
// source length needs, bits behind the source length are zero, and the scope is zero. A source of length 0 may come with
// family 0, as dig sends it.
func parseSubnet(option []byte) (*subnet, error) {
	if len(option) < 4 {
		return nil, errMalformed
	}
	family, source, scope := binary.BigEndian.Uint16(option), int(option[2]), option[3]
	address := option[4:]
	longest := 0
	switch family {
	case familyNone:
	case familyIPv4:
		longest = 32
	case familyIPv6:
		longest = 128
	default:
		return nil, errMalformed
	}
	if source > longest || scope != 0 || len(address) != (source+7)/8 {
		return nil, errMalformed
	}
	s := &subnet{family: family, option: option}
	if family == familyNone {
		return s, nil
	}
	var octets [16]byte
	copy(octets[:], address)
	addr := netip.AddrFrom16(octets)
	if family == familyIPv4 {
		addr = netip.AddrFrom4([4]byte(octets[:4]))
	}
	s.prefix = netip.PrefixFrom(addr, source)
	if s.prefix.Masked() != s.prefix {
		return nil, errMalformed
	}
	if mapped := addr.Unmap(); mapped != addr && source >= 96 { // an IPv4 client in IPv6 form
		s.prefix = netip.PrefixFrom(mapped, source-96)
	}
	return s, nil
}

// reply is the option to send back: as it came, with the scope. The scope of an IPv4 client in IPv6 form counts the bits of
// the form.
func (s *subnet) reply(scope uint8) []byte {
	if s.family == familyIPv6 && s.prefix.Addr().Is4() && scope > 0 {
		scope += 96
	}
	option := append([]byte(nil), s.option...)
	option[3] = scope
	return option
}
