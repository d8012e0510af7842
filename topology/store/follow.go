package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// The pauses between attempts to reach etcd grow from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// errCompacted ends a watch whose revision is gone: all is read anew.
var errCompacted = errors.New("compacted")

// Follow calls publish with a snapshot of what is stored, and again after every change, until ctx ends. What one
// transaction wrote becomes visible in one snapshot. It outlives losses of etcd: snapshots stay as they are meanwhile.
// Last is what was in force before, such as Load returns, or nil; its topology is good until a valid one is read. The error
// is that of ctx.
func (s *Store) Follow(ctx context.Context, last *topology.Snapshot, publish func(*topology.Snapshot)) error {
	if last == nil {
		last = &topology.Snapshot{}
	}
	note := func(snap *topology.Snapshot) {
		last = snap
		publish(snap)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		before := last
		err := s.followOnce(ctx, last, note)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if last != before {
			pause = firstPause
		}
		if errors.Is(err, errCompacted) {
			continue
		}
		if s.failed != nil {
			s.failed(err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followOnce reads everything at one revision and watches from the next one on, until something fails.
func (s *Store) followOnce(ctx context.Context, last *topology.Snapshot, publish func(*topology.Snapshot)) error {
	assembler := topology.NewAssembler(last.Topology, last.Good)
	assembler.KeepSigning(last.Signing, last.Signed)
	revision, err := s.load(ctx, assembler, nil)
	if err != nil {
		return err
	}
	if revision < last.Revision {
		return fmt.Errorf("etcd is at revision %d, behind %d: it was restored from a backup, or is another one", revision, last.Revision)
	}
	publish(assembler.Snapshot(revision))

	// A watch for each section, so that what else stands below the root costs nothing here.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watches := make([]reflect.SelectCase, len(sections))
	for i, section := range sections {
		watch := s.client.Watch(ctx, s.root+section, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
		watches[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(watch)}
	}
	for {
		_, received, open := reflect.Select(watches)
		response := received.Interface().(clientv3.WatchResponse)
		switch {
		case !open:
			return errors.New("the watch has ended")
		case response.CompactRevision != 0:
			return errCompacted
		case response.Err() != nil:
			return response.Err()
		case len(response.Events) == 0:
			continue
		}
		for _, event := range response.Events {
			key := strings.TrimPrefix(string(event.Kv.Key), s.root)
			if event.Type == clientv3.EventTypeDelete {
				assembler.Delete(key)
			} else {
				assembler.Put(key, event.Kv.Value)
			}
			revision = max(revision, event.Kv.ModRevision)
		}
		publish(assembler.Snapshot(revision))
	}
}
