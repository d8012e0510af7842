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

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/netutil"
)

// Limits of the transports.
const (
	maxConnections   = 20_000           // over QUIC at a time, and half of it over TCP; more are refused
	retryConnections = 2_000            // over which a new QUIC client must prove its address first (RFC 9000 section 8.1.2)
	maxStreams       = 128              // requests at a time on one connection
	maxHeader        = 16 << 10         // octets of a request's header
	handshakeTimeout = 5 * time.Second  // of TLS, and to receive a header over TCP
	idleTimeout      = 30 * time.Second // of a connection
	shutdownGrace    = time.Second      // for requests in flight
)

// Listeners are the sockets of one address that a PoP serves on. Run closes them.
type Listeners struct {
	UDP net.PacketConn // HTTP/3
	TCP net.Listener   // HTTP/2 and HTTP/1.1; nil for none
	TLS *tls.Config    // with a way to get certificates; protocols and versions are set by Run
}

func (l Listeners) close() {
	l.UDP.Close()
	if l.TCP != nil {
		l.TCP.Close()
	}
}

// serve serves until ctx ends or a socket fails, and lets the requests in flight end.
func (p *PoP) serve(ctx context.Context, sockets []Listeners) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		running  sync.WaitGroup
		failures = make(chan error, 3*len(sockets))
	)
	run := func(what string, work func() error) {
		running.Go(func() {
			if err := work(); err != nil && ctx.Err() == nil {
				failures <- fmt.Errorf("%s: %w", what, err)
				cancel()
			}
		})
	}
	var shutdowns []func(context.Context)
	for _, l := range sockets {
		quicServer, err := p.listenQUIC(l)
		if err != nil {
			run("HTTP/3", func() error { return err })
			shutdowns = append(shutdowns, func(context.Context) { l.close() })
			continue
		}
		run("HTTP/3", quicServer.serve)
		shutdowns = append(shutdowns, quicServer.shutdown)
		if l.TCP == nil {
			continue
		}
		server := p.tcpServer(l)
		run("HTTP/2", func() error { return server.ServeTLS(netutil.LimitListener(l.TCP, maxConnections/2), "", "") })
		shutdowns = append(shutdowns, func(grace context.Context) {
			if server.Shutdown(grace) != nil {
				server.Close()
			}
		})
	}
	<-ctx.Done()
	close(p.stopping)
	grace, release := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer release()
	var ending sync.WaitGroup
	for _, shutdown := range shutdowns {
		ending.Go(func() { shutdown(grace) })
	}
	ending.Wait()
	running.Wait()
	close(failures)
	var all []error
	for err := range failures {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// quicServer is HTTP/3 on one socket.
type quicServer struct {
	socket    net.PacketConn
	transport *quic.Transport
	listener  *quic.EarlyListener
	http      *http3.Server
}

func (p *PoP) listenQUIC(l Listeners) (*quicServer, error) {
	var open atomic.Int64
	s := &quicServer{socket: l.UDP, http: &http3.Server{
		Handler: p, MaxHeaderBytes: maxHeader, IdleTimeout: idleTimeout, Logger: slog.New(slog.DiscardHandler),
	}}
	s.transport = &quic.Transport{
		Conn:                l.UDP,
		VerifySourceAddress: func(net.Addr) bool { return open.Load() > retryConnections },
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			if open.Load() >= maxConnections {
				return nil, errors.New("too many connections")
			}
			open.Add(1)
			p.counts.quic.Add(1)
			context.AfterFunc(ctx, func() {
				open.Add(-1)
				p.counts.quic.Add(-1)
			})
			return ctx, nil
		},
	}
	config := l.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	var err error
	s.listener, err = s.transport.ListenEarly(http3.ConfigureTLSConfig(config), &quic.Config{
		HandshakeIdleTimeout: handshakeTimeout, MaxIdleTimeout: idleTimeout, MaxIncomingStreams: maxStreams, MaxIncomingUniStreams: 8,
	})
	if err != nil {
		return nil, errors.Join(err, s.transport.Close())
	}
	return s, nil
}

func (s *quicServer) serve() error {
	if err := s.http.ServeListener(s.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, quic.ErrServerClosed) {
		return err
	}
	return nil
}

// shutdown tells clients to go, waits for the requests in flight, and closes everything.
func (s *quicServer) shutdown(grace context.Context) {
	_ = s.http.Shutdown(grace) // an error means that the grace is over
	s.http.Close()
	s.listener.Close()
	s.transport.Close()
	s.socket.Close()
}

func (p *PoP) tcpServer(l Listeners) *http.Server {
	handler := http.Handler(p)
	if addr, ok := l.TCP.Addr().(*net.TCPAddr); ok && l.UDP != nil {
		service := fmt.Sprintf(`h3=":%d"; ma=86400`, addr.Port)
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Alt-Svc", service) // RFC 7838
			p.ServeHTTP(w, r)
		})
	}
	config := l.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{"h2", "http/1.1"}
	return &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: handshakeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog: slog.NewLogLogger(p.config.Log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, now http.ConnState) {
			switch now {
			case http.StateNew:
				p.counts.tcp.Add(1)
			case http.StateClosed, http.StateHijacked:
				p.counts.tcp.Add(-1)
			}
		},
	}
}
