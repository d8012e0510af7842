package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// resume begins with the topology that was in force last: of this node, else of the state folder.
func (d *dnsNode) resume() {
	last := d.node.load()
	if last == nil || len(last.Topology.Zones) == 0 {
		var err error
		if last, err = store.Load(d.node.dir.path("last-good.yaml")); err != nil || len(last.Topology.Zones) == 0 {
			return
		}
	}
	d.node.take(last, d.compile)
	d.log.Info("begins with the last good topology on disk", "revision", last.Good)
}

func (d *dnsNode) compile(snap *topology.Snapshot) {
	if err := d.sources.live.Topology(snap, time.Now()); err != nil {
		d.log.Error("the table stays as it is", "error", err)
	}
}

// connectPause is the time between attempts to make a client of etcd.
const connectPause = 2 * time.Second

// follow keeps the topology as it is in etcd. While there is no etcd, or it refuses us, it tries again and again.
func (d *dnsNode) follow(ctx context.Context) error {
	for {
		client, err := d.start.etcd.connect(ctx, d.start.dir)
		if err == nil {
			return errors.Join(d.followClient(ctx, client), client.Close())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.contact.note(err)
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followClient keeps the topology as it is in etcd, and reads all of it anew when etcd has fallen behind.
func (d *dnsNode) followClient(ctx context.Context, client *clientv3.Client) error {
	behind, watched := make(chan struct{}, 1), make(chan struct{})
	defer func() { <-watched }()
	go func() {
		defer close(watched)
		d.contact.watch(ctx, client, d.storeRevision, func() {
			select {
			case behind <- struct{}{}:
			default:
			}
		})
	}()
	d.node.store = store.New(client, d.start.etcd.prefix)
	d.node.store.OnFailure(d.contact.noteFollowing)
	for ctx.Err() == nil {
		following, again := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.node.follow(following, func(snap *topology.Snapshot) {
				d.contact.noteFollowing(nil)
				d.compile(snap)
			})
		}()
		select {
		case <-behind:
		case <-ctx.Done():
		}
		again()
		<-ended
	}
	return ctx.Err()
}

// storeRevision returns the store's revision that was read last, or 0.
func (d *dnsNode) storeRevision() int64 {
	if snap := d.node.Snapshot(); snap != nil {
		return snap.Revision
	}
	return 0
}
