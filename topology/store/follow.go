package store

import (
	"context"

	"github.com/isochrone/isochrone/topology"
)

// Follower makes snapshots of what a feed tells.
type Follower struct {
	Feed Feed
	// Last is what was in force before, such as Load returns, or nil; its topology is good until a valid one is read.
	Last *topology.Snapshot
	// Publish is called with a snapshot of what is stored, and again after changes: of many that come while it works, with one
	// snapshot. What one transaction wrote becomes visible in one.
	Publish func(*topology.Snapshot)
	// Contact is as in Tail.
	Contact func(error)
}

// Run follows until ctx ends, whose error it returns. It outlives losses of the store: snapshots stay as they are meanwhile. A store that
// has gone back to an earlier revision is read anew and followed. One that has no topology any more when it is read anew is not: that all
// objects were deleted takes effect where it is watched. It may be called once.
func (f *Follower) Run(ctx context.Context) error {
	last := f.Last
	if last == nil {
		last = &topology.Snapshot{}
	}
	assembler := topology.NewAssembler(last.Topology, last.Good)
	assembler.KeepSigning(last.Signing, last.Signed)
	tail := Tail{Feed: f.Feed, Contact: f.Contact, Take: func(u Update) {
		for key, value := range u.Put {
			assembler.Put(key, value)
		}
		for _, key := range u.Delete {
			assembler.Delete(key)
		}
		f.Publish(assembler.Snapshot(u.Revision))
	}}
	if last.Topology != nil {
		tail.serves, tail.revision = len(last.Topology.Refs()) > 0, max(last.Revision, last.Good)
	}
	return tail.Run(ctx)
}

// Follow calls publish with a snapshot of all that is stored, and again after changes, as a Follower does.
func (s *Store) Follow(ctx context.Context, last *topology.Snapshot, publish func(*topology.Snapshot)) error {
	return (&Follower{Feed: s.Feed(sections), Last: last, Publish: publish}).Run(ctx)
}
