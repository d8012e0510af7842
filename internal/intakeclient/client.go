// Package intakeclient is a client of the intake: it finds a service's PoPs by DNS and posts to them over HTTP/3, or over
// HTTP/2 on TCP. Connections stay open for the next request.
package intakeclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// maxAnswer is how much of an answer's body is read.
const maxAnswer = 64 << 10

// Config says how a client connects. The zero value trusts the system's certificates and uses HTTP/3.
type Config struct {
	Roots            *x509.CertPool                 // nil trusts those of the system
	TCP              bool                           // HTTP/2 over TCP instead of HTTP/3
	Listen           func() (net.PacketConn, error) // makes the UDP socket of HTTP/3; nil takes any port
	HandshakeTimeout time.Duration                  // of a new connection; default 5 s
	Early            bool                           // small requests with an Idempotency-Key go in 0-RTT where a session can be resumed; an attacker can send them again
	Dial             Dial                           // opens connections of TCP; nil takes those of the system

	// Wrap stands between the client and each of its connections, as a simulation may have it; nil for nothing.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// Dial opens a connection, as the method DialContext of net.Dialer does.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Client holds connections to PoPs, one to each. It may be used concurrently.
type Client struct {
	config Config

	mu     sync.Mutex
	closed bool
	udp    *quic.Transport
	// What makes the next connection to the service cheaper. PoPs share the keys of tickets; one that does not know a ticket, or a token, does
	// without.
	sessions *sessions
	tokens   quic.TokenStore
	conns    map[target]*connection
}

// target is what a connection is for: an address, and the name that its certificate must have.
type target struct {
	addr netip.AddrPort
	name string
}

// connection is an open connection, of one kind or the other.
type connection struct {
	transport http.RoundTripper
	quic      *quicConn // the transport of a connection on which a request may be sent in 0-RTT; else nil
	protocol  string
	rtt       func() time.Duration // smoothed; nil where it is not known
	alive     func() bool
	close     func() error
	heard     atomic.Int64 // when an answer came last: Unix time in nanoseconds
}

// New returns a client without connections.
func New(c Config) *Client {
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 5*time.Second)
	return &Client{
		config: c, conns: map[target]*connection{}, sessions: new(sessions), tokens: quic.NewLRUTokenStore(64, 4),
	}
}

// Request is a request to a service.
type Request struct {
	Method  string // default POST
	Service string // host name, which the PoP's certificate must have too
	Path    string
	Header  http.Header
	Body    []byte
}

// Answer is what came back.
type Answer struct {
	Status   int
	Header   http.Header
	Body     []byte // its first 64 KiB
	Endpoint Endpoint
	Protocol string // h3 or h2
	Reused   bool   // of a connection that was open
	Early    bool   // the request was sent, and looked at, in 0-RTT
	Connect  time.Duration
	Total    time.Duration // from the beginning, with Connect, until the answer's header
	RTT      time.Duration // smoothed, of the connection (RFC 9002 section 5.3); 0 over TCP
	TLS      *tls.ConnectionState
}

// Post sends a request to the first endpoint that can be reached. An endpoint that was reached and failed then is not
// followed by the next, unless the request has an Idempotency-Key: it may have been accepted.
func (c *Client) Post(ctx context.Context, endpoints []Endpoint, r *Request) (*Answer, error) {
	var failures []error
	for _, e := range endpoints {
		if !e.speaks(c.protocol()) {
			failures = append(failures, fmt.Errorf("%s (%v): %w", e.Target, e.Addr, ErrProtocol))
			continue
		}
		answer, sent, err := c.post(ctx, e, r)
		if err == nil {
			return answer, nil
		}
		failures = append(failures, fmt.Errorf("%s (%v): %w", e.Target, e.Addr, err))
		if sent && r.Header.Get("Idempotency-Key") == "" || ctx.Err() != nil {
			break
		}
	}
	if len(endpoints) == 0 {
		return nil, ErrNoAddress
	}
	return nil, errors.Join(failures...)
}

// ErrProtocol says that DNS does not offer the version of HTTP that this client speaks.
var ErrProtocol = errors.New("does not offer this version of HTTP")

func (c *Client) protocol() Protocols {
	if c.config.TCP {
		return HTTP2
	}
	return HTTP3
}

// post sends a request to one endpoint, and reports whether it was sent in case of an error.
func (c *Client) post(ctx context.Context, e Endpoint, r *Request) (_ *Answer, sent bool, _ error) {
	start := time.Now()
	conn, reused, err := c.connection(ctx, target{e.Addr, r.Service}, c.config.Early && mayBeEarly(r))
	if err != nil {
		return nil, false, err
	}
	connected := time.Now()
	request, err := http.NewRequestWithContext(ctx, cmp.Or(r.Method, http.MethodPost), "https://"+r.Service+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, false, err
	}
	if r.Header != nil {
		request.Header = r.Header.Clone()
	}
	response, early, err := conn.send(request, r, c.config.Wrap)
	if err != nil {
		c.failed(ctx, target{e.Addr, r.Service}, conn, connected)
		return nil, true, err
	}
	conn.heard.Store(time.Now().UnixNano())
	total := time.Since(start)
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		c.failed(ctx, target{e.Addr, r.Service}, conn, connected)
		return nil, true, fmt.Errorf("read the answer: %w", err)
	}
	answer := &Answer{
		Status: response.StatusCode, Header: response.Header, Body: body, Endpoint: e, Protocol: conn.protocol, Reused: reused, Early: early,
		Connect: connected.Sub(start), Total: total, TLS: response.TLS,
	}
	if conn.rtt != nil {
		answer.RTT = conn.rtt()
	}
	return answer, true, nil
}

