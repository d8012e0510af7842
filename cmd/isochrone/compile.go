package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// compiler has a Live take snapshots, one after the other in the background: a large topology takes a while, and what is decided
// meanwhile must not wait for it.
type compiler struct {
	live   *router.Live
	log    *slog.Logger
	before *topology.Snapshot      // taken last
	newest chan *topology.Snapshot // that waits to be compiled

	pending atomic.Int32 // snapshots that wait, or are being compiled
}

func newCompiler(live *router.Live, log *slog.Logger) *compiler {
	return &compiler{live: live, log: log, newest: make(chan *topology.Snapshot, 1)}
}

// take takes a snapshot: the first is in force when it returns, of others the overrides are, unless the topology changed with them. It
// must not be called concurrently.
func (c *compiler) take(snap *topology.Snapshot) {
	before := c.before
	c.before = snap
	switch {
	case before == nil:
		c.compile(snap)
		return
	case before.Topology == snap.Topology:
		if c.pending.Load() == 0 && c.live.Renew(snap, time.Now()) {
			return
		}
		c.live.Decisions(snap, time.Now())
	}
	select {
	case <-c.newest: // which is not the newest any more
	default:
		c.pending.Add(1)
	}
	c.newest <- snap
}

func (c *compiler) compile(snap *topology.Snapshot) {
	if err := c.live.Topology(snap, time.Now()); err != nil {
		c.log.Error("the table stays as it is", "error", err)
	}
}

// run compiles until ctx ends, whose error it returns.
func (c *compiler) run(ctx context.Context) error {
	for {
		select {
		case snap := <-c.newest:
			c.compile(snap)
			c.pending.Add(-1)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
