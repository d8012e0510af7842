package dataplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
	"github.com/isochrone/isochrone/internal/problem"
)

// FrontConfig is what a Front needs. Zero values stand for the defaults.
type FrontConfig struct {
	Name         string       // of the PoP
	Log          *slog.Logger // default none
	Limits       Limits
	TLS12        bool          // over TCP, TLS 1.2 is taken too
	Early        func() bool   // whether 0-RTT is taken; called for each connection; default never
	DrainTimeout time.Duration // for requests and connections at the end; default 10 s
}

// Listeners are the sockets of one address that a PoP serves on. Serve closes them.
type Listeners struct {
	UDP           net.PacketConn // HTTP/3; a quic.OOBCapablePacketConn, else segmentation and ECN are lost
	TCP           net.Listener   // HTTP/2 and HTTP/1.1; nil for none
	TLS           *tls.Config    // with a way to get certificates; protocols and versions are set by Serve
	TicketKeys    func() [][32]byte
	ConnectionIDs quic.ConnectionIDGenerator // nil for random ones
}

func (l Listeners) close() {
	l.UDP.Close()
	if l.TCP != nil {
		l.TCP.Close()
	}
}

// Front is the transports of a PoP: HTTP/3, HTTP/2 and HTTP/1.1, with their limits. It serves from the moment that Serve is called;
// requests wait until there is a handler.
type Front struct {
	config      FrontConfig
	began       time.Time
	limits      *clientLimits
	overload    *overload.Overload
	connections connections
	quic, tcp   atomic.Int64 // connections that are open
	refused     atomic.Int64 // connections
	grown       atomic.Int64 // octets by which flow control windows have grown
	handler     exchange.Handler
	handedOver  atomic.Bool   // another process takes new connections from the same sockets
	leaving     atomic.Bool   // no request is begun any more
	attached    chan struct{} // closed when there is a handler
	draining    chan struct{} // closed when Serve's ctx has ended
	quiet       chan struct{} // closed when no request is being worked on any more
}

// NewFront returns a Front without a handler.
func NewFront(c FrontConfig) *Front {
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Early == nil {
		c.Early = func() bool { return false }
	}
	f := &Front{
		config: c, began: time.Now(), limits: newClientLimits(c.Limits),
		attached: make(chan struct{}), draining: make(chan struct{}), quiet: make(chan struct{}),
	}
	f.overload = overload.New(overload.Options{Connections: func() int64 { return f.quic.Load() + f.tcp.Load() }})
	f.limits.pressed = func() bool { return f.overload.Busy() || f.overload.ShedShare() > 0 }
	f.limits.working = f.overload.Working
	return f
}

// Handle has a handler answer the requests, those among them that wait already. It is called once.
func (f *Front) Handle(h exchange.Handler) {
	f.handler = h
	close(f.attached)
}

// Overload decides which requests are worked on. It measures while Serve runs.
func (f *Front) Overload() *overload.Overload { return f.overload }

// Draining is closed when the Front has begun to end: it takes no new connections and says so to the clients.
func (f *Front) Draining() <-chan struct{} { return f.draining }

// Quiet is closed when it has begun to end and no request is being worked on, or their time is over.
func (f *Front) Quiet() <-chan struct{} { return f.quiet }

// Connections returns how many are open now, and how many were refused since the start.
func (f *Front) Connections() (quic, tcp, refused int64) {
	return f.quic.Load(), f.tcp.Load(), f.refused.Load()
}

// Answer implements exchange.Handler: it hands a request to the handler, once there is one.
func (f *Front) Answer(r *exchange.Request, a *exchange.Answer) {
	select {
	case <-f.attached:
	default:
		select {
		case <-f.attached:
		case <-r.Context.Done():
			a.Status = http.StatusServiceUnavailable // nobody reads it
			return
		}
	}
	c := connectionOf(r.Context)
	c.begin()
	defer func() { c.done(r.Context.Err() != nil) }()
	if f.leaving.Load() {
		a.Rejected = true
		f.unavailable(a, time.Second, "this process is ending: try again")
		return
	}
	f.handler.Answer(r, a)
	if wrong(a.Status) && f.limits.fault(r.Remote.Addr()) {
		a.Pause = c.fault()
	}
	c.pause(a.Turn, a.Pause)
}

// wrong reports whether a status says that there is a fault in the request.
func wrong(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusMisdirectedRequest, http.StatusRequestHeaderFieldsTooLarge:
		return true
	}
	return false
}

// Shed implements exchange.Shedder, by the handler if that is one.
func (f *Front) Shed(r *exchange.Request, a *exchange.Answer) bool {
	select {
	case <-f.attached:
	default:
		return false
	}
	shedder, ok := f.handler.(exchange.Shedder)
	return ok && !f.leaving.Load() && shedder.Shed(r, a)
}

