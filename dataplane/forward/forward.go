package forward

import (
	"container/heap"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/dataplane/tracing"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Times of a Forwarder.
const (
	tick             = 25 * time.Millisecond  // between looks at what is due
	refreshEach      = 100 * time.Millisecond // between looks at topology, verdicts and breakers
	measureEach      = time.Second            // between looks at RTT and tokens
	attemptGrace     = time.Second            // for envelopes on the way when the PoP ends
	defaultDeadAfter = 72 * time.Hour
)

// Spool is what a Forwarder needs of package spool's.
type Spool interface {
	Next(context.Context) (*spool.Item, error)
	Delivered(item *spool.Item, cluster string)
	Return(*spool.Item)
	Bury(item *spool.Item, reason string) error
}

// taker is a Spool that gives many at a time.
type taker interface {
	Take(ctx context.Context, limit int, dst []*spool.Item) ([]*spool.Item, error)
}

// Config is what a Forwarder needs.
type Config struct {
	Name         string                      // of the PoP in the topology
	Snapshot     func() *topology.Snapshot   // newest; nil before the first; must be cheap
	Verdicts     func() health.Verdicts      // of clusters
	Model        *rtt.Model                  // by which clusters are near that are not measured yet
	Spool        Spool                       // must outlive Run
	ClusterToken func(cluster string) string // the bearer token for a cluster; asked for once a second
	Log          *slog.Logger                // nil for none

	Dial         func(ctx context.Context, network, address string) (net.Conn, error) // nil takes TCP
	Tracer       *tracing.Tracer                                                      // nil for none
	Roots        *x509.CertPool                                                       // that clusters' certificates stand on; nil takes the system's
	Acknowledged func(e *spool.Envelope, cluster string)                              // called when a cluster has acknowledged, before the spool knows; may be nil

	speakHTTP2 string // endpoint of a test that speaks HTTP/2 without TLS
}

// Forwarder delivers envelopes. Its methods may be called concurrently; Run once.
type Forwarder struct {
	config Config
	routes atomic.Pointer[routes]
	counts counts

	mu                     sync.Mutex
	running                context.Context // of connections; nil while it does not run
	stopping               bool
	conns                  sync.WaitGroup
	snapshot               *topology.Snapshot
	topology               *topology.Topology
	decided                topology.Decisions
	clusters               map[string]*cluster
	services               map[string]*route
	endpoints              int         // that there ever were
	evicted                []*endpoint // whose queue must go elsewhere
	inFlight               int
	budget                 budget
	later                  waiting
	laterSize              int
	parked                 map[string]*lot // by service: what found all its endpoints full, or none that may be tried
	parkedJobs, parkedSize int             // over all services
	letters                []letter
	unburied, unburiedSize int           // letters that are not on disk yet, and octets of their bodies
	writing                chan struct{} // a letter waits
	room                   chan struct{} // something has left
	passing                bool          // envelopes went back to the spool
	sessions               tls.ClientSessionCache
}

// counts are totals since the start.
type counts struct {
	acknowledged, retried, refused, expired, unsendable atomic.Uint64
}

// letter is an envelope that becomes a dead letter.
type letter struct {
	*job
	reason  string
	counter *atomic.Uint64
}

// New returns a Forwarder, which does nothing before Run but tell Next and Standings.
func New(c Config) *Forwarder {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Forwarder{
		config: c, parked: map[string]*lot{}, writing: make(chan struct{}, 1), room: make(chan struct{}, 1), sessions: tls.NewLRUClientSessionCache(64),
	}
}

// Run forwards until ctx ends. Envelopes that are on the way then have a second to be acknowledged; all else stays in the spool. All that
// it has begun has ended when it returns.
func (f *Forwarder) Run(ctx context.Context) {
	connections, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	f.mu.Lock()
	f.running = connections
	f.refresh(time.Now())
	f.mu.Unlock()
	var running, writer sync.WaitGroup
	running.Go(func() { f.pull(ctx) })
	running.Go(func() { f.keep(ctx) })
	ended := make(chan struct{})
	writer.Go(func() { f.bury(ended) })
	running.Wait()

	f.mu.Lock()
	f.stopping = true
	f.mu.Unlock()
	grace := time.NewTimer(attemptGrace)
	defer grace.Stop()
	for waiting := true; waiting && f.underWay() > 0; {
		select {
		case <-f.room:
		case <-grace.C:
			waiting = false
		}
	}
	f.mu.Lock()
	f.running = nil
	f.mu.Unlock()
	hangUp()
	f.conns.Wait()
	close(ended)
	writer.Wait()
}

func (f *Forwarder) underWay() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inFlight
}

