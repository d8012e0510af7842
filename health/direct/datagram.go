package direct

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxDatagram is the size of a datagram in octets, at most: it fits into the least MTU of IPv6 with room for tunnels.
const MaxDatagram = 1200

// maxFragments is how many datagrams a report takes, at most.
const maxFragments = (MaxReport + maxPayload - 1) / maxPayload

// MaxReport is the size of a report in octets, at most: that of one in etcd.
const MaxReport = 64 << 10

// what says what a datagram is for.
type what uint8

const (
	part  what = 1 // a part of a report
	beat  what = 2 // the sender lives, and its report is still the same
	wants what = 3 // the sender has missed the report of whom it asks
)

// datagram is what is sent. On the wire the numbers are big-endian, and the name has its length in one octet before it; the signature
// (Ed25519, RFC 8032) is of everything before it.
//
//	version 1 | what 1 | index 1 | count 1 | incarnation 8 | sequence 8 | sent 8 | [began 8] | name 1 + n | payload | signature 64
//
// Version 2 has began, version 1 has not: there it is the incarnation.
type datagram struct {
	what         what
	index, count uint8  // of a part
	incarnation  uint64 // when the sender began, in nanoseconds since 1970 by its clock, or more: what it says after another start has a larger one
	began        uint64 // when the sender began, by its clock
	sequence     uint64 // of the report among those of an incarnation, from 1
	sent         uint64 // nanoseconds since the incarnation began: no two beats have the same, so that none can be played again
	name         string // of the sender
	payload      []byte // of a part; in what wants a report, the name of the one that is asked, so that nobody else can be made to answer
}

const (
	version    = 1
	shifted    = 2 // the sender's clock was set back before it began, and so its incarnation is another than its clock
	shiftBytes = 8 // of began
	headBytes  = 1 + 1 + 1 + 1 + 8 + 8 + 8 + 1
	maxName    = 100 // octets
	maxPayload = MaxDatagram - headBytes - maxName - ed25519.SignatureSize
)

var errDatagram = errors.New("no datagram of reports")

// append encodes the datagram and signs it.
func (d *datagram) append(b []byte, key ed25519.PrivateKey) []byte {
	start := len(b)
	v := byte(version)
	if d.began != d.incarnation {
		v = shifted
	}
	b = append(b, v, byte(d.what), d.index, d.count)
	b = binary.BigEndian.AppendUint64(b, d.incarnation)
	b = binary.BigEndian.AppendUint64(b, d.sequence)
	b = binary.BigEndian.AppendUint64(b, d.sent)
	if v == shifted {
		b = binary.BigEndian.AppendUint64(b, d.began)
	}
	b = append(append(append(b, byte(len(d.name))), d.name...), d.payload...)
	return append(b, ed25519.Sign(key, b[start:])...)
}

// parse decodes a datagram, whose payload is a part of b. It does not verify the signature.
func parse(b []byte) (d datagram, signed, signature []byte, err error) {
	head := headBytes
	if first(b) == shifted {
		head += shiftBytes
	}
	if len(b) > MaxDatagram || len(b) < head+ed25519.SignatureSize || b[0] != version && b[0] != shifted {
		return d, nil, nil, fmt.Errorf("%w: %d octets, version %d", errDatagram, len(b), first(b))
	}
	signed, signature = b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	d = datagram{
		what: what(b[1]), index: b[2], count: b[3],
		incarnation: binary.BigEndian.Uint64(b[4:]), sequence: binary.BigEndian.Uint64(b[12:]),
		sent: binary.BigEndian.Uint64(b[20:]),
	}
	if d.began = d.incarnation; b[0] == shifted {
		if d.began = binary.BigEndian.Uint64(b[28:]); d.began == d.incarnation {
			return d, nil, nil, fmt.Errorf("%w: version %d where %d tells the same", errDatagram, shifted, version)
		}
	}
	rest, n := signed[head:], int(b[head-1])
	if n == 0 || n > maxName || n > len(rest) {
		return d, nil, nil, fmt.Errorf("%w: a name of %d octets", errDatagram, n)
	}
	d.name, d.payload = string(rest[:n]), rest[n:]
	switch {
	case d.what == part && d.count > 0 && d.count <= maxFragments && d.index < d.count && len(d.payload) > 0 && len(d.payload) <= maxPayload:
	case d.what == beat && len(d.payload) == 0 && d.count == 0 && d.index == 0:
	case d.what == wants && len(d.payload) > 0 && len(d.payload) <= maxName && d.count == 0 && d.index == 0:
	default:
		return d, nil, nil, fmt.Errorf("%w: kind %d, part %d of %d, %d octets", errDatagram, d.what, d.index, d.count, len(d.payload))
	}
	return d, signed, signature, nil
}

func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
