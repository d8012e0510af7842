package store

import (
	"context"
	"slices"

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
	// Moment, if it is not nil, is called with what is of the moment, reports and shares, in the order in which it changes, and not while
	// Publish works. An update that is whole has all there is.
	Moment func(Update)
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
		lasting, moment := divide(u)
		if f.Moment != nil && (moment.Whole || len(moment.Put)+len(moment.Delete) > 0) {
			f.Moment(moment)
		}
		if u = lasting; !u.Whole && len(u.Put)+len(u.Delete) == 0 {
			return
		}
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

// divide tells what is of the moment from what snapshots are made of.
func divide(u Update) (lasting, moment Update) {
	if !slices.ContainsFunc(u.Delete, momentary.Have) && !hasMomentary(u.Put) {
		return u, Update{Revision: u.Revision, Whole: u.Whole}
	}
	lasting = Update{Revision: u.Revision, Whole: u.Whole, Put: map[string][]byte{}}
	moment = Update{Revision: u.Revision, Whole: u.Whole, Put: map[string][]byte{}}
	for key, value := range u.Put {
		if momentary.Have(key) {
			moment.Put[key] = value
		} else {
			lasting.Put[key] = value
		}
	}
	for _, key := range u.Delete {
		if momentary.Have(key) {
			moment.Delete = append(moment.Delete, key)
		} else {
			lasting.Delete = append(lasting.Delete, key)
		}
	}
	return lasting, moment
}

func hasMomentary(values map[string][]byte) bool {
	for key := range values {
		if momentary.Have(key) {
			return true
		}
	}
	return false
}

// Follow calls publish with a snapshot of all that is stored, and again after changes, as a Follower does.
func (s *Store) Follow(ctx context.Context, last *topology.Snapshot, publish func(*topology.Snapshot)) error {
	return (&Follower{Feed: s.Feed(sections), Last: last, Publish: publish}).Run(ctx)
}
