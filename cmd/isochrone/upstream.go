package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/topology/store"
)

// upstream is what a node follows, tells of itself, and takes grants of quota from: etcd, or a relay.
type upstream struct {
	feed     store.Feed
	register func(ctx context.Context, current func() store.Node) error // until ctx ends
	quota    quota.Store
	close    func() error
}

// etcdUpstream follows etcd itself, as a node of a kind with a name. The client is the caller's until close.
func etcdUpstream(client *clientv3.Client, root, kind, name string) *upstream {
	s := store.New(client, root)
	return &upstream{
		feed: s.Feed(store.SectionsOf(kind)),
		register: func(ctx context.Context, current func() store.Node) error {
			return s.Register(ctx, store.NodeName(kind, name), current)
		},
		quota: quota.NewEtcdStore(client, root),
		close: client.Close,
	}
}

// connectPause is the time between attempts to make an upstream.
const connectPause = 2 * time.Second

// errNoUpstream says that nobody can be asked for quota.
var errNoUpstream = errors.New("there is neither etcd nor a relay yet")

// Grant implements quota.Store with the upstream of the moment.
func (n *node) Grant(ctx context.Context, key string, window, limit, want int64) (int64, error) {
	if up := n.upstream.Load(); up != nil {
		return up.quota.Grant(ctx, key, window, limit, want)
	}
	return 0, errNoUpstream
}
