// Package agent is a node operator's local end of an intake: it takes payloads over plain HTTP from programs on the same machine that
// speak nothing better, keeps them in a small durable queue, and posts them to the nearest PoP until one has accepted or refused them.
// It does not find PoPs or speak HTTP/3 itself: that is internal/intakeclient.
package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/intakeclient"
)

// Limits of an agent.
const (
	workers           = 16 // payloads that are posted at a time
	maxBody           = 16 << 20
	maxBodies         = 64 << 20 // of all bodies that are being read or stored
	firstRead         = 64 << 10 // taken at first for a body whose length is not told
	maxIdempotencyKey = 255
	maxField          = 255              // octets of another field of a header
	bodyTimeout       = 30 * time.Second // a program has to send a body
	busyWait          = time.Second      // before a program tries a full queue again
)

// Config is what an agent needs.
type Config struct {
	Service   string               // host name
	Key       string               // API key
	Queue     *spool.Spool         // closed by Run
	Sender    *intakeclient.Sender // closed by Run
	Wait      time.Duration        // how long a program waits for the PoP's answer; 0 answers as soon as a payload is queued
	MaxBodies int64                // octets of bodies that are being read at a time; default 64 MiB
	Keep      []string             // further fields of a program's header that are sent on, such as those of a signature; at most 8
	Log       *slog.Logger
}

// Agent is an http.Handler; Run posts what it has taken.
type Agent struct {
	config Config
	counts counts
	pages  http.CrossOriginProtection // refuses what pages in a browser send
	bodies *semaphore.Weighted        // octets of those that are being read
	hurry  chan struct{}              // closed when nobody is to wait any more
	ending func()                     // closes it

	mu      sync.Mutex
	waiting map[string]chan *intakeclient.Answer // programs that wait, by id
	quota   time.Time                            // until when the key has none

	failed   int       // rounds that have failed since one did not
	putOff   bool      // payloads were put off because of an outage
	hastened time.Time // when all that wait were tried last
}

type counts struct{ taken, accepted, refused, dead, retried atomic.Uint64 }

// Stats are totals since the start.
type Stats struct{ Taken, Accepted, Refused, Dead, Retried uint64 }

// New returns an agent.
func New(c Config) *Agent {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.MaxBodies = cmp.Or(c.MaxBodies, maxBodies)
	a := &Agent{config: c, bodies: semaphore.NewWeighted(c.MaxBodies), hurry: make(chan struct{}), waiting: map[string]chan *intakeclient.Answer{}}
	a.ending = sync.OnceFunc(func() { close(a.hurry) })
	return a
}

// Stats returns totals since the start.
func (a *Agent) Stats() Stats {
	return Stats{a.counts.taken.Load(), a.counts.accepted.Load(), a.counts.refused.Load(), a.counts.dead.Load(), a.counts.retried.Load()}
}

// Hurry has programs that wait for a PoP's answer, now and from now on, be told that their payload is queued: the agent is about to end.
func (a *Agent) Hurry() { a.ending() }

// Run posts what is queued until ctx ends; the rest, and what is under way, waits for the next start.
func (a *Agent) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for range workers {
		running.Go(func() { a.work(ctx) })
	}
	running.Wait()
	a.Hurry()
	return errors.Join(a.config.Sender.Close(), a.config.Queue.Close())
}
