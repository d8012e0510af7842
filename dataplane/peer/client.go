package peer

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/problem"
)

const (
	maxCalls   = 64              // to one PoP at a time
	overTCP    = time.Minute     // how long a PoP is called over TCP once HTTP/3 has failed
	keepUnused = 2 * time.Minute // how long a connection stays that nobody uses
	maxDetail  = 200             // octets of what another PoP says is wrong
)

// Errors of calls.
var (
	ErrOff    = errors.New("PoPs do not ask each other: there is no secret that they share")
	ErrBusy   = errors.New("too many calls to this PoP are on their way")
	ErrNobody = errors.New("the topology has no such PoP that could be asked")
)

// Refused is the error of a call that the other PoP has answered with something else than 200.
type Refused struct {
	Status int
	Detail string
}

func (r *Refused) Error() string { return fmt.Sprintf("it answers %d: %s", r.Status, r.Detail) }

// Address is where a PoP can be called.
type Address struct {
	Service string // that it offers, whose certificate it shows
	Addrs   []netip.AddrPort
}

// ClientConfig is what a Client needs.
type ClientConfig struct {
	Name    string                           // of this PoP
	Secrets func() [][]byte                  // as in ServerConfig; the first is used
	Find    func(pop string) (Address, bool) // where a PoP is
	Roots   func() (*x509.CertPool, error)   // that certificates stand on; nil, and a nil pool, take the system's
	Metrics *Metrics                         // nil for none
}

// Client calls other PoPs. Connections stay open for the next call. It may be used concurrently.
type Client struct {
	config ClientConfig

	mu        sync.Mutex
	quic, tcp *intakeclient.Client // nil before the first call
	peers     map[string]*called
	kept      time.Time
	closed    bool
}

// called is what is known of a PoP that is called.
type called struct {
	at         Address
	calls      int                   // on their way
	connecting chan struct{}         // has one while a call makes a connection, which others wait for
	by         *intakeclient.Client  // over which it was reached last; nil for none
	endpoint   intakeclient.Endpoint // likewise
	tcp        time.Time             // until when HTTP/3 is not tried
	latest     time.Time
	met        health.Tally // what calls have met since Seen was asked
}

// NewClient returns a client without connections.
func NewClient(c ClientConfig) *Client { return &Client{config: c, peers: map[string]*called{}} }

// Close closes all connections, and breaks the calls that are on their way. There are none after it.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed = true; c.quic == nil {
		return nil
	}
	err := errors.Join(c.quic.Close(), c.tcp.Close())
	c.quic, c.tcp = nil, nil
	return err
}

