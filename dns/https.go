package dns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Limits of DNS over HTTPS, beside those of connections.
const (
	httpIdleTimeout = 10 * time.Second // as over TCP
	maxHeaderOctets = 16 << 10         // the longest question in a URL fits twice
	maxBodiesQueued = 256 << 10        // octets of requests of one connection that are received and not yet read
	maxBodyQueued   = 64 << 10         // of one request: one DNS message
	maxUniStreams   = 8                // of HTTP/3, which uses three (RFC 9114 section 6.2)

	// retryHandshakes is how many QUIC handshakes may be under way before a newcomer must prove its address (RFC 9000 section 8.1.2).
	// It is less than mostOfPrefix: so nobody can take the places of a network by packets in its name.
	retryHandshakes = mostOfPrefix / 2
)

// serveHTTPS serves DNS over HTTP/2 and HTTP/1.1 from a listener of TCP until ctx ends; then requests in flight are answered. It
// closes the listener.
func (s *Server) serveHTTPS(ctx context.Context, l net.Listener, cert certFunc) error {
	var handler http.Handler = dohHandler{s.streams()}
	if at := peer(l.Addr()); at.IsValid() {
		handler = announceHTTP3(handler, &s.http3, at)
	}
	server := &http.Server{
		Handler: handler, TLSConfig: tlsConfig(cert, "h2", "http/1.1"),
		ReadHeaderTimeout: handshakeTimeout, ReadTimeout: handshakeTimeout + messageTimeout, WriteTimeout: handshakeTimeout + streamWriteTimeout,
		IdleTimeout: httpIdleTimeout, MaxHeaderBytes: maxHeaderOctets,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxInFlight, MaxReceiveBufferPerConnection: maxBodiesQueued, MaxReceiveBufferPerStream: maxBodyQueued,
		},
		ErrorLog: log.New(io.Discard, "", 0), // it tells of clients only: who they are is not ours to keep
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return withConnection(ctx, conn.(*tls.Conn).NetConn().(*placedConn).c)
		},
	}
	var running sync.WaitGroup
	var failure error
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	running.Go(func() {
		defer cancel()
		failure = server.ServeTLS(placingListener{l, s.streams(), serving}, "", "")
	})
	<-serving.Done()
	l.Close()
	grace, release := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer release()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	running.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return failure
}

// placingListener accepts connections that have a place among all.
type placingListener struct {
	net.Listener
	streams
	ctx context.Context // of the server, as Accept has none
}

func (l placingListener) Accept() (net.Conn, error) {
	conn, c, err := l.accept(l.ctx, l.Listener, HTTPS)
	if err != nil {
		return nil, err
	}
	return &placedConn{conn, c}, nil
}

// placedConn gives its place back when it is closed.
type placedConn struct {
	net.Conn
	c *connection
}

func (c *placedConn) Close() error {
	c.c.release()
	return c.Conn.Close()
}

// announceHTTP3 tells clients of HTTP/3 while it is served at the address of a listener (RFC 7838).
func announceHTTP3(next http.Handler, served *addresses, at netip.AddrPort) http.Handler {
	service := fmt.Sprintf(`h3=":%d"; ma=86400`, at.Port())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.has(at) {
			w.Header().Set("Alt-Svc", service)
		}
		next.ServeHTTP(w, r)
	})
}

// addresses is a set of addresses. The zero value is empty.
type addresses struct{ all sync.Map }

func (a *addresses) add(at netip.AddrPort)      { a.all.Store(at, true) }
func (a *addresses) remove(at netip.AddrPort)   { a.all.Delete(at) }
func (a *addresses) has(at netip.AddrPort) bool { _, found := a.all.Load(at); return found }

// serveHTTP3 serves DNS over HTTP/3 from a socket until ctx ends; then requests in flight are answered. It closes the socket.
//
// Early data (0-RTT) is off. It may be replayed, which RFC 8446 section 8 lets an application allow where it does no harm; a
// question does none. But it would have us work for clients that have not yet proved their address, to save one round trip of a
// connection that asks many questions.
func (s *Server) serveHTTP3(ctx context.Context, conn net.PacketConn, cert certFunc) error {
	defer conn.Close()
	transport := &quic.Transport{
		Conn:                conn,
		VerifySourceAddress: func(net.Addr) bool { return s.connections.handshakes.Load() >= retryHandshakes },
		ConnContext:         s.connections.admitQUIC,
	}
	defer transport.Close()
	config := tlsConfig(cert)
	config.MinVersion = tls.VersionTLS13
	// Not ListenEarly: a connection that Accept returns has finished its handshake, and so proved its address.
	listener, err := transport.Listen(http3.ConfigureTLSConfig(config), &quic.Config{
		HandshakeIdleTimeout: handshakeTimeout, MaxIdleTimeout: httpIdleTimeout,
		MaxIncomingStreams: maxInFlight, MaxIncomingUniStreams: maxUniStreams,
		InitialStreamReceiveWindow: maxBodyQueued, MaxStreamReceiveWindow: maxBodyQueued,
		InitialConnectionReceiveWindow: maxBodiesQueued, MaxConnectionReceiveWindow: maxBodiesQueued,
	})
	if err != nil {
		return fmt.Errorf("serve HTTP/3 at %s: %w", conn.LocalAddr(), err)
	}
	server := &http3.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(messageTimeout + streamWriteTimeout))
			dohHandler{s.streams()}.ServeHTTP(w, r)
		}),
		MaxHeaderBytes: maxHeaderOctets, IdleTimeout: httpIdleTimeout, Logger: slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, conn *quic.Conn) context.Context {
			c := conn.Context().Value(connectionKey{}).(*connection)
			c.proved()
			evicted, evict := context.WithCancel(conn.Context())
			context.AfterFunc(evicted, func() { _ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "") })
			c.evictBy(evict)
			return withConnection(ctx, c)
		},
	}
	at := peer(conn.LocalAddr())
	s.http3.add(at)
	defer s.http3.remove(at)
	return serveListener(ctx, server, listener)
}

// serveListener serves until ctx ends or the listener fails, and returns when all its connections are closed.
func serveListener(ctx context.Context, server *http3.Server, listener *quic.Listener) error {
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var failure error
	running.Go(func() {
		defer cancel()
		failure = server.ServeListener(listener)
	})
	<-serving.Done()
	grace, release := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer release()
	_ = server.Shutdown(grace) // an error means that the grace is over
	server.Close()
	listener.Close()
	running.Wait()
	if ctx.Err() != nil || errors.Is(failure, http.ErrServerClosed) {
		return nil
	}
	return failure
}

// admitQUIC gives a QUIC connection its place before the handshake.
func (t *connections) admitQUIC(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	c := t.admit(peer(info.RemoteAddr).Addr(), HTTPS, nil)
	if c == nil {
		return nil, errors.New("too many connections")
	}
	t.handshakes.Add(1)
	c.proved = sync.OnceFunc(func() { t.handshakes.Add(-1) })
	context.AfterFunc(ctx, func() { c.proved(); c.release() })
	return withConnection(ctx, c), nil
}
