package dns

import (
	"encoding/binary"
)

// EDNS options and record types that this package reads by itself.
const (
	typeOPT  = 41
	typeTSIG = 250

	optionNSID    = 3
	optionSubnet  = 8
	optionCookie  = 10
	optionPadding = 12

	flagDO = 0x8000 // RFC 3225
	flagCO = 0x4000 // RFC 9824 section 6
)

const (
	headerSize  = 12
	longestName = 255 // octets of a name on the wire, its last zero octet included (RFC 1035 section 3.1)
)

// form is what a packet has turned out to be.
type form uint8

const (
	ignored   form = iota // no question at all: deserves no answer
	malformed             // FORMERR
	usual                 // one question of class IN, at most one OPT record of version 0, and no option but ECS and cookie
	unusual               // anything else that can be answered
)

// question is a question as it stands in a packet. One parser reads it for both paths. What it points to is the packet's memory;
// a question is used again for the next packet.
type question struct {
	packet []byte
	opcode uint8
	rd, cd bool
	asked  bool              // there is a question section, with all that follows
	octets [longestName]byte // the name in lower case, on the wire
	length int               // of the name
	qtype  uint16
	class  uint16

	edns      bool // there is an OPT record (RFC 6891)
	size      uint16
	version   uint8
	do, co    bool
	hasSubnet bool
	subnet    subnet
	cookie    []byte // as received, 8 octets or 16 to 40; nil for none
	nsid      bool
	padding   bool
	tsig      bool // the last record is TSIG
}

// name returns the name in lower case, on the wire. It is as short-lived as the question.
func (q *question) name() []byte { return q.octets[:q.length] }

// section returns the question section as it was asked.
func (q *question) section() []byte {
	if !q.asked {
		return nil
	}
	return q.packet[headerSize : headerSize+q.length+4]
}

// parse reads a packet. A malformed one may have been read in part: opcode and flags are known, the question if asked is set.
func (q *question) parse(packet []byte) form {
	q.packet, q.asked, q.edns, q.hasSubnet, q.cookie, q.nsid, q.padding, q.tsig = packet, false, false, false, nil, false, false, false
	q.do, q.co, q.version = false, false, 0
	if len(packet) < headerSize || packet[2]&0x80 != 0 { // an answer is never answered
		return ignored
	}
	q.opcode, q.rd, q.cd = packet[2]>>3&0xf, packet[2]&1 != 0, packet[3]&0x10 != 0
	found := q.sections(packet)
	if q.opcode != 0 {
		if found == malformed { // what its sections would be is not known (RFC 8906 section 3.1.4)
			q.asked, q.edns, q.hasSubnet, q.cookie, q.tsig = false, false, false, nil, false
		}
		return unusual
	}
	return found
}

// sections reads what follows the header.
func (q *question) sections(packet []byte) form {
	// The four counts: nearly always 1, 0, 0 and 0 or 1.
	leading := int(binary.BigEndian.Uint16(packet[6:])) + int(binary.BigEndian.Uint16(packet[8:]))
	additional := int(binary.BigEndian.Uint16(packet[10:]))
	at := headerSize
	switch binary.BigEndian.Uint16(packet[4:]) {
	case 0:
	case 1:
		end := nameEnd(packet, headerSize)
		if end == 0 || end+4 > len(packet) {
			return malformed
		}
		q.length = lower(&q.octets, packet[headerSize:end])
		q.qtype, q.class = binary.BigEndian.Uint16(packet[end:]), binary.BigEndian.Uint16(packet[end+2:])
		q.asked = true
		at = end + 4
	default:
		return malformed
	}
	found := usual
	if !q.asked || q.class != 1 || leading > 0 || additional > 1 || packet[2]&2 != 0 {
		found = unusual
	}
	for i := range leading + additional {
		if i >= leading && len(packet)-at >= 11 && packet[at] == 0 && binary.BigEndian.Uint16(packet[at+1:]) == typeOPT {
			end := at + 11 + int(binary.BigEndian.Uint16(packet[at+9:]))
			if q.edns || q.tsig || end > len(packet) { // RFC 6891 section 6.1.1; TSIG is last (RFC 8945 section 5.1)
				return malformed
			}
			plain, ok := q.parseOPT(packet[at:end])
			if !ok {
				return malformed
			}
			if !plain {
				found = unusual
			}
			at = end
			continue
		}
		rtype, end := skipRecord(packet, at)
		if end == 0 || rtype == typeOPT || q.tsig { // OPT has the root's name and stands in the additional section; TSIG is last
			return malformed
		}
		q.tsig = rtype == typeTSIG && i >= leading
		found, at = unusual, end
	}
	if at != len(packet) {
		return malformed
	}
	if !q.asked && q.cookie == nil { // only who wants a cookie may ask nothing (RFC 7873 section 5.4)
		return malformed
	}
	return found
}

