package handover

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Pair returns the two ends of a connection that packets are passed by: one for this process, and a file for the next one.
func Pair() (net.Conn, *os.File, error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, fmt.Errorf("connect two processes: %w", err)
	}
	for _, fd := range fds {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, queueBytes) // the system has a maximum
	}
	own, err := Conn(os.NewFile(uintptr(fds[0]), "handover"))
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return own, os.NewFile(uintptr(fds[1]), "handover"), nil
}

// queueBytes is how much a process may be behind.
const queueBytes = 1 << 20

// Conn makes a connection of a file of Pair, which is closed.
func Conn(file *os.File) (net.Conn, error) {
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("connect two processes: %w", err)
	}
	return c, nil
}
