package dns

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Limits of DNS over TCP and TLS.
const (
	streamIdleTimeout  = 10 * time.Second // since a question last came or was answered: a few seconds (RFC 7766 section 6.2.3)
	handshakeTimeout   = 5 * time.Second  // of TLS: several round trips around the world
	messageTimeout     = 5 * time.Second  // from the first octet of a question to the last, so that a trickle holds no place
	streamWriteTimeout = 5 * time.Second  // of one write, which is about 130 KB at most
	shutdownGrace      = 2 * time.Second  // for answers in flight when the server ends
	maxInFlight        = 64               // questions of one connection at a time; reading stops meanwhile
	readBuffer         = 2048             // octets: some dozens of pipelined questions
	acceptPause        = 10 * time.Millisecond
)

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// exchangeFunc answers a packet, as Server.exchange does.
type exchangeFunc func(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error

// streams serves what is not UDP.
type streams struct {
	exchange exchangeFunc
	open     *connections
}

func (s *Server) streams() streams { return streams{s.exchange, &s.connections} }

// Connections returns counts of the connections of each transport.
func (s *Server) Connections() ConnectionStats { return s.connections.stats() }

// streamWorks returns what serves the sockets other than UDP. Each function blocks until ctx ends, joins its goroutines and
// closes its socket.
func (s *Server) streamWorks(ctx context.Context, sockets Sockets) (works []func() error) {
	for _, l := range sockets.TCP {
		works = append(works, func() error { return s.serveStream(ctx, l, TCP, nil) })
	}
	for _, l := range sockets.TLS {
		works = append(works, func() error { return s.serveStream(ctx, l, TLS, sockets.Cert) })
	}
	for _, l := range sockets.HTTPS {
		works = append(works, func() error { return s.serveHTTPS(ctx, l, sockets.Cert) })
	}
	for _, conn := range sockets.QUIC {
		works = append(works, func() error { return s.serveHTTP3(ctx, conn, sockets.Cert) })
	}
	return works
}

// certFunc returns a certificate for a handshake.
type certFunc = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// serveStream serves DNS over TCP (RFC 7766) from a listener of TCP, or DNS over TLS (RFC 7858), until ctx ends; then questions
// in flight are answered. It closes the listener.
func (s *Server) serveStream(ctx context.Context, l net.Listener, over Transport, cert certFunc) error {
	var config *tls.Config
	if over == TLS {
		config = tlsConfig(cert, "dot")
	}
	return s.streams().serve(ctx, l, over, config)
}

// tlsConfig is the configuration of all our TLS. RFC 9325 section 3.1.1 asks for TLS 1.2 besides 1.3. Session tickets are on,
// as a resumed handshake needs no signature; their keys change daily and die with the process.
func tlsConfig(cert certFunc, protocols ...string) *tls.Config {
	return &tls.Config{GetCertificate: cert, NextProtos: protocols, MinVersion: tls.VersionTLS12}
}

// serve accepts connections until ctx ends. A configuration makes it TLS.
func (s streams) serve(ctx context.Context, l net.Listener, over Transport, config *tls.Config) error {
	grace, expire := context.WithCancel(context.WithoutCancel(ctx))
	defer expire()
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.Close()
	defer context.AfterFunc(serving, func() { l.Close() })()
	var running sync.WaitGroup
	for {
		conn, c, err := s.accept(serving, l, over)
		if err == nil {
			running.Go(func() {
				defer c.release()
				s.converse(serving, grace, conn, c, config)
			})
			continue
		}
		cancel() // after an error of the listener, too: its connections would never end otherwise
		defer time.AfterFunc(shutdownGrace, expire).Stop()
		running.Wait()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// accept returns the next connection that gets a place.
func (s streams) accept(ctx context.Context, l net.Listener, over Transport) (net.Conn, *connection, error) {
	for {
		conn, err := l.Accept()
		if err == nil && ctx.Err() != nil {
			conn.Close()
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, nil, err
		}
		if err != nil { // such as too many open files: others may end soon
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		if c := s.open.admit(peer(conn.RemoteAddr()).Addr(), over, func() { conn.Close() }); c != nil {
			return conn, c, nil
		}
		conn.Close()
	}
}

// converse serves one connection, until the client closes it, it idles, or ctx ends. When grace ends, it is cut off.
func (s streams) converse(ctx, grace context.Context, conn net.Conn, c *connection, config *tls.Config) {
	defer conn.Close()
	defer context.AfterFunc(grace, func() { conn.Close() })()
	if config == nil {
		s.answer(ctx, conn, c)
		return
	}
	secured := tls.Server(conn, config)
	hello, cancel := context.WithTimeout(ctx, handshakeTimeout)
	err := secured.HandshakeContext(hello)
	cancel()
	if err != nil {
		return // scanners, and clients that do not know our CA: nothing that an operator could do
	}
	s.answer(ctx, secured, c)
	secured.Close() // tells the client that this is the end and no attack (RFC 8446 section 6.1)
}

// answer answers the questions of a connection, each as soon as it can (RFC 7766 section 6.2.1.1): those that are faster
// overtake others. It returns when the last is answered. A client that has closed its half is still answered.
func (s streams) answer(ctx context.Context, conn net.Conn, c *connection) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(reading, func() { conn.SetReadDeadline(longAgo) })()
	var (
		from    = peer(conn.RemoteAddr())
		in      = questionReader{conn, bufio.NewReaderSize(conn, readBuffer), c}
		out     = newMessageWriter(conn, stop)
		slots   = make(chan struct{}, maxInFlight)
		running sync.WaitGroup
	)
	defer running.Wait()
	for {
		packet, err := in.next(reading)
		if err != nil {
			return
		}
		slots <- struct{}{} // this ends, as each write does
		c.begin()
		running.Go(func() {
			defer func() { c.end(); <-slots }()
			answered := false
			err := s.exchange(packet, from, c.over, func(message []byte) error {
				answered = true
				return out.write(message)
			})
			if err != nil || !answered {
				stop() // what deserves no answer is no question: whoever sends it is not in step with us, or hostile
			}
		})
	}
}

// questionReader reads the questions of a connection.
type questionReader struct {
	conn net.Conn
	in   *bufio.Reader
	c    *connection
}

// next returns the next question, or an error when none will come or ctx ends. Each deadline is set before ctx is looked at,
// because the end of ctx sets one that is over.
func (r questionReader) next(ctx context.Context) ([]byte, error) {
	for r.in.Buffered() == 0 {
		left := streamIdleTimeout - r.c.idleFor()
		if left <= 0 {
			return nil, os.ErrDeadlineExceeded
		}
		r.conn.SetReadDeadline(time.Now().Add(left))
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := r.in.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
	if !messageBuffered(r.in) {
		r.conn.SetReadDeadline(time.Now().Add(messageTimeout))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return readMessage(r.in)
}
