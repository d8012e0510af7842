package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// Node is what a process of Isochrone tells of itself, under nodes/NAME, for as long as it lives.
type Node struct {
	Schema      int       `yaml:"schema" json:"schema"`                       // of this record
	Kind        string    `yaml:"kind" json:"kind"`                           // dns, pop, control or up
	Version     string    `yaml:"version" json:"version"`                     // of the program
	SchemaKnown int       `yaml:"schema_known" json:"schema_known"`           // the newest schema of objects that it knows
	Started     time.Time `yaml:"started" json:"started"`                     //
	Revision    int64     `yaml:"revision" json:"revision"`                   // of the store, as far as it has read
	Good        int64     `yaml:"topology_revision" json:"topology_revision"` // in force there
	Hash        string    `yaml:"hash,omitempty" json:"hash,omitempty"`       // of all that is in force there

	Loads map[string]PoPLoad `yaml:"loads,omitempty" json:"loads,omitempty"` // of the PoPs that run there, by name
}

// PoPLoad is how busy a PoP is, as it tells every few seconds.
type PoPLoad struct {
	Requests   float64 `yaml:"requests" json:"requests"`                     // a second
	Shed       float64 `yaml:"shed,omitempty" json:"shed,omitempty"`         // a second, refused for overload
	Capacity   float64 `yaml:"capacity,omitempty" json:"capacity,omitempty"` // requests a second that it has shown to be all it can do; 0 until then
	CPU        float64 `yaml:"cpu" json:"cpu"`                               // 0..1 of its processors
	QueueDelay float64 `yaml:"queue_ms,omitempty" json:"queue_ms,omitempty"` // ms that requests wait for a processor
}

// Equal reports whether two records say the same.
func (n Node) Equal(o Node) bool {
	loads := maps.Equal(n.Loads, o.Loads)
	n.Loads, o.Loads = nil, nil
	return loads && reflect.DeepEqual(n, o)
}

// Presence is what a process tells of itself for as long as it lives.
type Presence struct {
	Node      func() Node     // asked every few seconds
	Report    func() []byte   // as a vantage, under reports/NAME, as package health encodes it; nil when it is none, and empty when it has nothing to say
	Announces func() []byte   // what it announces by BGP, under announces/NAME, for who announces the same; nil when it announces nothing
	Changed   <-chan struct{} // the report or what it announces has changed; nil for never
}

// NodeName returns the name by which a node is known, which its certificate has too: it names one among all kinds.
func NodeName(kind, name string) string { return kind + ":" + name }

const (
	nodeTTL        = 10 * time.Second       // of a node that says nothing any more
	nodeInterval   = 5 * time.Second        // between two records of one node
	reportInterval = 250 * time.Millisecond // between two reports of one node, at least
	maxNodeBytes   = 16 << 10               // of a record
)

// Register keeps a node's record and report in the store, under one lease, until ctx ends, whose error it returns; then both are removed. The
// record is written when it has changed, as is seen every few seconds, and the report when p.Changed says so, at most four times a second. It
// outlives losses of etcd and of the lease, and ends by itself only when etcd does not permit it.
func (s *Store) Register(ctx context.Context, name string, p Presence) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := s.registerOnce(ctx, name, p) // whoever follows the store tells why it cannot be used
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			return fmt.Errorf("write nodes/%s: %w", name, err)
		}
		if time.Since(began) > nodeTTL {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// registerOnce registers a node until its lease is lost.
func (s *Store) registerOnce(ctx context.Context, name string, p Presence) error {
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	lease, err := s.client.Grant(asking, int64(nodeTTL/time.Second))
	cancel()
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = s.client.Revoke(last, lease.ID) // else it ends by itself
	}()
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	alive, err := s.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	written := map[string]string{}
	write := func(key, value string) error {
		if written[key] == value {
			return nil
		}
		asking, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		_, err := s.client.Put(asking, s.root+key, value, clientv3.WithLease(lease.ID))
		if err == nil {
			written[key] = value
		}
		return err
	}
	look := time.NewTicker(nodeInterval)
	defer look.Stop()
	changed, again := p.Changed, (<-chan time.Time)(nil)
	for both := true; ; {
		if both {
			if err := write("nodes/"+name, string(topology.MarshalValue(p.Node()))); err != nil {
				return err
			}
		}
		if p.Report != nil {
			if report := p.Report(); len(report) > 0 {
				if err := write("reports/"+name, string(report)); err != nil {
					return err
				}
			}
		}
		if p.Announces != nil {
			if announces := p.Announces(); len(announces) > 0 {
				if err := write("announces/"+name, string(announces)); err != nil {
					return err
				}
			}
		}
		both = false
		for waits := true; waits; {
			select {
			case _, open := <-alive:
				if !open {
					return errors.New("the lease is lost")
				}
			case <-changed:
				changed, again, waits = nil, time.After(reportInterval), false
			case <-again:
				changed, again = p.Changed, nil
			case <-look.C:
				both, waits = true, false
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// Nodes returns the nodes that are alive, by name.
func (s *Store) Nodes(ctx context.Context) (map[string]Node, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"nodes/", clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	nodes := map[string]Node{}
	for _, kv := range response.Kvs {
		addNode(nodes, strings.TrimPrefix(string(kv.Key), s.root), kv.Value)
	}
	return nodes, nil
}

// FollowNodes calls publish with the nodes that are alive, by name, and again after changes, until ctx ends, whose error it returns. Each
// map is publish's own. While etcd is away nothing is published.
func (s *Store) FollowNodes(ctx context.Context, publish func(map[string]Node)) error {
	nodes := map[string]Node{}
	return (&Tail{Feed: s.Feed(Sections{"nodes/"}), Take: func(u Update) {
		for _, key := range u.Delete {
			delete(nodes, strings.TrimPrefix(key, "nodes/"))
		}
		for key, value := range u.Put {
			addNode(nodes, key, value)
		}
		publish(maps.Clone(nodes))
	}}).Run(ctx)
}

// addNode adds a record. One that cannot be read is left out: it is of a newer program, or of nobody.
func addNode(nodes map[string]Node, key string, value []byte) {
	name := strings.TrimPrefix(key, "nodes/")
	delete(nodes, name)
	var n Node
	if len(value) <= maxNodeBytes && yaml.Unmarshal(value, &n) == nil && n.Kind != "" { // a newer program's may have more fields
		nodes[name] = n
	}
}
