package simulations

import (
	"io"
	"net"
	"sync"
	"time"
)

// listener takes the streams that Network's dialers open.
type listener struct {
	at     *net.TCPAddr
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It closes the streams that nobody has accepted, too.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.accept:
			c.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.at }

// give hands a stream to whoever accepts next.
func (l *listener) give(c net.Conn) error {
	select {
	case l.accept <- c:
		return nil
	case <-l.closed:
		c.Close()
		return net.ErrClosed
	}
}

// stream is one end of a modelled TCP connection: what is written to one end is read at the other after a delay, in order.
// It is made of two pipes, which know deadlines, with a carrier for each direction between them.
type stream struct {
	net.Conn
	local, remote net.Addr
}

// LocalAddr implements net.Conn.
func (s stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s stream) RemoteAddr() net.Addr { return s.remote }

func (n *Network) stream(from, to net.Addr, delay time.Duration) (near, far net.Conn) {
	nearEnd, nearWire := net.Pipe()
	farEnd, farWire := net.Pipe()
	n.streams.Go(func() { carry(farWire, nearWire, delay) })
	n.streams.Go(func() { carry(nearWire, farWire, delay) })
	return stream{nearEnd, from, to}, stream{farEnd, to, from}
}

// window is how many writes can be under way in one direction; more wait.
const window = 1024

// carry takes what one end writes and gives it to the other, each piece after the delay, and then the end of the stream.
func carry(to io.WriteCloser, from io.Reader, delay time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
		last bool
	}
	flight := make(chan piece, window)
	go func() {
		defer close(flight)
		for {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			flight <- piece{buffer[:n], time.Now().Add(delay), err != nil}
			if err != nil {
				return
			}
		}
	}()
	for p := range flight {
		<-time.After(time.Until(p.due))
		if p.last {
			break
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	to.Close()
	for range flight { // the other end is gone: what is still written is lost
	}
}
