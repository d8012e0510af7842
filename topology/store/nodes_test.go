package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// TestRegister has a node tell of itself, lose its lease, and end.
func TestRegister(t *testing.T) {
	t.Parallel()
	s, client := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	newest := make(chan map[string]Node, 1000)
	running.Go(func() { _ = s.FollowNodes(ctx, func(nodes map[string]Node) { newest <- nodes }) })
	until := func(what string, wanted func(map[string]Node) bool) {
		t.Helper()
		for timeout := time.After(20 * time.Second); ; {
			select {
			case nodes := <-newest:
				if wanted(nodes) {
					return
				}
			case <-timeout:
				t.Fatalf("never seen: %s", what)
			}
		}
	}
	var revision atomic.Int64
	revision.Store(7)
	began := time.Now().UTC().Truncate(time.Second)
	node := func() Node {
		return Node{Schema: 1, Kind: "pop", Version: "v1", SchemaKnown: 1, Started: began, Revision: revision.Load(), Good: 5}
	}
	name := NodeName("pop", "sin1")
	var report atomic.Pointer[[]byte]
	report.Store(&[]byte{})
	changed := make(chan struct{})
	registering, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	running.Go(func() {
		ended <- s.Register(registering, name, Presence{Node: node, Changed: changed, Report: func() []byte { return *report.Load() }})
	})
	until("the node", func(nodes map[string]Node) bool { return cmp.Equal(nodes, map[string]Node{name: node()}) })

	got, err := client.Get(ctx, "/isochrone/nodes/"+name)
	if err != nil || len(got.Kvs) != 1 || got.Kvs[0].Lease == 0 {
		t.Fatalf("got %v, %v, want a record with a lease", got, err)
	}
	if _, err := client.Put(ctx, "/isochrone/nodes/dns:odd", "kind: [a list]"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Revoke(ctx, clientv3.LeaseID(got.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	until("the node without its lease", func(nodes map[string]Node) bool { return len(nodes) == 0 })
	revision.Store(8)
	until("the node with another lease", func(nodes map[string]Node) bool { return nodes[name].Revision == 8 })
	revision.Store(9)
	until("a change", func(nodes map[string]Node) bool { return nodes[name].Revision == 9 })

	reports := make(chan string, 100)
	running.Go(func() {
		_ = (&Follower{Feed: s.Feed(SectionsOf("dns")), Publish: func(*topology.Snapshot) {}, Moment: func(u Update) {
			for key, value := range u.Put {
				reports <- key + "=" + string(value)
			}
			for _, key := range u.Delete {
				reports <- key
			}
		}}).Run(ctx)
	})
	reported := func(want string) {
		t.Helper()
		select {
		case got := <-reports:
			if got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never reported: %s", want)
		}
	}
	for _, text := range []string{"a", "b"} {
		value := []byte(text)
		report.Store(&value)
		changed <- struct{}{}
		reported("reports/" + name + "=" + text)
	}

	end()
	reported("reports/" + name)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Register returned %v", err)
	}
	until("its end", func(nodes map[string]Node) bool { return len(nodes) == 0 })
	if nodes, err := s.Nodes(ctx); err != nil || len(nodes) != 0 {
		t.Errorf("got %v, %v", nodes, err)
	}
}
