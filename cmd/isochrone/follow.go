package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// follow keeps the snapshot current until ctx ends. While nothing can be connected to, it tries again and again. Each snapshot is also
// given to also, which may be nil. A node that has joined renews its certificate meanwhile.
func (n *node) follow(ctx context.Context, connect func(context.Context) (*upstream, error), also func(*topology.Snapshot)) error {
	if n.kind == "pop" || n.kind == "dns" {
		var renewing sync.WaitGroup
		defer renewing.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		renewing.Go(func() { _ = keepRenewed(ctx, identityDir(n.dir.path(identityFolder)), n.kind, n.log) })
	}
	for {
		up, err := connect(ctx)
		if err == nil {
			n.upstream.Store(up)
			return errors.Join(n.followUpstream(ctx, up, also), up.close())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.contact.note(err)
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followUpstream follows, keeps what is in force on disk, and tells upstream of this node, until ctx ends.
func (n *node) followUpstream(ctx context.Context, up *upstream, also func(*topology.Snapshot)) error {
	last := n.Snapshot()
	if last == nil {
		last = n.load()
	}
	newest := make(chan *topology.Snapshot, 1)
	var running sync.WaitGroup
	defer running.Wait()
	defer close(newest)
	running.Go(func() { n.keep(newest) })
	if n.kind != "" {
		running.Go(func() { n.register(ctx, up) })
	}
	running.Go(func() { n.keepShares(ctx) })
	follower := store.Follower{Feed: up.feed, Last: last, Contact: n.contact.note, Moment: n.moment, Publish: func(snap *topology.Snapshot) {
		n.take(snap, also)
		n.fresh()
		select {
		case <-newest: // which is not the newest any more
		default:
		}
		newest <- snap
	}}
	return follower.Run(ctx)
}

// registerPause is how long after upstream has refused to be told of this node it is told again.
const registerPause = time.Minute

// firstPause is how long a node waits for its first topology before it tells of itself: without one it would be told to be behind.
const firstPause = 2 * time.Second

// register tells upstream of this node until ctx ends.
func (n *node) register(ctx context.Context, up *upstream) {
	select {
	case <-n.first:
	case <-time.After(firstPause):
	case <-ctx.Done():
		return
	}
	for {
		presence := store.Presence{Node: n.record, Report: n.looks.stored, Changed: n.looks.changed}
		if n.announces != nil {
			presence.Announces = n.announces.text
		}
		err := up.register(ctx, presence)
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("this node does not show in the status: it may not tell of itself", "error", err)
		select {
		case <-time.After(registerPause):
		case <-ctx.Done():
			return
		}
	}
}

// record is what the node tells of itself.
func (n *node) record() store.Node {
	r := store.Node{
		Schema: topology.SchemaVersion, Kind: n.kind, Version: version(), SchemaKnown: topology.SchemaVersion, Started: n.started,
	}
	r.Loads = n.loads()
	if snap := n.Snapshot(); snap != nil {
		r.Revision, r.Good, r.Hash = snap.Revision, snap.Good, snap.Hash
	}
	return r
}

// hostName is how a node is called that has no name of its own.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "unnamed"
	}
	return name
}

// keepInterval is how long after another a snapshot is kept on disk at the soonest.
const keepInterval = time.Second

// keepPause is how long to wait after a snapshot has been kept, which took a while: of one core that is at most a twentieth, however often
// something changes.
func keepPause(took time.Duration) time.Duration { return max(keepInterval, 19*took) }

// keep keeps the newest snapshot on disk, until there are no more.
func (n *node) keep(newest <-chan *topology.Snapshot) {
	var (
		waiting *topology.Snapshot
		again   <-chan time.Time // nil: at once
	)
	keeper := store.NewKeeper(n.lastGood)
	save := func(snap *topology.Snapshot) {
		start := time.Now()
		if err := keeper.Save(snap); err != nil {
			n.log.Error("the last good topology cannot be kept on disk", "error", err)
		}
		waiting, again = nil, time.After(keepPause(time.Since(start)))
	}
	for {
		select {
		case snap, more := <-newest:
			switch {
			case !more && waiting != nil:
				save(waiting)
				return
			case !more:
				return
			case again != nil:
				waiting = snap
			default:
				save(snap)
			}
		case <-again:
			if again = nil; waiting != nil {
				save(waiting)
			}
		}
	}
}

// resume begins with the topology that was in force last, of this node, else of the state folder, if there is one.
func (n *node) resume(also func(*topology.Snapshot)) {
	last := n.load()
	if last == nil || len(last.Topology.Refs()) == 0 {
		var err error
		if last, err = store.Load(n.dir.path("last-good.yaml")); err != nil || len(last.Topology.Refs()) == 0 {
			return
		}
	}
	n.take(last, also)
	n.log.Info("begins with the last good topology on disk", "revision", last.Good)
}

// load reads the last good topology from disk; nil stands for none.
func (n *node) load() *topology.Snapshot {
	last, err := store.Load(n.lastGood)
	if err != nil {
		n.log.Error("the last good topology on disk cannot be used, or its keys", "keys_lost", last != nil, "error", err)
	}
	return last
}
