package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// writer is a way to edit.
type writer struct {
	name           string
	apply          func(context.Context, *edit) error
	rollback       func(ctx context.Context, revision int64) error
	putOverride    func(ctx context.Context, name string, o *topology.Override) (revision int64, err error)
	deleteOverride func(ctx context.Context, name string) (revision int64, err error)
}

// edit is an edit that was made up.
type edit struct {
	kind   string
	put    map[topology.Ref]topology.Object
	texts  map[string]string // of a writer who is not checked, in place of put: what stands below topology/
	remove []topology.Ref
	base   int64
	revert bool
}

// randomEdit makes up an edit. Extra PoPs x0 to x5 come and go; some services name them.
func randomEdit(random *rand.Rand, author string, n int) *edit {
	e := &edit{put: map[topology.Ref]topology.Object{}, texts: map[string]string{}}
	extra := topology.Ref{Kind: topology.PoPs, Name: fmt.Sprint("x", random.IntN(6))}
	service := topology.Ref{Kind: topology.Services, Name: fmt.Sprintf("s%d.%s", random.IntN(3), topology.ExampleZone)}
	old := topology.Ref{Kind: topology.PoPs, Name: topology.ExamplePoPs[1+random.IntN(5)]}
	switch dice := random.IntN(20); {
	case dice < 7:
		e.kind, e.put[extra] = "put", randomPoP(random, author, n)
	case dice < 10: // both or none
		e.kind = "put two"
		e.put[extra], e.put[old] = randomPoP(random, author, n), randomPoP(random, author, n)
	case dice < 12:
		s := &topology.Service{Schema: 1, PoPs: []string{old.Name, extra.Name}}
		s.Steering.Answers, s.Steering.TTL, s.Steering.ECS, s.Steering.WhenAllDown = 1, topology.Duration(time.Duration(1+n%60)*time.Second), topology.UseECS, topology.FailOpen
		s.Steering.Rank, s.Intake.Ack, s.Intake.MaxBodyBytes = topology.RankByRTT, topology.AckSpool, 1<<16
		e.kind, e.put[service] = "put service", s
	case dice < 14:
		e.kind, e.remove = "delete", []topology.Ref{extra}
	case dice < 15:
		e.kind, e.remove = "delete service", []topology.Ref{service}
	case dice < 17:
		wrong := randomPoP(random, author, n)
		wrong.Location.LatDeg = 135
		e.kind, e.put[old] = "put invalid", wrong
	case dice < 18:
		wrong := randomPoP(random, author, n)
		wrong.Addresses = []netip.Addr{netip.MustParseAddr("127.0.77.2")} // fra1's, perhaps
		e.kind, e.put[extra], e.put[old] = "put doubtful", wrong, randomPoP(random, author, n)
	default:
		e.kind = "put garbage"
		name := []string{extra.String(), old.String(), "junk", "pops/a/b"}[random.IntN(4)]
		e.texts[name] = []string{"", "schema: 1\nstat: active\n", "schema: 9\nnew: things\n", "\x00\xff{", "a: [", "schema: 1"}[random.IntN(6)]
	}
	return e
}

// randomPoP is a valid PoP somewhere, which differs from all others.
func randomPoP(random *rand.Rand, author string, n int) *topology.PoP {
	p := &topology.PoP{Schema: 1, Port: 443, CapacityRPS: 1 + random.IntN(1<<20), State: topology.Active}
	p.Location = topology.Location{
		LatDeg: float64(random.IntN(120) - 60), LonDeg: float64(random.IntN(360) - 180), Country: "DE", City: fmt.Sprintf("%s %d", author, n),
	}
	p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(random.IntN(256)), byte(random.IntN(256)), byte(random.IntN(256))})}
	return p
}

// apiWriter edits by the API of a control plane.
func apiWriter(name string, c *controlplane.Client) *writer {
	return &writer{
		name: name,
		apply: func(ctx context.Context, e *edit) error {
			document := &topology.Topology{Zones: map[string]*topology.Zone{}}
			document = document.With(e.put, nil)
			text := string(document.Marshal())
			for object, garbage := range e.texts {
				kind, name, _ := strings.Cut(object, "/")
				text += fmt.Sprintf("%s:\n  %q: %q\n", kind, name, garbage)
			}
			request := controlplane.ApplyRequest{Document: text, Base: e.base, RevertInvalid: e.revert, Message: e.kind}
			for _, r := range e.remove {
				request.Delete = append(request.Delete, r.String())
			}
			_, err := c.Apply(ctx, request)
			return err
		},
		rollback: func(ctx context.Context, revision int64) error {
			_, err := c.Rollback(ctx, controlplane.RollbackRequest{Revision: revision})
			return err
		},
		putOverride:    c.PutOverride,
		deleteOverride: c.DeleteOverride,
	}
}

// storeWriter edits as the command line does that goes straight to etcd.
func storeWriter(s *store.Store) *writer {
	return &writer{
		name: "store",
		apply: func(ctx context.Context, e *edit) error {
			if len(e.texts) > 0 { // it writes objects only
				return &topology.InvalidError{}
			}
			_, err := s.Apply(ctx, store.Change{Put: e.put, Delete: e.remove, Base: e.base, RevertInvalid: e.revert, Author: "store", Message: e.kind})
			return err
		},
		rollback: func(ctx context.Context, revision int64) error {
			_, err := s.Rollback(ctx, revision, 0, "store", "rollback")
			return err
		},
		putOverride:    s.PutOverride,
		deleteOverride: func(ctx context.Context, name string) (int64, error) { return s.DeleteOverride(ctx, name, "store") },
	}
}

// plainWriter edits as etcdctl does: nobody checks it, and it reads nothing before.
func plainWriter(client *clientv3.Client) *writer {
	commit := func(ctx context.Context, ops ...clientv3.Op) (int64, error) {
		response, err := client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return 0, err
		}
		return response.Header.Revision, nil
	}
	return &writer{
		name: "plain",
		apply: func(ctx context.Context, e *edit) error {
			var ops []clientv3.Op
			for r, o := range e.put {
				ops = append(ops, clientv3.OpPut(storeRoot+"topology/"+r.String(), string(topology.MarshalValue(o))))
			}
			for object, text := range e.texts {
				ops = append(ops, clientv3.OpPut(storeRoot+"topology/"+object, text))
			}
			for _, r := range e.remove {
				ops = append(ops, clientv3.OpDelete(storeRoot+"topology/"+r.String()))
			}
			_, err := commit(ctx, ops...)
			return err
		},
		rollback: func(ctx context.Context, revision int64) error { // of one object, by hand
			then, err := client.Get(ctx, storeRoot+"topology/pops/x", clientv3.WithPrefix(), clientv3.WithRev(revision), clientv3.WithLimit(1))
			if err == nil && len(then.Kvs) > 0 {
				_, err = commit(ctx, clientv3.OpPut(string(then.Kvs[0].Key), string(then.Kvs[0].Value)))
			}
			return err
		},
		putOverride: func(ctx context.Context, name string, o *topology.Override) (int64, error) {
			return commit(ctx, clientv3.OpPut(storeRoot+"overrides/"+name, string(topology.MarshalValue(o))))
		},
		deleteOverride: func(ctx context.Context, name string) (int64, error) {
			return commit(ctx, clientv3.OpDelete(storeRoot+"overrides/"+name))
		},
	}
}