// Call asks a PoP for something, as JSON, and reads its answer. It lasts as long as ctx at most. An error may be ErrOff, ErrNobody, ErrBusy
// or a *Refused; after any other it is not known whether the other PoP was asked.
func (c *Client) Call(ctx context.Context, pop, name string, ask, answer any) error {
	began := time.Now()
	err := c.call(ctx, pop, name, ask, answer)
	outcome := "ok"
	switch refused := (*Refused)(nil); {
	case err == nil:
	case errors.Is(err, ErrOff), errors.Is(err, ErrNobody):
		outcome = "off"
	case errors.Is(err, ErrBusy):
		outcome = "busy"
	case errors.As(err, &refused):
		outcome = "refused"
	default:
		outcome = "failed"
	}
	c.config.Metrics.called(name, outcome, time.Since(began))
	if err != nil {
		return fmt.Errorf("ask PoP %s for %s: %w", pop, name, err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, pop, name string, ask, answer any) (err error) {
	secrets := c.config.Secrets()
	if len(secrets) == 0 {
		return ErrOff
	}
	at, ok := c.config.Find(pop)
	if !ok || len(at.Addrs) == 0 || pop == c.config.Name {
		return ErrNobody
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	to, err := c.begin(pop, at)
	if err != nil {
		return err
	}
	defer func() { c.end(ctx, to, err) }()
	by, endpoint, err := c.connect(ctx, pop, to, at)
	if err != nil {
		return err
	}
	shown := newPass(secrets[0], c.config.Name, pop, http.MethodPost, Path+name, body, time.Now())
	got, err := by.Post(ctx, []intakeclient.Endpoint{endpoint}, &intakeclient.Request{
		Service: at.Service, Path: Path + name, Body: body,
		Header: http.Header{headerName: {shown.String()}, "Content-Type": {"application/json"}},
	})
	if err != nil {
		c.failed(ctx, to, by)
	}
	switch {
	case err != nil:
		return err
	case got.Status != http.StatusOK:
		var said problem.Document
		_ = json.Unmarshal(got.Body, &said) // else it says nothing
		return &Refused{got.Status, fmt.Sprintf("%.*s", maxDetail, cmp.Or(said.Detail, http.StatusText(got.Status)))}
	}
	if err := readJSON(got.Body, answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// begin takes a place among the calls to a PoP.
func (c *Client) begin(pop string, at Address) (*called, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrOff
	}
	if c.quic == nil {
		config := intakeclient.Config{}
		if c.config.Roots != nil {
			var err error
			if config.Roots, err = c.config.Roots(); err != nil {
				return nil, err
			}
		}
		c.quic = intakeclient.New(config)
		config.TCP = true
		c.tcp = intakeclient.New(config)
	}
	now := time.Now()
	to := c.peers[pop]
	if to == nil {
		to = &called{connecting: make(chan struct{}, 1)}
		c.peers[pop] = to
	}
	if to.calls >= maxCalls {
		return nil, ErrBusy
	}
	to.calls++
	to.latest = now
	if to.at.Service != at.Service || !slices.Equal(to.at.Addrs, at.Addrs) {
		to.at, to.by = at, nil
	}
	c.keep(now)
	return to, nil
}

// end gives the place back, and counts what the call has met: an answer, whichever, or none; a call that was given up by who made it says nothing.
func (c *Client) end(ctx context.Context, to *called, err error) {
	refused := (*Refused)(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	to.calls--
	switch {
	case err == nil || errors.As(err, &refused):
		to.met.Well++
	case !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, ErrOff):
		to.met.Failed++
		to.met.Failure = fmt.Sprintf("%.*s", maxDetail, err.Error())
	}
}

// Seen returns what calls have met at other PoPs since it was asked last, as passive observations. Only failures are told of: that a PoP answers
// calls, perhaps over TCP, does not say that its intake is well. One alone should ask.
func (c *Client) Seen() []health.Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []health.Observation
	for pop, to := range c.peers {
		if o, ok := to.met.Observation(health.Target{Kind: health.PoP, Name: pop}); ok && !o.OK {
			all = append(all, o)
		}
		to.met = health.Tally{}
	}
	return all
}

// connect returns the connection to a PoP. When there is none, one call makes it, over the transport that is to be tried, and others that
// come meanwhile wait for it.
func (c *Client) connect(ctx context.Context, pop string, to *called, at Address) (*intakeclient.Client, intakeclient.Endpoint, error) {
	if by, endpoint, ok := c.connected(to, at); ok {
		return by, endpoint, nil
	}
	select {
	case to.connecting <- struct{}{}:
		defer func() { <-to.connecting }()
	case <-ctx.Done():
		return nil, intakeclient.Endpoint{}, ctx.Err()
	}
	if by, endpoint, ok := c.connected(to, at); ok {
		return by, endpoint, nil
	}
	c.mu.Lock()
	by := c.quic
	if time.Now().Before(to.tcp) {
		by = c.tcp
	}
	c.mu.Unlock()
	if by == nil {
		return nil, intakeclient.Endpoint{}, ErrOff // it was closed
	}
	var endpoints []intakeclient.Endpoint
	for _, addr := range at.Addrs {
		endpoints = append(endpoints, intakeclient.Endpoint{Target: pop, Addr: addr})
	}
	endpoint, err := by.Connect(ctx, endpoints, at.Service)
	if err != nil {
		c.failed(ctx, to, by)
		return nil, endpoint, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	to.by, to.endpoint = by, endpoint
	return by, endpoint, nil
}

// connected returns the connection that there is.
func (c *Client) connected(to *called, at Address) (*intakeclient.Client, intakeclient.Endpoint, bool) {
	c.mu.Lock()
	by, endpoint := to.by, to.endpoint
	c.mu.Unlock()
	return by, endpoint, by != nil && by.Connected(endpoint, at.Service)
}

// failed has the next call try the other transport, if it was not for its caller that this one has failed.
func (c *Client) failed(ctx context.Context, to *called, by *intakeclient.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	if to.by = nil; by == c.quic {
		to.tcp = time.Now().Add(overTCP)
	} else {
		to.tcp = time.Time{}
	}
}

// keep closes connections that nobody uses, now and then.
func (c *Client) keep(now time.Time) {
	if now.Sub(c.kept) < keepUnused/2 {
		return
	}
	c.kept = now
	wanted := map[netip.AddrPort]bool{}
	for pop, p := range c.peers {
		if p.calls == 0 && now.Sub(p.latest) > keepUnused {
			delete(c.peers, pop)
			continue
		}
		for _, addr := range p.at.Addrs {
			wanted[addr] = true
		}
	}
	for _, by := range []*intakeclient.Client{c.quic, c.tcp} {
		by.Keep(func(addr netip.AddrPort) bool { return wanted[addr] })
	}
}
