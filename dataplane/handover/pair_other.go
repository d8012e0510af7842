//go:build !linux

package handover

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// socketpair makes sockets that keep the bounds of packets.
func socketpair() ([2]int, error) {
	syscall.ForkLock.RLock() // no other process may inherit them before they are marked
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}