func (f *Front) unavailable(a *exchange.Answer, retryAfter time.Duration, why string) {
	a.Add("retry-after", strconv.Itoa(int(retryAfter/time.Second)))
	a.Add("x-isochrone-pop", f.config.Name)
	a.Add("content-type", problem.ContentType)
	a.Status, a.Body = http.StatusServiceUnavailable, problem.Append(a.Body[:0], http.StatusServiceUnavailable, why)
}

// HandOver says that another process has the sockets too and takes new connections: those that have begun here are not refused. It
// is called before the end of Serve's context, when no packet of a new connection comes here any more.
func (f *Front) HandOver() { f.handedOver.Store(true) }

// server is one transport on one socket.
type server interface {
	serve() error
	settle(ctx context.Context) // takes no new connections, and returns when those that have begun can be told to go, or with ctx
	drain(ctx context.Context)  // tells the clients to go, and returns when their requests and connections have ended, or with ctx
	close()                     // ends everything
}

// Serve serves until ctx ends or a socket fails. Then it refuses new connections, tells the clients to go, and lets requests and
// connections end, for the drain timeout at most. It is called once.
func (f *Front) Serve(ctx context.Context, sockets ...Listeners) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		running  sync.WaitGroup
		failures = make(chan error, 2*len(sockets))
		servers  []server
	)
	for _, l := range sockets {
		q, err := f.listenQUIC(l)
		if err != nil {
			failures <- fmt.Errorf("HTTP/3: %w", err)
			l.close()
			cancel()
			continue
		}
		servers = append(servers, q)
		if l.TCP != nil {
			servers = append(servers, f.newTCPServer(l))
		}
	}
	for _, s := range servers {
		running.Go(func() {
			if err := s.serve(); err != nil && ctx.Err() == nil {
				failures <- err
				cancel()
			}
		})
	}
	tending, stop := context.WithCancel(context.WithoutCancel(ctx))
	running.Go(func() { _ = f.overload.Run(tending) }) // it ends with its context
	running.Go(func() { f.tend(tending) })
	<-ctx.Done()
	f.drain(ctx, servers)
	stop()
	running.Wait()
	close(failures)
	var all []error
	for err := range failures {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// How long a Front that is handed over waits for connections that have just begun, and the other process for the requests here:
// those that are not done then, since their bodies come slowly, are refused.
const (
	settleTimeout = time.Second
	calmTimeout   = 2 * time.Second
	calmTime      = 50 * time.Millisecond // without a request, before none is taken any more
)

func (f *Front) drain(ctx context.Context, servers []server) {
	grace, release := context.WithTimeout(context.WithoutCancel(ctx), f.config.DrainTimeout)
	defer release()
	calmly := grace
	var all sync.WaitGroup
	if f.handedOver.Load() {
		settling, settled := context.WithTimeout(grace, settleTimeout)
		for _, s := range servers {
			all.Go(func() { s.settle(settling) })
		}
		all.Wait()
		settled()
		var done context.CancelFunc
		calmly, done = context.WithTimeout(grace, calmTimeout)
		defer done()
	}
	close(f.draining)
	for _, s := range servers {
		all.Go(func() {
			s.drain(grace)
			s.close()
		})
	}
	// Those that were told to go may have sent a request before they heard it.
	calm := time.Now()
	f.when(calmly, func() bool {
		if f.connections.active() > 0 {
			calm = time.Now()
		}
		return time.Since(calm) > calmTime
	})
	f.leaving.Store(true)
	f.when(calmly, func() bool { return f.connections.active() == 0 })
	close(f.quiet)
	all.Wait()
}

// drainInterval is how often a Front that is ending looks whether it can.
const drainInterval = 5 * time.Millisecond

// when returns when something has come true, or with ctx.
func (f *Front) when(ctx context.Context, is func() bool) {
	look := time.NewTicker(drainInterval)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// tend closes connections that do nothing, or nothing more once the Front is ending, until ctx ends.
func (f *Front) tend(ctx context.Context) {
	look := time.NewTicker(idleTimeout / 10)
	defer look.Stop()
	draining, began := f.draining, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-draining:
			draining, began = nil, time.Since(f.began)
			look.Reset(drainInterval)
		case <-look.C:
		}
		for _, c := range f.connections.all() {
			why := c.stale()
			if began > 0 && c.active.Load() == 0 && c.streams.Load() == 0 && c.now()-max(began, time.Duration(c.progress.Load())) > c.linger() {
				why = "the PoP is ending"
			}
			if why != "" {
				c.close(why)
			}
		}
	}
}
