package sockets

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// manyQueues says whether an address can have several UDP sockets, among which the system shares the packets out.
const manyQueues = true

// receiveBuffer is how many bytes a UDP socket holds that nobody has read yet: the usual 208 KiB hold fewer than 512 questions.
const receiveBuffer = 1 << 20

func shareAddress(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }

// tune makes a UDP socket that of a DNS server. Path MTUs are not learnt, so that nobody can have answers sent in fragments by a
// forged ICMP message (RFC 9715 section 3.1); this spares the kernel the choice of an IP identification, too.
func tune(fd int, addr netip.Addr) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil { // without CAP_NET_ADMIN
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return err
		}
	}
	if addr.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
}
