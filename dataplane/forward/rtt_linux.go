package forward

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rtt returns the smoothed round-trip time that the kernel has of a connection, 0 when it is no TCP connection.
func (c *conn) rtt() time.Duration {
	socket, ok := c.raw.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	var rtt time.Duration
	_ = raw.Control(func(fd uintptr) { // an error means that it is closed
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			rtt = time.Duration(info.Rtt) * time.Microsecond
		}
	})
	return rtt
}
