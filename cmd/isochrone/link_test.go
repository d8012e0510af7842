package main

import (
	"io"
	"net"
	"sync"
	"testing"
)

// link is a way to a server over TCP that can be cut: then nothing comes through, and nobody is told, as when packets are lost. What was on
// its way then arrives when it is mended.
type link struct {
	at string // the address on this side

	mu    sync.Mutex
	open  *sync.Cond
	isCut bool
	ended bool
	conns map[net.Conn]bool
}

// newLink makes a link, until the test ends.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{at: listener.Addr().String(), conns: map[net.Conn]bool{}}
	l.open = sync.NewCond(&l.mu)
	var passing sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		l.ended, l.isCut = true, false
		for c := range l.conns {
			c.Close()
		}
		l.open.Broadcast()
		l.mu.Unlock()
		passing.Wait()
	})
	passing.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { l.pass(from, to) })
		}
	})
	return l
}

// cut has nothing come through.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
}

// mend has all come through again.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = false
	l.open.Broadcast()
}

// await returns when the link is not cut.
func (l *link) await() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.isCut {
		l.open.Wait()
	}
}

// pass passes one connection on.
func (l *link) pass(from net.Conn, to string) {
	defer from.Close()
	l.await()
	other, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer other.Close()
	l.mu.Lock()
	ended := l.ended
	l.conns[from], l.conns[other] = true, true
	l.mu.Unlock()
	if ended {
		return
	}
	defer func() {
		l.mu.Lock()
		delete(l.conns, from)
		delete(l.conns, other)
		l.mu.Unlock()
	}()
	var both sync.WaitGroup
	copyOver := func(to, from net.Conn) {
		io.Copy(gate{to, l}, from)
		l.await()
		to.Close()
		from.Close()
	}
	both.Go(func() { copyOver(other, from) })
	both.Go(func() { copyOver(from, other) })
	both.Wait()
}

// gate writes when a link is not cut.
type gate struct {
	net.Conn
	*link
}

// Write implements io.Writer.
func (g gate) Write(data []byte) (int, error) {
	g.await()
	return g.Conn.Write(data)
}