// parseOPT reads an OPT record. It is plain if it is of version 0 and has no options but ECS and cookie, or unknown ones, which
// are ignored (RFC 6891 section 6.1.2).
func (q *question) parseOPT(record []byte) (plain, ok bool) {
	q.edns, plain = true, true
	q.size, q.version = binary.BigEndian.Uint16(record[3:]), record[6]
	flags := binary.BigEndian.Uint16(record[7:])
	q.do, q.co = flags&flagDO != 0, flags&flagCO != 0
	if q.version != 0 || q.co {
		plain = false
	}
	if q.version != 0 { // whose options may have another form
		return false, true
	}
	for options := record[11:]; len(options) > 0; {
		if len(options) < 4 {
			return false, false
		}
		code, length := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		if 4+length > len(options) {
			return false, false
		}
		option := options[4 : 4+length]
		options = options[4+length:]
		switch code {
		case optionSubnet:
			if q.hasSubnet || !q.subnet.parse(option) {
				return false, false
			}
			q.hasSubnet = true
		case optionCookie:
			if q.cookie != nil || length != clientCookieSize && (length < 16 || length > 40) { // RFC 7873 section 4
				return false, false
			}
			q.cookie = option
		case optionNSID:
			q.nsid, plain = true, false
		case optionPadding:
			q.padding, plain = true, false
		}
	}
	return plain, true
}

// nameEnd returns the offset behind a name that has no pointers, as a question's has none, or 0.
func nameEnd(packet []byte, at int) int {
	for start := at; at < len(packet) && at-start < longestName; {
		length := int(packet[at])
		if length == 0 {
			return at + 1
		}
		if length > 63 {
			return 0
		}
		at += 1 + length
	}
	return 0
}

// skipRecord returns the type of a record whose name may have pointers, and the offset behind it, or 0.
func skipRecord(packet []byte, at int) (rtype uint16, end int) {
	for {
		if at >= len(packet) {
			return 0, 0
		}
		length := int(packet[at])
		if length >= 0xc0 {
			at += 2
			break
		}
		if length > 63 {
			return 0, 0
		}
		at += 1 + length
		if length == 0 {
			break
		}
	}
	if at+10 > len(packet) {
		return 0, 0
	}
	end = at + 10 + int(binary.BigEndian.Uint16(packet[at+8:]))
	if end > len(packet) {
		return 0, 0
	}
	return binary.BigEndian.Uint16(packet[at:]), end
}

// lower copies a name in lower case and returns its length. Lengths of labels are below the letters, so they stay. It takes eight
// octets at a time: where the high bits of octet+0x3f and of octet+0x25 differ, the octet is a capital.
func lower(into *[longestName]byte, name []byte) int {
	n := len(name)
	i := 0
	for ; i+8 <= n; i += 8 {
		octets := binary.LittleEndian.Uint64(name[i:])
		low := octets & 0x7f7f7f7f7f7f7f7f
		capital := (low + 0x3f3f3f3f3f3f3f3f) &^ (low + 0x2525252525252525) &^ octets & 0x8080808080808080
		binary.LittleEndian.PutUint64(into[i:], octets|capital>>2)
	}
	for ; i < n; i++ {
		c := name[i]
		if c-'A' < 26 {
			c |= 0x20
		}
		into[i] = c
	}
	return n
}