// send sends a request, in 0-RTT if that may be, and else through what wraps the transport, if anything does.
func (c *connection) send(request *http.Request, r *Request, wrap func(http.RoundTripper) http.RoundTripper) (_ *http.Response, early bool, _ error) {
	if c.quic != nil && mayBeEarly(r) {
		response, err := c.quic.sendEarly(request, r.Body)
		if !errors.Is(err, errLater) {
			return response, true, err
		}
	}
	transport := c.transport
	if wrap != nil {
		transport = wrap(transport)
	}
	response, err := transport.RoundTrip(request)
	return response, false, err
}

// connection returns an open connection, or makes one, whose handshake need not be complete if early data may be sent.
func (c *Client) connection(ctx context.Context, to target, early bool) (_ *connection, reused bool, _ error) {
	c.mu.Lock()
	known := c.conns[to]
	c.mu.Unlock()
	if known != nil {
		if known.alive() {
			return known, true, nil
		}
		c.drop(to, known)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.HandshakeTimeout)
	defer cancel()
	dial := c.dialQUIC
	if c.config.TCP {
		dial = c.dialTCP
	}
	made, err := dial(ctx, to, early)
	if err != nil {
		return nil, false, fmt.Errorf("connect: %w", err)
	}
	c.mu.Lock()
	other, closed := c.conns[to], c.closed // another is of a request that ran at the same time
	if other == nil && !closed {
		c.conns[to] = made
	}
	c.mu.Unlock()
	if closed {
		made.close()
		return nil, false, fmt.Errorf("connect: %w", net.ErrClosed)
	}
	if other != nil {
		made.close()
		return other, true, nil
	}
	return made, false, nil
}

func (c *Client) dialQUIC(ctx context.Context, to target, early bool) (*connection, error) {
	udp, err := c.socket()
	if err != nil {
		return nil, err
	}
	config := &quic.Config{HandshakeIdleTimeout: c.config.HandshakeTimeout, MaxIdleTimeout: 30 * time.Second, TokenStore: c.tokens}
	made := &connection{protocol: http3.NextProtoH3}
	var conn *quic.Conn
	if early {
		if made.quic, err = c.dialEarly(ctx, udp, to, config); err != nil {
			return nil, err
		}
		conn, made.transport = made.quic.Conn, made.quic
	} else {
		if conn, err = udp.Dial(ctx, net.UDPAddrFromAddrPort(to.addr), c.tls(to, http3.NextProtoH3), config); err != nil {
			return nil, err
		}
		made.transport = (&http3.Transport{}).NewClientConn(conn)
	}
	made.rtt = func() time.Duration { return conn.ConnectionStats().SmoothedRTT }
	made.alive = func() bool { return conn.Context().Err() == nil }
	made.close = func() error { return conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") }
	return made, nil
}

// socket returns the UDP socket of all HTTP/3 connections.
func (c *Client) socket() (*quic.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed { // whoever still tries must not leave a socket behind
		return nil, net.ErrClosed
	}
	if c.udp == nil {
		listen := c.config.Listen
		if listen == nil {
			listen = func() (net.PacketConn, error) { return net.ListenUDP("udp", nil) }
		}
		conn, err := listen()
		if err != nil {
			return nil, err
		}
		if socket, ok := conn.(*net.UDPConn); ok && c.config.Early {
			conn = newGate(socket)
		}
		c.udp = &quic.Transport{Conn: conn}
	}
	return c.udp, nil
}

func (c *Client) dialTCP(ctx context.Context, to target, _ bool) (*connection, error) {
	dial := c.config.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	transport := &http.Transport{
		Protocols:       new(http.Protocols),
		TLSClientConfig: c.tls(to),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, "tcp", to.addr.String())
		},
	}
	transport.Protocols.SetHTTP2(true)
	conn, err := transport.NewClientConn(ctx, "https", net.JoinHostPort(to.name, "443"))
	if err != nil {
		return nil, err
	}
	return &connection{transport: conn, protocol: "h2", alive: func() bool { return conn.Err() == nil }, close: conn.Close}, nil
}

func (c *Client) tls(to target, protocols ...string) *tls.Config {
	return &tls.Config{
		ServerName: to.name, RootCAs: c.config.Roots, NextProtos: protocols, MinVersion: tls.VersionTLS13, ClientSessionCache: c.sessions,
	}
}

// roundTrip returns the smoothed round-trip time of an open connection, or 0.
func (c *Client) roundTrip(to target) time.Duration {
	c.mu.Lock()
	conn := c.conns[to]
	c.mu.Unlock()
	if conn == nil || conn.rtt == nil {
		return 0
	}
	return conn.rtt()
}

// silence is how long a connection may be without any answer before a request that is given up takes it along.
const silence = 200 * time.Millisecond

// failed drops a connection, unless it was its caller who gave up: others may be using it. It is dropped all the same if nothing was heard
// on it since the request began, which was a while ago: then the other end may be dead.
func (c *Client) failed(ctx context.Context, to target, conn *connection, began time.Time) {
	if ctx.Err() != nil && (time.Since(began) < silence || conn.heard.Load() > began.UnixNano()) {
		return
	}
	c.drop(to, conn)
}

// drop forgets a connection that has failed.
func (c *Client) drop(to target, failed *connection) {
	c.mu.Lock()
	if c.conns[to] == failed {
		delete(c.conns, to)
	}
	c.mu.Unlock()
	failed.close()
}

// Close closes all connections and the socket. Requests fail from then on.
func (c *Client) Close() error {
	c.mu.Lock()
	conns, udp := c.conns, c.udp
	c.closed = true
	c.conns, c.udp = map[target]*connection{}, nil
	c.mu.Unlock()
	for _, conn := range conns {
		conn.close()
	}
	if udp == nil {
		return nil
	}
	return errors.Join(udp.Close(), udp.Conn.Close())
}
