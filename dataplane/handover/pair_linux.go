package handover

import "golang.org/x/sys/unix"

// socketpair makes sockets that keep the bounds of packets and tell when the other end is closed.
func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}
