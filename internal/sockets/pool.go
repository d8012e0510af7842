// Package sockets opens the sockets of a server that must not miss a packet when it is replaced by a newer program: those
// that a predecessor or systemd has passed are taken over, others are bound, and all can be passed on to a successor.
//
// A socket that two processes hold is one socket with one queue: what has arrived is answered by whoever reads it first, so
// that nothing is lost between the moment when the successor begins and that when the predecessor ends.
package sockets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pool is the sockets of a process. It is not safe for concurrent use.
type Pool struct {
	spare []*os.File          // inherited sockets that nobody has asked for yet
	files map[string]*os.File // other inherited files, by name
	kept  []int               // a second descriptor of every socket in use, for a successor; it is never read, and needs no poller
	quiet bool                // no predecessor
}

// File returns a file that the predecessor has passed by a name, or nil. It is the caller's to close.
func (p *Pool) File(name string) *os.File {
	file := p.files[name]
	delete(p.files, name)
	return file
}

// Succeeds reports whether the process replaces another, which waits to be told that this one is ready.
func (p *Pool) Succeeds() bool { return !p.quiet }

// Stream returns a TCP listener of an address. Port 0 takes a free one.
func (p *Pool) Stream(at netip.AddrPort) (net.Listener, error) {
	file := p.take(at, unix.SOCK_STREAM)
	if file == nil {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), network("tcp", at), at.String())
		if err != nil {
			return nil, explain(at, err)
		}
		return l, p.keep(l.(*net.TCPListener))
	}
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take the socket of %v over: %w", at, err)
	}
	return l, p.keep(l.(*net.TCPListener))
}

// Packets returns UDP sockets of an address, n where the system can have several: each has then a queue of its own, and a
// client always comes to the same one. Of an inherited address there are as many queues as were inherited. Port 0 takes a
// free one.
func (p *Pool) Packets(at netip.AddrPort, n int) ([]*net.UDPConn, error) {
	var conns []*net.UDPConn
	fail := func(err error) ([]*net.UDPConn, error) {
		for _, c := range conns {
			c.Close()
		}
		return nil, err
	}
	for file := p.take(at, unix.SOCK_DGRAM); file != nil; file = p.take(at, unix.SOCK_DGRAM) {
		c, err := adopt(file)
		if err == nil {
			conns = append(conns, c)
			err = p.keep(c)
		}
		if err != nil {
			return fail(fmt.Errorf("take the socket of %v over: %w", at, err))
		}
	}
	if inherited := len(conns); inherited > 0 {
		for i := 0; len(conns) < n; i++ { // another user may own the port: one can join a queue, but not open one beside it
			c, err := again(conns[i%inherited])
			if err != nil {
				return fail(fmt.Errorf("share the socket of %v: %w", at, err))
			}
			conns = append(conns, c)
		}
		return conns, nil
	}
	if !manyQueues {
		n = 1
	}
	for range n {
		c, err := bind(at, n > 1, len(conns) == 0)
		if err == nil {
			conns = append(conns, c)
			at = c.LocalAddr().(*net.UDPAddr).AddrPort()
			err = p.keep(c)
		}
		if err != nil {
			return fail(explain(at, err))
		}
	}
	return conns, nil
}

// Both returns a TCP listener and UDP sockets of one address; port 0 takes one that is free for both.
func (p *Pool) Both(at netip.AddrPort, n int) (net.Listener, []*net.UDPConn, error) {
	var lastErr error
	for range 20 { // a port that is free for TCP may be taken for UDP
		mark := len(p.kept)
		stream, err := p.Stream(at)
		if err != nil {
			return nil, nil, err
		}
		packets, err := p.Packets(stream.Addr().(*net.TCPAddr).AddrPort(), n)
		if err == nil {
			return stream, packets, nil
		}
		stream.Close()
		p.release(mark)
		if lastErr = err; at.Port() != 0 {
			break
		}
	}
	return nil, nil, lastErr
}

// release closes what is kept from an index on.
func (p *Pool) release(from int) {
	for _, k := range p.kept[from:] {
		unix.Close(k)
	}
	p.kept = p.kept[:from]
}

// bind opens a UDP socket, which may share its port with others of this process. Before the first of them it asks whether the
// port is free: the sharing would hide another program of the same user on it.
func bind(at netip.AddrPort, shared, first bool) (*net.UDPConn, error) {
	if shared && first && at.Port() != 0 {
		c, err := net.ListenUDP(network("udp", at), net.UDPAddrFromAddrPort(at))
		if err != nil {
			return nil, err
		}
		c.Close()
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error {
			if shared {
				if err := shareAddress(fd); err != nil {
					return err
				}
			}
			return tune(fd, at.Addr())
		})
	}}
	c, err := config.ListenPacket(context.Background(), network("udp", at), at.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// adopt makes an inherited file a UDP socket. The file is closed.
func adopt(file *os.File) (*net.UDPConn, error) {
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, errors.New("it is not UDP")
	}
	raw, err := udp.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error { return tune(fd, udp.LocalAddr().(*net.UDPAddr).AddrPort().Addr()) })
	}
	return udp, err
}

// again returns another descriptor of a socket.
func again(c *net.UDPConn) (*net.UDPConn, error) {
	fd, err := duplicate(c)
	if err != nil {
		return nil, err
	}
	return adopt(os.NewFile(uintptr(fd), c.LocalAddr().String()))
}

// keep remembers a socket for a successor.
func (p *Pool) keep(c syscall.Conn) error {
	fd, err := duplicate(c)
	if err == nil {
		p.kept = append(p.kept, fd)
	}
	return err
}

// duplicate returns another descriptor of a socket. File would do too, but its Fd makes the socket blocking for all who have it.
func duplicate(c syscall.Conn) (duplicate int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = control(raw, func(fd int) (err error) {
		duplicate, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	return duplicate, err
}

func control(raw syscall.RawConn, do func(fd int) error) error {
	var err error
	return cmp.Or(raw.Control(func(fd uintptr) { err = do(int(fd)) }), err)
}

// Unused closes the inherited sockets that nobody has asked for, and returns their addresses.
func (p *Pool) Unused() []string {
	var unused []string
	for _, file := range p.spare {
		unused = append(unused, describe(int(file.Fd())))
		file.Close()
	}
	p.spare = nil
	return unused
}

// Close closes what the pool keeps: from now on the sockets end with those that were handed out.
func (p *Pool) Close() {
	p.Unused()
	p.release(0)
	for _, file := range p.files {
		file.Close()
	}
}

// network returns the network of an address: one that never takes both families.
func network(kind string, at netip.AddrPort) string {
	if at.Addr().Is4() {
		return kind + "4"
	}
	return kind + "6"
}

func explain(at netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%v is taken by another program: %w", at, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%v needs CAP_NET_BIND_SERVICE, or a start as root: %w", at, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%v is no address of this machine: %w", at, err)
	}
	return err
}
