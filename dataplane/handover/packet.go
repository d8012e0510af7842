package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Packet is a datagram as it arrived.
type Packet struct {
	Source      netip.AddrPort
	Destination netip.Addr // the address of this machine that it came to; invalid where the socket has one address only
	Port        uint16     // of this machine that it came to; 0 between processes of one PoP, who have the same socket
	Interface   uint32     // that it came by; 0 with no Destination
	ECN         uint8      // two bits (RFC 3168)
	Data        []byte
}

// maxDatagram is the longest datagram that is passed on: QUIC's are as long as what a path can carry, and quic-go reads no more.
const maxDatagram = 1500

// maxPassed is the longest encoding of a packet.
const maxPassed = 1 + 1 + 1 + 16 + 2 + 1 + 16 + 2 + 4 + maxDatagram

const format = 2

var errPacket = errors.New("a passed packet is malformed")

// Append appends the encoding of a packet: the format (1), ECN, source address and port, destination address, port and interface, and
// the data. An address has its length before it: 4, 16, or 0 for none.
func (p *Packet) Append(b []byte) []byte {
	b = append(b, format, p.ECN)
	b = appendAddr(b, p.Source.Addr())
	b = binary.BigEndian.AppendUint16(b, p.Source.Port())
	b = appendAddr(b, p.Destination)
	b = binary.BigEndian.AppendUint16(b, p.Port)
	b = binary.BigEndian.AppendUint32(b, p.Interface)
	return append(b, p.Data...)
}

// Decode reads the encoding of a packet. Data is a part of b. Addresses are unmapped and have no zone.
func Decode(b []byte) (Packet, error) {
	if len(b) < 2 || b[0] != format {
		return Packet{}, fmt.Errorf("%w: want format %d", errPacket, format)
	}
	p := Packet{ECN: b[1]}
	if p.ECN > 3 {
		return Packet{}, fmt.Errorf("%w: ECN %d has more than two bits", errPacket, p.ECN)
	}
	source, b, err := cutAddr(b[2:])
	if err != nil {
		return Packet{}, err
	}
	if !source.IsValid() || len(b) < 2 {
		return Packet{}, fmt.Errorf("%w: no source", errPacket)
	}
	p.Source = netip.AddrPortFrom(source, binary.BigEndian.Uint16(b))
	if p.Destination, b, err = cutAddr(b[2:]); err != nil {
		return Packet{}, err
	}
	if len(b) < 6 || len(b) > 6+maxDatagram {
		return Packet{}, fmt.Errorf("%w: %d octets after the addresses", errPacket, len(b))
	}
	p.Port, p.Interface, p.Data = binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:]), b[6:]
	return p, nil
}

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := a.Unmap().WithZone("").AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

func cutAddr(b []byte) (netip.Addr, []byte, error) {
	if len(b) == 0 {
		return netip.Addr{}, nil, fmt.Errorf("%w: it ends before an address", errPacket)
	}
	n := int(b[0])
	if n != 0 && n != 4 && n != 16 || len(b) < 1+n {
		return netip.Addr{}, nil, fmt.Errorf("%w: an address of %d octets", errPacket, n)
	}
	a, _ := netip.AddrFromSlice(b[1 : 1+n])
	return a.Unmap(), b[1+n:], nil
}
