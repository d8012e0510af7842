package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/controlplane/leader"
	"github.com/isochrone/isochrone/controlplane/page"
	"github.com/isochrone/isochrone/dataplane/certs/acme"
	"github.com/isochrone/isochrone/router/spill"
	"github.com/isochrone/isochrone/topology/store"
)

// controlParts are what a control plane does in a process: "isochrone control" and "isochrone up" have them alike.
type controlParts struct {
	log     *slog.Logger
	etcd    *clientv3.Client
	root    string
	name    string // by which nodes are known, of this process
	store   *store.Store
	service *controlplane.Service
	nodes   atomic.Pointer[map[string]store.Node]   // nil before they have been read
	tasks   []leader.Task                           // more of the leader's
	acme    *acme.Manager                           // nil for none
	leads   atomic.Bool                             // does this process
	leader  atomic.Pointer[string]                  // name of the one that does; nil before it is known
	spill   atomic.Pointer[controlplane.SpillState] // what the leader says of shares; nil for nothing yet
}

// newControlParts returns the parts of a process that follows the store as a node.
func newControlParts(etcd *clientv3.Client, root, name string, n *node, s *sources, log *slog.Logger) *controlParts {
	c := &controlParts{log: log, etcd: etcd, root: root, name: name, store: store.New(etcd, root)}
	c.service = &controlplane.Service{
		View: s.live.View, Snapshot: n.Snapshot, Now: time.Now, Store: c.store, Auth: controlplane.NewTokens(etcd, root), Alive: c.alive, Verdicts: n.Verdicts, Vantages: n.vantages, DNS: n.dnsNodes, Alone: n.alone, Leader: c.leads.Load,
		Geo: func() controlplane.GeoStatus {
			info := s.info()
			return controlplane.GeoStatus{
				Type: info.Type, Built: info.Built, CountryOnly: info.CountryOnly, CoarseCountries: info.CoarseCountries,
			}
		},
	}
	c.service.Loads = func() map[string]spill.Load { return controlplane.LoadsOf(c.known()) }
	c.service.Spill, c.service.BGP = c.spill.Load, n.announces.all
	return c
}

// run starts what goes on by itself.
func (c *controlParts) run(on *layer) {
	on.run("tokens", func(ctx context.Context) error {
		var last string
		return c.service.Auth.Follow(ctx, func(err error) {
			if text := err.Error(); text != last {
				last = text
				c.log.Warn("tokens cannot be followed: those that were known stay good, and it is tried again", "error", err)
			}
		})
	})
	on.run("nodes", func(ctx context.Context) error {
		return c.store.FollowNodes(ctx, func(nodes map[string]store.Node) { c.nodes.Store(&nodes) })
	})
	on.run("leader's tasks", func(ctx context.Context) error {
		tasks := append(slices.Clone(c.tasks),
			leader.Task{Name: "record outside edits", Run: c.store.RecordOutside},
			leader.Every(trimInterval, "trim history and audit", func(ctx context.Context) error { return c.store.Trim(ctx, store.Limits{}) }),
			c.spiller().Task(),
			leader.Task{Name: "say who leads", Run: c.lead})
		return leader.Run(ctx, leader.Candidate{Client: c.etcd, Prefix: c.root, Name: c.name, Log: c.log}, tasks...)
	})
	on.run("leader", c.lookForLeader)
	on.run("shares", c.followSpillState)
}

// measure registers what this process tells as the leader.
func (c *controlParts) measure(registry *prometheus.Registry) {
	c.measureSpill(registry)
	if c.acme != nil {
		registry.MustRegister(c.acme.Collector())
	}
}

// trimInterval is how often is looked what of history and audit is too old or too much.
const trimInterval = time.Hour

// lead is the task by which this process knows that it leads.
func (c *controlParts) lead(ctx context.Context) error {
	c.leads.Store(true)
	defer c.leads.Store(false)
	<-ctx.Done()
	return ctx.Err()
}

// leaderInterval is how often is looked who leads.
const leaderInterval = 2 * time.Second

// lookForLeader keeps the name of the leader until ctx ends.
func (c *controlParts) lookForLeader(ctx context.Context) error {
	look := time.NewTicker(leaderInterval)
	defer look.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, leaderInterval)
		if name, _, err := leader.Leader(asking, c.etcd, c.root); err == nil {
			c.leader.Store(&name)
		}
		cancel()
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// alive lists the nodes as they were read last.
func (c *controlParts) alive(context.Context) ([]controlplane.NodeStatus, error) {
	known := c.nodes.Load()
	if known == nil {
		return nil, fmt.Errorf("%w: nodes have not been read yet", controlplane.ErrNotReady)
	}
	list := nodeList(*known)
	if name := c.leader.Load(); name != nil {
		for i := range list {
			list[i].Leader = list[i].Name == *name
		}
	}
	return list, nil
}

// nodeList lists nodes in the form of the API.
func nodeList(known map[string]store.Node) []controlplane.NodeStatus {
	list := []controlplane.NodeStatus{}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		n := known[name]
		list = append(list, controlplane.NodeStatus{
			Name: name, Kind: n.Kind, Version: n.Version, Schema: n.SchemaKnown, Started: n.Started, Revision: n.Revision, Good: n.Good, Hash: n.Hash,
		})
	}
	return list
}

// handler serves the API and the page; its streams end when closing is closed. Others' handlers are mounted by pattern.
func (c *controlParts) handler(registry *prometheus.Registry, closing <-chan struct{}, mounts map[string]http.Handler) http.Handler {
	gauge(registry, "ready", "1 while /readyz says yes.", func() float64 { return truth(c.service.View() != nil) })
	return controlplane.NewHandler(c.service, controlplane.HandlerConfig{
		Log: c.log, Registry: registry, Closing: closing, Page: page.Handler(), Mounts: mounts,
	})
}

// tokenFile is where "isochrone up" keeps its token of the API, in the state directory.
const tokenFile = "api.token"

// ensureToken makes the token of the state directory, unless it is there and good.
func (c *controlParts) ensureToken(ctx context.Context, dir stateDir) error {
	secret, err := dir.read(tokenFile)
	if err == nil {
		known, err := c.service.Auth.Knows(ctx, secret)
		if known || err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made, err := c.service.Auth.Create(ctx, controlplane.TokenRequest{Name: author(), Role: controlplane.Admin}, "up")
	if err != nil {
		return err
	}
	return writeSecret(dir.path(tokenFile), made.Secret)
}

// trafficSpan is over how long requests are counted at the least to tell how many come in a second.
const trafficSpan = 5 * time.Second

// traffic tells how many requests a second the PoPs of this process get.
type traffic struct {
	activity func() controlplane.Activity

	mu    sync.Mutex
	at    time.Time // when was counted
	was   uint64
	rated float64
	known bool
}

func newTraffic(activity func() controlplane.Activity) *traffic {
	t := &traffic{activity: activity, at: time.Now(), known: true} // nothing has come yet
	t.was = t.total()
	return t
}

func (t *traffic) total() uint64 {
	var sum uint64
	for _, counts := range t.activity().PoPs {
		for name, n := range counts {
			if name == "accepted" || strings.HasPrefix(name, "refused_") {
				sum += n
			}
		}
	}
	return sum
}

// rate returns the requests a second since it was asked before, a while ago.
func (t *traffic) rate() (float64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if passed := time.Since(t.at); passed >= trafficSpan {
		now := t.total()
		t.rated, t.known = float64(now-t.was)/passed.Seconds(), true
		t.was, t.at = now, time.Now()
	}
	return t.rated, t.known
}
