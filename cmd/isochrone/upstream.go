package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/topology/relay"
	"github.com/isochrone/isochrone/topology/store"
)

// upstream is what a node follows, tells of itself, and takes grants of quota from: etcd, or a relay.
type upstream struct {
	feed     store.Feed
	register func(ctx context.Context, p store.Presence) error // until ctx ends
	quota    quota.Store
	close    func() error
}

// etcdUpstream follows etcd itself, as a node of a kind with a name. The client is the caller's until close.
func etcdUpstream(client *clientv3.Client, root, kind, name string) *upstream {
	s := store.New(client, root)
	return &upstream{
		feed: s.Feed(store.SectionsOf(kind)),
		register: func(ctx context.Context, p store.Presence) error {
			return s.Register(ctx, store.NodeName(kind, name), p)
		},
		quota: quota.NewEtcdStore(client, root),
		close: client.Close,
	}
}

// connectPause is the time between attempts to make an upstream.
const connectPause = 2 * time.Second

// errNoUpstream says that nobody can be asked for quota.
var errNoUpstream = errors.New("there is neither etcd nor a relay yet")

// Exchange implements quota.Store with the upstream of the moment.
func (n *node) Exchange(ctx context.Context, r quota.Request) (quota.Answer, error) {
	if up := n.upstream.Load(); up != nil {
		return up.quota.Exchange(ctx, r)
	}
	return quota.Answer{}, errNoUpstream
}

// relayed is a quota.Store behind a relay.
type relayed struct{ *relay.Client }

// Exchange implements quota.Store.
func (c relayed) Exchange(ctx context.Context, r quota.Request) (quota.Answer, error) {
	ask := relay.Quota{Open: r.Open, Lost: r.Lost}
	for _, one := range r.Asks {
		ask.Asks = append(ask.Asks, relay.QuotaAsk(one))
	}
	got, err := c.Quota(ctx, ask)
	answer := quota.Answer{Window: got.Window, Rest: got.Rest}
	for _, g := range got.Grants {
		answer.Grants = append(answer.Grants, quota.Granted(g))
	}
	return answer, err
}

// quotaForRelay is what a relay asks of a store for PoPs.
func quotaForRelay(s quota.Store) func(ctx context.Context, q relay.Quota) (relay.QuotaAnswer, error) {
	return func(ctx context.Context, q relay.Quota) (relay.QuotaAnswer, error) {
		r := quota.Request{PoP: q.PoP, Open: q.Open, Lost: q.Lost}
		for _, one := range q.Asks {
			r.Asks = append(r.Asks, quota.Ask(one))
		}
		got, err := s.Exchange(ctx, r)
		answer := relay.QuotaAnswer{Window: got.Window, Rest: got.Rest}
		for _, g := range got.Grants {
			answer.Grants = append(answer.Grants, relay.QuotaGranted(g))
		}
		return answer, err
	}
}
