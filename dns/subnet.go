package dns

import (
	"encoding/binary"
	"net/netip"
)

// subnet is a client subnet option (RFC 7871 section 6), checked.
type subnet struct {
	prefix netip.Prefix // invalid for a source of length 0 and family 0, which some clients send
	mapped bool         // the option has an IPv4 client in IPv6 form, whose prefix is that of IPv4
	octets [4 + 16]byte // the option as received: family, source, scope and address
	length int
}

// The address families of client subnets (IANA).
const (
	familyNone = 0
	familyIPv4 = 1
	familyIPv6 = 2
)

// parse reads a client subnet option strictly (RFC 7871 sections 6 and 7.1.1): the address has just the octets that the source
// length needs, bits behind the source length are zero, and the scope is zero. A source of length 0 may come with family 0, as dig
// sends it.
func (s *subnet) parse(option []byte) bool {
	if len(option) < 4 || len(option) > len(s.octets) {
		return false
	}
	family, source, scope := binary.BigEndian.Uint16(option), int(option[2]), option[3]
	length := (source + 7) / 8
	if scope != 0 || len(option) != 4+length {
		return false
	}
	if source&7 != 0 && option[len(option)-1]<<(source&7) != 0 {
		return false
	}
	s.octets = [len(s.octets)]byte{}
	s.length, s.mapped = copy(s.octets[:], option), false
	switch family {
	case familyIPv4:
		if source > 32 {
			return false
		}
		s.prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte(s.octets[4:8])), source)
	case familyIPv6:
		if source > 128 {
			return false
		}
		addr := netip.AddrFrom16([16]byte(s.octets[4:]))
		if s.mapped = source >= 96 && addr.Is4In6(); s.mapped {
			addr, source = addr.Unmap(), source-96
		}
		s.prefix = netip.PrefixFrom(addr, source)
	case familyNone:
		if source != 0 {
			return false
		}
		s.prefix = netip.Prefix{}
	default:
		return false
	}
	return true
}

// reply returns the option to send back: as it came, with the scope, which counts the bits of the form that was sent: what all IPv4
// clients get is not for those of IPv6. It is valid until the next parse.
func (s *subnet) reply(scope uint8) []byte {
	if s.mapped {
		scope += 96
	}
	s.octets[3] = scope
	return s.octets[:s.length]
}

// client returns the prefix that a question is decided for: the client subnet where one was sent that says something, and where
// subnets are used at all, else the asker's address. BySubnet tells which.
func (q *question) client(from netip.Addr, use bool) (client netip.Prefix, bySubnet bool) {
	if client = q.clientSubnet(); use && client.IsValid() {
		return client, true
	}
	return netip.PrefixFrom(from, from.BitLen()), false
}

// clientSubnet returns the client subnet, or an invalid prefix where none was sent, or one of no bits, which says nothing. All of IPv4
// in IPv6 form does say something: a cache would give its answer to all those clients.
func (q *question) clientSubnet() netip.Prefix {
	if q.hasSubnet && (q.subnet.prefix.Bits() > 0 || q.subnet.mapped) {
		return q.subnet.prefix
	}
	return netip.Prefix{}
}
