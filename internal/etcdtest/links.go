//go:build linux

package etcdtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
)

// links are the ways between members: each member is reached by an address of its own here, which passes connections on.
type links struct {
	memberOf func(port int) (string, error)
	running  sync.WaitGroup

	mu        sync.Mutex
	listeners map[string]net.Listener // by member
	isCut     map[string]bool
	open      map[net.Conn][2]string // both ends of each connection: from whom, to whom
}

func newLinks(memberOf func(port int) (string, error)) *links {
	return &links{memberOf: memberOf, listeners: map[string]net.Listener{}, isCut: map[string]bool{}, open: map[net.Conn][2]string{}}
}

// add makes a way to a member.
func (l *links) add(member, target string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.listeners[member] = listener
	l.mu.Unlock()
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.pass(conn, member, target) })
		}
	})
	return nil
}

// at returns the address by which others reach a member.
func (l *links) at(member string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listeners[member].Addr().String()
}

// pass passes a connection on, unless one of its ends is cut off.
func (l *links) pass(from net.Conn, member, target string) {
	defer from.Close()
	sender, err := l.memberOf(from.RemoteAddr().(*net.TCPAddr).Port)
	if err != nil {
		return // its process has ended
	}
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	if !l.note([2]string{sender, member}, from, to) {
		return
	}
	defer l.forget(from, to)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to) // until either side is closed
		from.Close()
	})
	_, _ = io.Copy(to, from)
	to.Close()
	back.Wait()
}

func (l *links) note(between [2]string, ends ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut[between[0]] || l.isCut[between[1]] {
		return false
	}
	for _, end := range ends {
		l.open[end] = between
	}
	return true
}

func (l *links) forget(ends ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range ends {
		delete(l.open, end)
	}
}

// cut cuts a member off, or ends that.
func (l *links) cut(member string, off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut[member] = off
	for end, between := range l.open {
		if off && (between[0] == member || between[1] == member) {
			end.Close()
		}
	}
}

func (l *links) close() {
	l.mu.Lock()
	for _, listener := range l.listeners {
		listener.Close()
	}
	for end := range l.open {
		end.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
}

// inodeOf returns the inode of the socket that has a local port of loopback and is connected.
func inodeOf(port int) (string, error) {
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer file.Close()
	local := fmt.Sprintf("0100007F:%04X", port)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == local && fields[9] != "0" {
			return fields[9], nil
		}
	}
	return "", fmt.Errorf("no connection from port %d", port)
}
