package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// maxEntryBytes bounds an entry of an outside edit; etcd takes requests of 1.5 MiB.
const maxEntryBytes = 1_200_000

// summaryBytes is how much of what is summed up goes into one entry, before it is packed.
const summaryBytes = 512 << 10

// RecordOutside writes history entries for the edits of the topology that are made by other means than this package, until ctx ends
// or something fails: then it is to be called again, by one process at a time (more do no harm), and goes on where the last one ended.
// What etcd has compacted by then is summed up in one entry, from what the history knows against what is stored.
func (s *Store) RecordOutside(ctx context.Context) error {
	o, through, err := s.observe(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ownStream(ctx))
	defer cancel()
	unsaved := 0
	watch := s.client.Watch(ctx, s.root+"topology/", clientv3.WithPrefix(), clientv3.WithRev(through+1), clientv3.WithProgressNotify())
	for response := range watch {
		if err := response.Err(); err != nil {
			return fmt.Errorf("watch the topology: %w", err)
		}
		wrote := false
		for _, events := range byRevision(response.Events) {
			through = events[0].Kv.ModRevision
			e, err := o.take(ctx, events)
			if err != nil {
				return err
			}
			if e != nil {
				wrote = true
				if err := s.writeOutside(ctx, e); err != nil {
					return err
				}
			}
			unsaved++
		}
		if response.IsProgressNotify() {
			through = max(through, response.Header.Revision)
		}
		// Progress is saved now and then: what is seen twice is written once.
		if wrote || unsaved >= 100 || response.IsProgressNotify() {
			unsaved = 0
			if err := s.advance(ctx, func(p *recording) { p.Through = max(p.Through, through) }); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("watch the topology: the watch has ended")
}

// observe returns an observer of what comes after a revision: the one that recording has come to.
func (s *Store) observe(ctx context.Context) (*observer, int64, error) {
	p, _, err := s.recording(ctx)
	if err != nil {
		return nil, 0, err
	}
	if p.Through == 0 { // nobody has recorded anything: etcd may know all that has been, from its first revision on
		oldest, err := s.compacted(ctx)
		if err != nil {
			return nil, 0, err
		}
		if oldest == 1 {
			p.Through = 1
		}
	}
	if p.Through != 0 {
		stored, err := s.values(ctx, p.Through)
		if err == nil {
			return s.observer(stored), p.Through, s.advance(ctx, func(now *recording) {
				if now.Since == 0 {
					now.Since, now.Through = p.Through, max(now.Through, p.Through)
				}
			})
		}
		if !errors.Is(err, rpctypes.ErrCompacted) && !errors.Is(err, rpctypes.ErrFutureRev) {
			return nil, 0, err
		}
	}
	stored, err := s.values(ctx, 0)
	if err != nil {
		return nil, 0, err
	}
	through := stored.revision
	if _, restoring := stored.texts[restoringMarker]; !restoring { // what is half restored is nobody's edit
		if through, err = s.sumUp(ctx, stored, p); err != nil {
			return nil, 0, err
		}
	}
	o := s.observer(stored)
	return o, through, s.advance(ctx, func(p *recording) {
		p.Through = through
		if p.Since == 0 {
			p.Since = through
		}
	})
}

// byRevision splits events, which come in the order of revisions.
func byRevision(events []*clientv3.Event) [][]*clientv3.Event {
	var groups [][]*clientv3.Event
	for _, event := range events {
		if n := len(groups); n > 0 && groups[n-1][0].Kv.ModRevision == event.Kv.ModRevision {
			groups[n-1] = append(groups[n-1], event)
		} else {
			groups = append(groups, []*clientv3.Event{event})
		}
	}
	return groups
}

// observer follows what stands under topology/ and tells outside edits from others.
type observer struct {
	s         *Store
	stored    *values
	assembler *topology.Assembler
}

func (s *Store) observer(stored *values) *observer {
	return &observer{s, stored, assemble(stored.texts)}
}

// take takes the events of one revision. It returns the entry of an outside edit, or nil when the edit has one.
func (o *observer) take(ctx context.Context, events []*clientv3.Event) (*Entry, error) {
	revision, newest := events[0].Kv.ModRevision, o.stored.newest()
	_, restoring := o.stored.texts[restoringMarker]
	e := &Entry{
		Schema: topology.SchemaVersion, Revision: revision, Action: Outside, Author: OutsideAuthor, Time: o.s.now().UTC(),
		Before: map[string]string{}, After: map[string]string{},
	}
	for _, event := range events {
		name := strings.TrimPrefix(string(event.Kv.Key), o.s.root+"topology/")
		if before, ok := o.stored.texts[name]; ok {
			e.Before[name] = before
		}
		if event.Type == clientv3.EventTypeDelete {
			delete(o.stored.texts, name)
			delete(o.stored.modified, name)
			o.assembler.Delete("topology/" + name)
			continue
		}
		e.After[name] = string(event.Kv.Value)
		o.stored.texts[name], o.stored.modified[name] = string(event.Kv.Value), revision
		o.assembler.Put("topology/"+name, event.Kv.Value)
	}
	o.stored.revision = revision
	if _, still := o.stored.texts[restoringMarker]; restoring || still {
		return nil, nil // Restore leaves its own entry
	}
	recorded, err := o.s.recorded(ctx, newest, revision)
	if err != nil || recorded {
		return nil, err
	}
	_, faults := o.assembler.Stored()
	e.Invalid = len(faults) > 0
	return e, nil
}

// recorded reports whether an edit has an entry that its own transaction wrote. The key of such an entry has the number of a
// revision at which nothing had changed that stands under topology/ when the transaction came: so the newest of that is the least.
func (s *Store) recorded(ctx context.Context, newest, revision int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.number("history/", newest), clientv3.WithRange(s.number("history/", revision+1)), clientv3.WithKeysOnly())
	if err != nil {
		return false, fmt.Errorf("read the history: %w", err)
	}
	for _, kv := range response.Kvs {
		if kv.ModRevision == revision {
			return true, nil
		}
	}
	return false, nil
}

// writeOutside writes the entry of an outside edit, unless it is there.
func (s *Store) writeOutside(ctx context.Context, e *Entry) error {
	objects := e.Objects()
	text, err := e.marshal()
	if err != nil {
		return err
	}
	if len(text) > maxEntryBytes {
		e.Before, e.After, e.Omitted = nil, nil, objects
		if text, err = e.marshal(); err != nil {
			return err
		}
	}
	key := s.number("history/", e.Revision) + outsideSuffix
	absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	_, err = s.commit(ctx, []clientv3.Cmp{absent}, []clientv3.Op{
		clientv3.OpPut(key, string(text)), s.audit(e.Author, string(e.Action), objects...),
	})
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// sumUp writes entries for what was edited by other means while nobody recorded it and etcd no longer knows how: what is stored
// against what the newest entry about each object left. It returns the revision up to which all is recorded then.
func (s *Store) sumUp(ctx context.Context, stored *values, p recording) (int64, error) {
	before, after, err := s.unexplained(ctx, stored, p)
	if err != nil {
		return 0, err
	}
	names := maps.Clone(before)
	maps.Copy(names, after)
	var part []string
	size, revision := 0, stored.revision
	write := func() error {
		e := &Entry{
			Schema: topology.SchemaVersion, Action: Outside, Author: OutsideAuthor, Time: s.now().UTC(), Since: max(p.Through, 1),
			Before: map[string]string{}, After: map[string]string{}, Message: "edits while nobody recorded them, summed up",
		}
		for _, name := range part {
			if value, ok := before[name]; ok {
				e.Before[name] = value
			}
			if value, ok := after[name]; ok {
				e.After[name] = value
			}
		}
		_, faults := assemble(stored.texts).Stored()
		e.Invalid = len(faults) > 0
		text, err := e.marshal()
		if err != nil {
			return err
		}
		if len(text) > maxEntryBytes {
			e.Before, e.After, e.Omitted = nil, nil, part
			if text, err = e.marshal(); err != nil {
				return err
			}
		}
		revision, err = s.commit(ctx, s.unchanged(revision), []clientv3.Op{
			clientv3.OpPut(s.number("history/", revision)+outsideSuffix, string(text)), s.audit(e.Author, string(e.Action), part...),
		})
		part, size = nil, 0
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(names), compareObjects) {
		more := len(before[name]) + len(after[name])
		if len(part) > 0 && size+more > summaryBytes {
			if err := write(); err != nil {
				return 0, err
			}
		}
		part, size = append(part, name), size+more
	}
	if len(part) > 0 {
		if err := write(); err != nil {
			return 0, err
		}
	}
	return revision, nil
}

// unexplained returns what is stored otherwise than the history says, as the history has it and as it is. Of objects that it does not
// mention nothing is known once it was trimmed.
func (s *Store) unexplained(ctx context.Context, stored *values, p recording) (before, after map[string]string, err error) {
	before, after, seen := map[string]string{}, map[string]string{}, map[string]bool{}
	note := func(name, left string, was bool) {
		value, is := stored.texts[name]
		if seen[name] || (is == was && value == left) {
			seen[name] = true
			return
		}
		seen[name] = true
		if was {
			before[name] = left
		}
		if is {
			after[name] = value
		}
	}
	for revision := stored.revision + 1; ; {
		entries, err := s.History(ctx, revision, pageOfHistory)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			for _, name := range e.Objects() {
				if slices.Contains(e.Omitted, name) {
					seen[name] = true
					continue
				}
				left, was := e.After[name]
				note(name, left, was)
			}
			revision = e.Revision
		}
		if len(entries) < pageOfHistory {
			break
		}
	}
	for name := range stored.texts {
		if p.Trimmed == 0 {
			note(name, "", false)
		}
	}
	return before, after, nil
}

// maxUnrecorded bounds how many revisions are looked through for edits that nobody has recorded yet.
const maxUnrecorded = 10_000

// unrecorded returns the outside edits up to a revision that have no entry yet, the newest first: those that etcd still knows.
func (s *Store) unrecorded(ctx context.Context, stored *values) ([]*Entry, error) {
	p, _, err := s.recording(ctx)
	if err != nil {
		return nil, err
	}
	oldest, err := s.compacted(ctx)
	if err != nil {
		return nil, err
	}
	from := max(p.Through, oldest, stored.revision-maxUnrecorded)
	if from >= stored.revision {
		return nil, nil
	}
	base, err := s.values(ctx, from)
	if err != nil {
		return nil, err
	}
	o, entries := s.observer(base), []*Entry(nil)
	err = s.replay(ctx, from, stored.revision, func(events []*clientv3.Event) error {
		e, err := o.take(ctx, events)
		if e != nil {
			if absent, existsErr := s.absent(ctx, e.Revision); existsErr != nil || !absent {
				return errors.Join(err, existsErr)
			}
			entries = append(entries, e)
		}
		return err
	})
	slices.Reverse(entries)
	return entries, err
}

// absent reports whether an outside edit has no entry.
func (s *Store) absent(ctx context.Context, revision int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.number("history/", revision)+outsideSuffix, clientv3.WithCountOnly())
	if err != nil {
		return false, fmt.Errorf("read the history: %w", err)
	}
	return response.Count == 0, nil
}

// replay calls take with the events under topology/ after one revision up to another, revision by revision.
func (s *Store) replay(ctx context.Context, from, to int64, take func([]*clientv3.Event) error) error {
	ctx, cancel := context.WithTimeout(ownStream(ctx), 4*requestTimeout)
	defer cancel()
	watch := s.client.Watch(ctx, s.root+"topology/", clientv3.WithPrefix(), clientv3.WithRev(from+1))
	ask := time.NewTicker(20 * time.Millisecond) // etcd answers when it has sent everything
	defer ask.Stop()
	for {
		select {
		case response, open := <-watch:
			if err := cmp.Or(response.Err(), ctx.Err()); err != nil {
				return fmt.Errorf("watch the topology: %w", err)
			}
			if !open {
				return errors.New("watch the topology: the watch has ended")
			}
			for _, events := range byRevision(response.Events) {
				if events[0].Kv.ModRevision > to {
					return nil
				}
				if err := take(events); err != nil {
					return err
				}
			}
			if response.IsProgressNotify() && response.Header.Revision >= to {
				return nil
			}
		case <-ask.C:
			if err := s.client.RequestProgress(ctx); err != nil {
				return fmt.Errorf("watch the topology: %w", err)
			}
		}
	}
}
