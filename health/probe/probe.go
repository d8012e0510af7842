// Package probe observes PoPs, clusters and DNS nodes from here, each once: a PoP by a whole intake as a client has it, or by what the topology
// says instead; a cluster by its health check, and by its view of the chain; a DNS node by questions. Each observation has its evidence: what
// failed and where, and how long each step took. When that is done, and what comes of it, is decided elsewhere (package health/vantage).
//
//	p := probe.New(probe.Config{Roots: roots, Keys: keys})
//	defer p.Close()
//	seen := p.Probe(ctx, target)
package probe

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/topology"
)

// Target is what is probed and how it is reached. Addresses of a PoP may be VIPs: the certificate must be the service's all the same.
type Target struct {
	health.Target
	Addrs     []netip.AddrPort       // of a PoP or a DNS node; all must answer
	Service   string                 // of a PoP: the host name that is asked for
	Path      string                 // of a PoP's intake
	Body      []byte                 // of a PoP: a payload that the service accepts
	How       topology.ServiceHealth // of a PoP: the zero value is a whole intake
	Endpoints []string               // of a cluster: base URLs; one must answer
	Healthz   string                 // of a cluster: path below an endpoint; default /healthz
	Chain     *Chain                 // of a cluster; nil: it is not asked for its view of the chain
	Zone      string                 // of a DNS node: whose SOA record is asked for, without the dot at the end
	Steered   string                 // of a DNS node: whose A record is asked for; empty for none
}

// Config says how targets are probed.
type Config struct {
	Roots *x509.CertPool  // that PoPs' certificates are issued by; nil trusts those of the system
	Keys  func() []string // API keys for probes, the present one first; the others are tried with a PoP that refuses it. Asked before each probe.
	Log   *slog.Logger    // told of certificates that end soon; nil: nothing is told

	// Sockets of another network than the system's, as a simulation has it; nil for the system's.
	Dial   intakeclient.Dial              // over TCP or UDP
	Listen func() (net.PacketConn, error) // over UDP, for HTTP/3
	Wrap   func(http.RoundTripper) http.RoundTripper
}

// Prober probes. It is safe for concurrent use.
type Prober struct {
	config   Config
	clusters *http.Transport

	mu      sync.Mutex
	heads   map[string]head      // of clusters' chains, the newest that was seen
	serials map[string]uint32    // of zones, the newest that was seen
	told    map[string]time.Time // when it was told that a certificate ends soon, by PoP
}

// New returns a prober.
func New(c Config) *Prober {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Keys == nil {
		c.Keys = func() []string { return nil }
	}
	return &Prober{
		config: c, clusters: &http.Transport{DisableKeepAlives: true, DialContext: c.Dial}, // a fresh connection, as clients make
		heads: map[string]head{}, serials: map[string]uint32{}, told: map[string]time.Time{},
	}
}

// dial connects.
func (p *Prober) dial(ctx context.Context, network string, at netip.AddrPort) (net.Conn, error) {
	if p.config.Dial != nil {
		return p.config.Dial(ctx, network, at.String())
	}
	return new(net.Dialer).DialContext(ctx, network, at.String())
}

// Key returns what Keys has of one key.
func Key(key string) func() []string { return func() []string { return []string{key} } }

// Close ends what is left of probes.
func (p *Prober) Close() { p.clusters.CloseIdleConnections() }

// patience bounds what has no context, and handshakes: no probe takes longer.
const patience = 2 * time.Second

// found is what a probe has found.
type found struct {
	reason  string
	warning health.Code // of what is well all the same
	steps   health.Steps
	err     error
}

// Probe looks at a target once, until ctx ends at the latest.
func (p *Prober) Probe(ctx context.Context, t Target) health.Observation {
	began := time.Now()
	var f found
	switch t.Kind {
	case health.Cluster:
		f = p.probeCluster(ctx, t)
	case health.DNS:
		f = p.everywhere(ctx, t, p.probeDNS)
	default:
		f = p.everywhere(ctx, t, p.probePoP)
	}
	o := health.Observation{
		Target: t.Target, OK: f.err == nil, Code: f.warning, Reason: f.reason, Steps: f.steps, Took: time.Since(began), At: time.Now(),
	}
	if f.err != nil {
		o.Code, o.Reason = classify(ctx, f.err)
	}
	return o
}

// everywhere probes all addresses of a target at once. The slowest counts if all are well, else the first that fails, and no other is waited for.
// An address to which there is no route from here is left out, if there is one to another: who has no IPv6 cannot tell whether it works.
func (p *Prober) everywhere(ctx context.Context, t Target, one func(context.Context, Target, netip.AddrPort) found) found {
	addrs := make([]netip.AddrPort, 0, len(t.Addrs))
	for _, at := range t.Addrs {
		if p.config.Dial != nil || routed(at) {
			addrs = append(addrs, at)
		}
	}
	if len(addrs) == 0 {
		addrs = t.Addrs
	}
	if len(addrs) == 0 {
		return found{err: errors.New("it has no address")}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan found, len(addrs))
	for _, at := range addrs {
		go func() {
			f := one(ctx, t, at)
			if f.err != nil {
				f.err = &addressError{at, f.err}
			}
			results <- f
		}()
	}
	var worst found
	for range addrs {
		if f := <-results; worst.err == nil {
			if worst = f; f.err != nil { // the last that is well is the slowest
				cancel()
			}
		}
	}
	return worst
}

// routed reports whether there is a route to an address. Nothing is sent.
func routed(at netip.AddrPort) bool {
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		return !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT)
	}
	conn.Close()
	return true
}

// addressError says at which address a probe has failed.
type addressError struct {
	at  netip.AddrPort
	err error
}

func (e *addressError) Error() string {
	if at, text := e.at.String(), e.err.Error(); !strings.Contains(text, at) {
		return at + ": " + text
	}
	return e.err.Error()
}

func (e *addressError) Unwrap() error { return e.err }

// statusError is an answer that is none of a healthy one, and behindError one of a chain that is.
type (
	statusError struct{ what string }
	behindError struct { // of a chain
		code health.Code
		what string
	}
)

func (e *statusError) Error() string { return e.what }
func (e *behindError) Error() string { return e.what }

// classify tells what kind of failure an error is, and how to put it.
func classify(ctx context.Context, err error) (health.Code, string) {
	var (
		status *statusError
		behind *behindError
		at     *addressError
		netErr net.Error
	)
	late := "no answer in time"
	if errors.As(err, &at) {
		late = at.at.String() + ": " + late
	}
	switch {
	case errors.As(err, &behind):
		return behind.code, err.Error()
	case errors.As(err, &status):
		return health.Answered, err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return health.Refused, err.Error()
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return health.Unreachable, err.Error()
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return health.Timeout, late
	case strings.Contains(err.Error(), "x509:"), strings.Contains(err.Error(), "certificate"):
		return health.Certificate, err.Error()
	case strings.Contains(err.Error(), "tls:"), strings.Contains(err.Error(), "CRYPTO_ERROR"):
		return health.Handshake, err.Error()
	}
	return health.Reset, err.Error()
}