// pull takes envelopes from the spool and places them.
func (f *Forwarder) pull(ctx context.Context) {
	var items []*spool.Item
	take, many := f.config.Spool.(taker)
	for ctx.Err() == nil {
		var err error
		if items = items[:0]; many {
			items, err = take.Take(ctx, 64, items)
		} else {
			var item *spool.Item
			if item, err = f.config.Spool.Next(ctx); err == nil {
				items = append(items, item)
			}
		}
		if err != nil && ctx.Err() == nil {
			f.config.Log.Error("an envelope cannot be forwarded", "error", err)
		}
		now := time.Now()
		f.mu.Lock()
		f.look(now)
		for i, item := range items {
			items[i] = nil
			f.place(&job{item: item, retry: item.Attempts > 0}, now)
		}
		f.mu.Unlock()
		f.hold(ctx)
	}
}

// look refreshes when there is a newer snapshot. The caller holds mu.
func (f *Forwarder) look(now time.Time) {
	if f.config.Snapshot() != f.snapshot {
		f.refresh(now)
	}
}

// place gives a job to an endpoint, or has it wait. The caller holds mu.
func (f *Forwarder) place(j *job, now time.Time) {
	r := f.services[j.item.Service]
	if !isVisible(j.item.ID) {
		f.mail(letter{j, errUnsendable.Error(), &f.counts.unsendable})
		return
	}
	if age := r.age(); now.Sub(j.item.Queued()) > age {
		f.expire(j, age)
		return
	}
	if j.retry && !j.spent {
		if j.spent = f.budget.take(now); !j.spent {
			f.postpone(j, now.Add(budgetPause+time.Duration(len(f.later))*time.Millisecond/10))
			return
		}
	}
	if r == nil {
		f.park(j)
		return
	}
	could := false // be tried, now or soon
	for round := range 2 {
		for _, c := range r.order {
			if c.standing == Down && could {
				break // those that are well come first, even if they have no room now
			}
			if round == 0 && len(r.order) > 1 && !c.turn(now) {
				continue
			}
			for e := range c.choices(now) {
				if j.tried&e.bit != 0 {
					continue
				}
				if !e.allows(now) {
					continue
				}
				could = true
				if !e.room(now, len(j.item.Body)) {
					continue
				}
				if !j.retry {
					f.budget.put(budgetShare)
				}
				e.admit(j)
				e.wake(now)
				return
			}
		}
	}
	if could || !j.retry && j.tried == 0 {
		f.park(j)
		return
	}
	j.tried = 0
	f.postpone(j, now.Add(delay(j.tries+j.item.Attempts)))
	j.tries++
}

// choices yields the endpoints of a cluster, the one with the least to do first.
func (c *cluster) choices(time.Time) func(func(*endpoint) bool) {
	return func(yield func(*endpoint) bool) {
		if len(c.endpoints) == 1 {
			yield(c.endpoints[0])
			return
		}
		least := -1
		for i, e := range c.endpoints {
			if least < 0 || e.queue.n+e.inFlight < c.endpoints[least].queue.n+c.endpoints[least].inFlight {
				least = i
			}
		}
		for i := range c.endpoints {
			if !yield(c.endpoints[(least+i)%len(c.endpoints)]) {
				return
			}
		}
	}
}

// postpone has a job wait for a time. What it has of the budget is given back. The caller holds mu.
func (f *Forwarder) postpone(j *job, until time.Time) {
	f.refund(j)
	if len(f.later) >= maxPostponed || f.laterSize+len(j.item.Body) > postponedSize && len(f.later) > 0 {
		f.giveBack(j)
		return
	}
	f.laterSize += len(j.item.Body)
	heap.Push(&f.later, postponed{j, until})
}

func (f *Forwarder) refund(j *job) {
	if j.spent {
		f.budget.put(1)
		j.spent = false
	}
}

// again sends a job again, that an endpoint has not taken or may not have taken. The caller holds mu.
func (f *Forwarder) again(j *job, e *endpoint, why string, now time.Time) {
	f.counts.retried.Add(1)
	j.failure, j.retry, j.spent = "cluster "+e.cluster.name+" "+why, true, false
	f.place(j, now)
}

// evict places what waits for an endpoint elsewhere.
func (f *Forwarder) evict(e *endpoint, tried uint64, now time.Time) {
	for n := e.queue.n; n > 0; n-- {
		j := e.queue.pop()
		j.tried |= tried
		if tried != 0 {
			j.failure = "cluster " + e.cluster.name + " " + e.lastFailure
		}
		f.place(j, now)
	}
	if e.inFlight == 0 {
		e.spared()
	}
}

// retryable reports whether a status says nothing about the payload: whatever is neither a success nor a client's error, and those of
// the client's errors that are about this PoP's token, its speed or the moment.
func retryable(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status < 200 || status >= 300 && status < 400 || status >= 500
}
