package dataplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/dataplane/h3"
)

// quicServer is HTTP/3 on one socket.
type quicServer struct {
	front     *Front
	socket    net.PacketConn
	transport *quic.Transport
	listener  *quic.EarlyListener
	http      *h3.Server
	begun     atomic.Int64 // connections that have begun, and are not served yet
	accepting context.Context
	stop      context.CancelFunc
	serving   sync.WaitGroup
}

func (f *Front) listenQUIC(l Listeners) (*quicServer, error) {
	s := &quicServer{front: f, socket: l.UDP, http: h3.New(h3.Config{
		Handler: f, Overload: f.overload, MaxHeaderBytes: maxHeader, HeaderTimeout: handshakeTimeout, WriteTimeout: writeTimeout, Log: f.config.Log,
	})}
	s.accepting, s.stop = context.WithCancel(context.Background())
	s.transport = &quic.Transport{
		Conn:                  l.UDP,
		ConnectionIDGenerator: l.ConnectionIDs,
		VerifySourceAddress: func(from net.Addr) bool {
			return f.limits.suspicious(addrOf(from)) || f.overload.Busy()
		},
		ConnContext: s.admit,
	}
	config := l.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{http3.NextProtoH3}
	var err error
	s.listener, err = s.transport.ListenEarly(f.limits.paced(withTickets(config, l.TicketKeys)), f.quicConfig())
	if err != nil {
		return nil, errors.Join(err, s.transport.Close())
	}
	return s, nil
}

// quicConfig returns a configuration whose windows are small: they are what a client may have us hold that nobody has read yet.
func (f *Front) quicConfig() *quic.Config {
	later := &quic.Config{
		HandshakeIdleTimeout: handshakeTimeout, MaxIdleTimeout: idleTimeout,
		MaxIncomingStreams: int64(f.limits.Streams), MaxIncomingUniStreams: maxUniStreams,
		InitialStreamReceiveWindow: streamWindow, InitialConnectionReceiveWindow: connectionWindow,
		MaxStreamReceiveWindow: maxStreamWindow, MaxConnectionReceiveWindow: maxConnWindow,
		AllowConnectionWindowIncrease: f.grow,
	}
	early := later.Clone()
	early.Allow0RTT = true
	config := later.Clone()
	config.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) {
		if f.config.Early() {
			return early, nil
		}
		return later, nil
	}
	return config
}

// grow lets the windows of clients that have much to send grow, until it is too much in all.
func (f *Front) grow(c *quic.Conn, octets uint64) bool {
	if f.grown.Add(int64(octets)) > maxGrownWindows {
		f.grown.Add(-int64(octets))
		return false
	}
	context.AfterFunc(c.Context(), func() { f.grown.Add(-int64(octets)) })
	return true
}

// admit counts a connection that begins, or refuses it.
func (s *quicServer) admit(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
	f := s.front
	select {
	case <-f.draining:
		if !f.handedOver.Load() {
			return nil, errEnding
		}
	default:
	}
	end, err := f.limits.begin(addrOf(client.RemoteAddr), client.AddrVerified, false)
	if err != nil {
		f.refused.Add(1)
		return nil, err
	}
	f.quic.Add(1)
	s.begun.Add(1)
	c := &connection{began: f.began, served: sync.OnceFunc(func() { s.begun.Add(-1) })}
	context.AfterFunc(ctx, func() {
		f.quic.Add(-1)
		c.served()
		end()
	})
	return context.WithValue(ctx, connectionKey{}, c), nil
}

func (s *quicServer) serve() error {
	for {
		conn, err := s.listener.Accept(s.accepting)
		if s.accepting.Err() != nil || errors.Is(err, quic.ErrServerClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("HTTP/3: %w", err)
		}
		s.serving.Go(func() { s.serveConn(conn) })
	}
}

// serveConn serves one connection to its end. This is the only place that gives a connection to HTTP/3.
func (s *quicServer) serveConn(conn *quic.Conn) {
	c := connectionOf(conn.Context())
	c.moved()
	c.close = func(why string) {
		code := http3.ErrCodeNoError
		if c.active.Load() > 0 {
			code = http3.ErrCodeExcessiveLoad
		}
		_ = conn.CloseWithError(quic.ApplicationErrorCode(code), why) // it may have ended
	}
	c.charge = func() { s.front.limits.charge(addrOf(conn.RemoteAddr())) }
	c.linger = func() time.Duration {
		select {
		case <-conn.HandshakeComplete():
			return lingerFor(conn.ConnectionStats().SmoothedRTT)
		default: // a request may come with its end
			return lingerFor(time.Second)
		}
	}
	defer s.front.connections.add(c)()
	c.served()
	s.http.ServeConn(conn, &c.streams)
}

// lingerTime is for clients that are near, and slow to read: the end of a connection takes from them what they have not read yet.
const lingerTime = 500 * time.Millisecond

// lingerFor is how long a connection stays open after its last request once its client was told to go: a request that was on its way
// then must be told that nobody has worked on it.
func lingerFor(rtt time.Duration) time.Duration {
	return min(max(3*rtt, lingerTime), time.Second)
}

// settle expects that packets of new connections come here no more.
func (s *quicServer) settle(ctx context.Context) {
	s.front.when(ctx, func() bool { return s.begun.Load() == 0 })
}

func (s *quicServer) drain(ctx context.Context) {
	_ = s.http.Shutdown(ctx) // an error means that the time is over
}

func (s *quicServer) close() {
	s.stop()
	s.listener.Close()
	s.transport.Close()
	s.socket.Close()
	s.serving.Wait()
}
