package dataplane

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/forward"
	"github.com/isochrone/isochrone/dataplane/overload"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/dataplane/tracing"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Config is what a PoP needs.
type Config struct {
	Name          string                      // of the PoP in the topology
	Snapshot      func() *topology.Snapshot   // newest; nil before the first; called for every request
	Verdicts      func() health.Verdicts      // of clusters
	Model         *rtt.Model                  // by which clusters are near
	Spool         *spool.Spool                // closed by Run
	Quota         *quota.Ledger               // of this PoP alone
	Secret        func(service string) []byte // the key of request ids that are made of an Idempotency-Key, alike in all PoPs of a service
	WebhookSecret func(service string) []byte // the key of the signatures of a service's payloads; nil for services without any
	ClusterToken  func(cluster string) string // the bearer token for a cluster
	Log           *slog.Logger

	Receipts         *receipt.Signer                              // signs what was accepted before and is posted again; the spool's envelopes are signed by Seal; nil for no receipts
	Peer             Peer                                         // nil if other PoPs cannot be asked
	Peers            func(next exchange.Handler) exchange.Handler // answers other PoPs, before the intake; nil for none
	Beside           prometheus.Collector                         // told with the PoP's own metrics; nil for none
	Dial             Dial                                         // opens connections to clusters; nil takes TCP
	Acknowledged     func(e *spool.Envelope, cluster string)      // called when a cluster has acknowledged; may be nil
	Roots            *x509.CertPool                               // that certificates of clusters stand on; nil takes the system's
	MaxInFlightBytes int64                                        // of bodies that are being read; default 256 MiB
	Access           *AccessLog                                   // nil for none
	Tracer           *tracing.Tracer                              // likewise
	Front            *Front                                       // the transports; nil for those of the defaults, which Run serves
}

// Dial opens a connection, as the method DialContext of net.Dialer does.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// PoP is one point of presence. It is an http.Handler; Run makes it serve.
type PoP struct {
	config   Config
	counts   counts
	bodies   *semaphore.Weighted
	forward  *forward.Forwarder
	front    *Front
	stopping chan struct{} // closed when Run begins to end
	offered  atomic.Pointer[offers]
	intakes  sync.Pool     // of *intake
	released chan struct{} // closed when the spool is closed
}

// counts are totals since the start, and what is open now.
type counts struct {
	accepted, probes, panics atomic.Uint64
	refused                  map[int]*atomic.Uint64 // by status; the keys never change
}

// New returns a PoP.
func New(c Config) *PoP {
	c.MaxInFlightBytes = cmp.Or(c.MaxInFlightBytes, 256<<20)
	p := &PoP{
		config: c, bodies: semaphore.NewWeighted(c.MaxInFlightBytes), stopping: make(chan struct{}), released: make(chan struct{}), front: c.Front,
		forward: forward.New(forward.Config{
			Name: c.Name, Snapshot: c.Snapshot, Verdicts: c.Verdicts, Model: c.Model, Spool: c.Spool, ClusterToken: c.ClusterToken, Log: c.Log,
			Dial: c.Dial, Roots: c.Roots, Acknowledged: c.Acknowledged, Tracer: c.Tracer,
		}),
	}
	if p.front == nil {
		p.front = NewFront(FrontConfig{Name: c.Name, Log: c.Log, Early: p.early})
	}
	p.intakes.New = func() any { return &intake{hash: sha256.New()} }
	p.counts.refused = map[int]*atomic.Uint64{}
	for status := range refusals {
		p.counts.refused[status] = new(atomic.Uint64)
	}
	return p
}

// Stats returns totals since the start and what is in the spool now, by name.
func (p *PoP) Stats() map[string]uint64 {
	held, forwarded := p.config.Spool.Stats(), p.forward.Stats()
	stats := map[string]uint64{
		"accepted": p.counts.accepted.Load(), "probes": p.counts.probes.Load(), "forwarded": forwarded.Acknowledged,
		"retried": forwarded.Retried, "panics": p.counts.panics.Load(),
		"pending": uint64(held.Pending), "pending_bytes": uint64(held.Bytes), "dead_letters": uint64(held.Dead),
	}
	for status, n := range p.counts.refused {
		if n := n.Load(); n > 0 {
			stats["refused_"+statusText(status)] = n
		}
	}
	return stats
}

// Held returns what is in the spool.
func (p *PoP) Held() spool.Stats { return p.config.Spool.Stats() }

// early reports whether requests are taken in 0-RTT: when a service requires an Idempotency-Key, without which they are refused.
func (p *PoP) early() bool {
	snap := p.config.Snapshot()
	return snap != nil && p.offers(snap).early
}

// Load tells how busy the PoP is.
func (p *PoP) Load() overload.Load { return p.front.Overload().Load() }

// Draining reports whether the PoP has begun to end.
func (p *PoP) Draining() bool {
	select {
	case <-p.front.Draining():
		return true
	default:
		return false
	}
}

// Released is closed when Run has closed the spool: somebody else may open it.
func (p *PoP) Released() <-chan struct{} { return p.released }

// Run serves on the sockets, beside those that the Front serves already, and forwards what is in the spool, until ctx ends or a
// socket fails. Then the requests in flight end, the spool is closed, and the connections end. If the Front of the configuration
// is served by somebody else, its end is waited for.
func (p *PoP) Run(ctx context.Context, sockets ...Listeners) error {
	forwarding, stop := context.WithCancel(context.WithoutCancel(ctx))
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		p.forward.Run(forwarding)
	}()
	handler := exchange.Handler(p)
	if p.config.Peers != nil {
		handler = p.config.Peers(p)
	}
	p.front.Handle(handler)
	served := make(chan error, 1)
	if p.config.Front == nil || len(sockets) > 0 {
		go func() { served <- p.front.Serve(ctx, sockets...) }()
	} else {
		served <- nil
	}
	<-p.front.Draining()
	close(p.stopping)
	<-p.front.Quiet()
	stop()
	<-forwarded
	err := p.config.Spool.Close()
	close(p.released)
	return errors.Join(<-served, err)
}
