package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFile is the descriptor of the first file that is passed to a process, after its standard streams.
const firstFile = 3

// variable names the files that a predecessor passes: name=descriptor, separated by spaces.
const variable = "ISOCHRONE_SOCKETS"

// socketName is the name of every socket among them: which is which tells its address.
const socketName = "socket"

// Inherit returns a pool with the files that a predecessor, or systemd (sd_listen_fds(3)), has passed to this process. The
// environment forgets them.
func Inherit() (*Pool, error) {
	p := &Pool{files: map[string]*os.File{}}
	passed, succeeds := os.LookupEnv(variable)
	p.quiet = !succeeds
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	for _, entry := range strings.Fields(passed) {
		name, number, _ := strings.Cut(entry, "=")
		fd, err := strconv.Atoi(number)
		if err != nil || fd < firstFile {
			return nil, fmt.Errorf("%s has %q: want NAME=DESCRIPTOR", variable, entry)
		}
		p.inherit(name, fd)
	}
	if pid != strconv.Itoa(os.Getpid()) { // they are for another process
		return p, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS is %q: want the number of sockets", count)
	}
	for fd := firstFile; fd < firstFile+n; fd++ {
		p.inherit(socketName, fd)
	}
	return p, nil
}

func (p *Pool) inherit(name string, fd int) {
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), name)
	if name == socketName {
		p.spare = append(p.spare, file)
	} else {
		p.files[name] = file
	}
}

// take returns the next inherited socket of a kind and an address, or nil. Port 0 stands for any.
func (p *Pool) take(at netip.AddrPort, kind int) *os.File {
	for i, file := range p.spare {
		fd := int(file.Fd())
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if addr, ok := localAddress(fd); err == nil && ok && got == kind && (addr == at || at.Port() == 0 && addr.Addr() == at.Addr()) {
			p.spare = append(p.spare[:i:i], p.spare[i+1:]...)
			return file
		}
	}
	return nil
}

// localAddress returns what a socket is bound to.
func localAddress(fd int) (netip.AddrPort, bool) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port)), true
	}
	return netip.AddrPort{}, false
}

func describe(fd int) string {
	if at, ok := localAddress(fd); ok {
		return at.String()
	}
	return "a socket of another kind"
}
