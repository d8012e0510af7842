package dataplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
	"github.com/isochrone/isochrone/internal/problem"
)

// tcpServer is HTTP/2 and HTTP/1.1 on one socket.
type tcpServer struct {
	front    *Front
	http     *http.Server
	listener *countedListener
	begun    atomic.Int64 // connections without a request yet
	settling atomic.Bool
}

// suites are those of TLS 1.2, where it is asked for: with forward secrecy and authenticated encryption.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func (f *Front) newTCPServer(l Listeners) *tcpServer {
	var fields []exchange.Field
	if addr, ok := l.TCP.Addr().(*net.TCPAddr); ok && l.UDP != nil {
		fields = []exchange.Field{{Name: "alt-svc", Value: fmt.Sprintf(`h3=":%d"; ma=86400`, addr.Port)}} // RFC 7838
	}
	answer := exchange.Serve(f, fields...)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header) > maxHeaderFields {
			problem.Write(w, http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("a request has at most %d header fields", maxHeaderFields))
			return
		}
		answer.ServeHTTP(w, r)
	})
	config := l.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	if f.config.TLS12 {
		config.MinVersion, config.CipherSuites = tls.VersionTLS12, suites
	}
	config.NextProtos = []string{"h2", "http/1.1"}
	s := &tcpServer{front: f}
	s.listener = &countedListener{Listener: l.TCP, server: s}
	s.http = &http.Server{
		Handler: handler, TLSConfig: f.limits.paced(withTickets(config, l.TicketKeys)),
		ReadHeaderTimeout: handshakeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: f.limits.Streams, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10,
			WriteByteTimeout: writeTimeout, SendPingTimeout: idleTimeout / 2, PingTimeout: idleTimeout / 2,
		},
		ConnState: func(c net.Conn, is http.ConnState) {
			if is != http.StateNew {
				connectionOver(c).served()
			}
		},
		ErrorLog: slog.NewLogLogger(f.config.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, connectionOver(c))
		},
	}
	if err := s.serveHTTP2(); err != nil {
		panic(err) // it is about the configuration above
	}
	return s
}

// connectionOver returns the connection that TLS runs over.
func connectionOver(c net.Conn) *connection {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok { // *tls.Conn, or what has one in it
		c = wrapped.NetConn()
	}
	return c.(*countedConn).connection
}

func (s *tcpServer) serve() error {
	if err := s.http.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) && !s.settling.Load() {
		return fmt.Errorf("HTTP/2: %w", err)
	}
	return nil
}

// settle has the other process accept all further connections. Those of here become known to net/http with their first request, and
// only such are told to go.
func (s *tcpServer) settle(ctx context.Context) {
	s.settling.Store(true)
	s.listener.Close()
	s.front.when(ctx, func() bool { return s.begun.Load() == 0 })
}

func (s *tcpServer) drain(ctx context.Context) { _ = s.http.Shutdown(ctx) } // an error means that the time is over

func (s *tcpServer) close() { s.http.Close() }

// countedListener accepts the connections that the limits allow. Others are reset at once.
type countedListener struct {
	net.Listener
	server *tcpServer
}

// Accept implements net.Listener.
func (l *countedListener) Accept() (net.Conn, error) {
	f := l.server.front
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		end, err := f.limits.begin(addrOf(conn.RemoteAddr()), true, true)
		if err != nil {
			f.refused.Add(1)
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset leaves nothing behind
			}
			conn.Close()
			continue
		}
		f.tcp.Add(1)
		c := &connection{began: f.began, linger: func() time.Duration { return time.Second }} // net/http ends it before
		l.server.begun.Add(1)
		c.served = sync.OnceFunc(func() { l.server.begun.Add(-1) })
		c.moved()
		remove := f.connections.add(c)
		counted := &countedConn{Conn: conn, connection: c, closed: make(chan struct{}), front: f}
		counted.end = sync.OnceFunc(func() {
			close(counted.closed)
			remove()
			c.served()
			f.tcp.Add(-1)
			end()
		})
		c.close = func(string) { counted.Close() }
		c.charge = func() { f.limits.charge(addrOf(conn.RemoteAddr())) }
		return counted, nil
	}
}

// countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	connection *connection
	end        func() // of its count; once
	closed     chan struct{}
	front      *Front
	slow       int // reads that are; of the one who reads alone
}

// Read implements net.Conn. While the connection is paused it waits: what the client sends stays in the kernel's buffer, and then with
// the client. What is read after that comes in small pieces, so that the next pause comes in time.
func (c *countedConn) Read(p []byte) (int, error) {
	if c.slow > 0 { // those who work on what was read last come first
		wait(slowGap, c.closed)
	}
	for until := c.connection.turn.Load(); until > 0; until = c.connection.turn.Load() {
		c.front.overload.Await(overload.Turn(until), c.closed, nil)
		c.connection.turn.CompareAndSwap(until, 0)
		c.slow = slowReads
	}
	if long := time.Duration(c.connection.deaf.Load()) - c.connection.now(); long > 0 {
		wait(long, c.closed)
		c.slow = slowReads
	}
	if c.slow > 0 {
		c.slow--
		p = p[:min(len(p), slowRead)]
	}
	return c.Conn.Read(p)
}

// After a pause, so many reads are of slowRead octets at most, slowGap apart.
const (
	slowReads = 16
	slowRead  = 4 << 10
	slowGap   = time.Millisecond
)

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// wait waits for a while, or until the connection has ended.
func wait(long time.Duration, ended <-chan struct{}) {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	}
}
