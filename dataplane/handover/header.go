package handover

// Destination returns the destination connection id of a datagram's first packet (RFC 8999 sections 5.1 and 5.2), if it has the
// length that ours have. Others are of clients that do not know our id yet.
func Destination(datagram []byte) (id [Length]byte, ok bool) {
	const longForm = 0x80
	if len(datagram) == 0 {
		return id, false
	}
	rest := datagram[1:]
	if datagram[0]&longForm != 0 {
		const version = 4
		if len(rest) < version+1 || rest[version] != Length {
			return id, false
		}
		rest = rest[version+1:]
	}
	return id, copy(id[:], rest) == Length
}
