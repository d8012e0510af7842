package handover

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// readControl takes from a packet's control messages what belongs to it.
func (p *Packet) readControl(oob []byte) {
	for len(oob) > 0 {
		header, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_TOS && len(body) >= 1:
			p.ECN = body[0] & 3
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_TCLASS && len(body) >= 4:
			p.ECN = uint8(binary.NativeEndian.Uint32(body)) & 3
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(body) >= 12:
			p.Interface, p.Destination = binary.NativeEndian.Uint32(body), netip.AddrFrom4([4]byte(body[8:12]))
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(body) >= 20:
			p.Destination, p.Interface = netip.AddrFrom16([16]byte(body)).Unmap(), binary.NativeEndian.Uint32(body[16:])
		}
		oob = rest
	}
}

// writeControl writes the control messages of a packet as the kernel would, and returns their length; nothing where there is no room.
func (p *Packet) writeControl(oob []byte) int {
	length := 0
	add := func(level, kind int32, body []byte) {
		space := unix.CmsgSpace(len(body))
		if length+space > len(oob) {
			return
		}
		b := oob[length : length+space]
		clear(b)
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(body)))) // struct cmsghdr of 64-bit machines
		binary.NativeEndian.PutUint32(b[8:], uint32(level))
		binary.NativeEndian.PutUint32(b[12:], uint32(kind))
		copy(b[unix.CmsgLen(0):], body)
		length += space
	}
	if p.Source.Addr().Is4() {
		add(unix.IPPROTO_IP, unix.IP_TOS, []byte{p.ECN})
	} else {
		add(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, binary.NativeEndian.AppendUint32(nil, uint32(p.ECN)))
	}
	switch {
	case p.Destination.Is4():
		body := binary.NativeEndian.AppendUint32(nil, p.Interface)
		a := p.Destination.As4()
		add(unix.IPPROTO_IP, unix.IP_PKTINFO, append(append(body, a[:]...), a[:]...))
	case p.Destination.Is6():
		a := p.Destination.As16()
		add(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, binary.NativeEndian.AppendUint32(a[:], p.Interface))
	}
	return length
}
