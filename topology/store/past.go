package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// ErrTrimmed is what errors.Is finds in a *TrimmedError.
var ErrTrimmed = errors.New("beyond the history")

// TrimmedError is returned for a revision that the history does not reach back to.
type TrimmedError struct{ Revision, Oldest int64 }

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("revision %d is %v: the oldest that is known is %d", e.Revision, ErrTrimmed, e.Oldest)
}

// Unwrap returns ErrTrimmed.
func (e *TrimmedError) Unwrap() error { return ErrTrimmed }

// ErrUncertain is returned for a rollback to what is not known for certain.
var ErrUncertain = errors.New("what it was is not certain")

// Past is the topology as it was stored at a revision.
type Past struct {
	Revision int64              // the one that was asked for
	Made     int64              // that of the edit that made it so, as far as is known; 0 when it is not
	Topology *topology.Topology // objects that could not be read are left out
	Faults   []topology.Fault   // why it was not in force; empty when it was valid
	Values   map[string]string  // as they were stored, by KIND/NAME
	Doubts   []string           // why it may have been otherwise, each a sentence; empty when it is certain
}

// values are what stands under topology/, by what follows it in the keys.
type values struct {
	revision int64 // at which it was read
	texts    map[string]string
	modified map[string]int64
}

// newest is the revision of the newest put.
func (v *values) newest() int64 {
	newest := int64(0)
	for _, revision := range v.modified {
		newest = max(newest, revision)
	}
	return newest
}

// values reads what stands under topology/ at a revision; 0 stands for now.
func (s *Store) values(ctx context.Context, revision int64) (*values, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"topology/", clientv3.WithPrefix(), clientv3.WithRev(revision))
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	v := &values{revision: response.Header.Revision, texts: map[string]string{}, modified: map[string]int64{}}
	if revision != 0 {
		v.revision = revision
	}
	for _, kv := range response.Kvs {
		name := strings.TrimPrefix(string(kv.Key), s.root+"topology/")
		v.texts[name], v.modified[name] = string(kv.Value), kv.ModRevision
	}
	return v, nil
}

// assemble reads stored values as objects.
func assemble(texts map[string]string) *topology.Assembler {
	a := topology.NewAssembler(nil, 0)
	for name, text := range texts {
		a.Put("topology/"+name, []byte(text))
	}
	return a
}

// At returns the topology as it was at a revision; 0 stands for now. etcd knows it to the byte until it is compacted; beyond that it
// is found by undoing the edits that the history has, from the oldest revision that etcd knows. The errors are ErrTrimmed, with the
// oldest revision that is known, and ErrNotFound for a revision that is still to come.
func (s *Store) At(ctx context.Context, revision int64) (*Past, error) {
	v, err := s.readAt(ctx, revision)
	if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, errHalfRestored) {
		return s.undone(ctx, revision)
	}
	if errors.Is(err, rpctypes.ErrFutureRev) {
		return nil, fmt.Errorf("revision %d: %w: the store has not come so far", revision, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	made := v.newest()
	if edits, err := s.History(ctx, v.revision+1, 1); err != nil {
		return nil, err
	} else if len(edits) > 0 { // it may have deleted
		made = max(made, edits[0].Revision)
	}
	return past(v.revision, made, v.texts), nil
}

func past(revision, made int64, texts map[string]string) *Past {
	p := &Past{Revision: revision, Made: made, Values: texts}
	p.Topology, p.Faults = assemble(texts).Stored()
	return p
}

// readAt reads what etcd has of a revision.
func (s *Store) readAt(ctx context.Context, revision int64) (*values, error) {
	if revision != 0 {
		restored, err := s.restoration(ctx)
		if err != nil {
			return nil, err
		}
		if restored.covers(revision) {
			return nil, errHalfRestored
		}
	}
	return s.values(ctx, revision)
}

// pageOfHistory is how many entries are read at once.
const pageOfHistory = 100

// undone returns the topology as it was at a revision by undoing edits.
func (s *Store) undone(ctx context.Context, revision int64) (*Past, error) {
	progress, _, err := s.recording(ctx)
	if err != nil {
		return nil, err
	}
	if revision < progress.Trimmed {
		return nil, &TrimmedError{revision, progress.Trimmed}
	}
	from, err := s.oldest(ctx, revision)
	if err != nil {
		return nil, err
	}
	return s.undo(ctx, from, revision, progress)
}

// oldest reads the topology at the oldest revision after the given one that etcd knows.
func (s *Store) oldest(ctx context.Context, revision int64) (*values, error) {
	restored, err := s.restoration(ctx)
	if err != nil {
		return nil, err
	}
	if restored.covers(revision) {
		if v, err := s.values(ctx, restored.Revision); !errors.Is(err, rpctypes.ErrCompacted) {
			return v, err
		}
	}
	compacted, err := s.compacted(ctx)
	if err != nil {
		return nil, err
	}
	if compacted > revision && !restored.covers(compacted) {
		if v, err := s.values(ctx, compacted); !errors.Is(err, rpctypes.ErrCompacted) {
			return v, err
		}
	}
	return s.values(ctx, 0)
}

// compacted returns the oldest revision that etcd can still read.
func (s *Store) compacted(ctx context.Context) (int64, error) {
	newest, err := s.Revision(ctx)
	if err != nil {
		return 0, err
	}
	readable := func(revision int64) bool {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		_, readErr := s.client.Get(ctx, s.root+"topology/", clientv3.WithRev(revision), clientv3.WithCountOnly())
		if readErr != nil && !errors.Is(readErr, rpctypes.ErrCompacted) {
			err = fmt.Errorf("read the store: %w", readErr)
		}
		return readErr == nil
	}
	oldest := 1 + sort.Search(int(newest-1), func(i int) bool { return err != nil || readable(int64(i)+1) })
	return int64(oldest), err
}

// undo goes back from one state to a revision, edit by edit. What an entry says was before is true whatever came after it; where an
// older entry's value is not what is found, an edit that no entry tells of lies between, and nobody knows when it was made.
func (s *Store) undo(ctx context.Context, from *values, revision int64, p recording) (*Past, error) {
	texts, made, doubts := maps.Clone(from.texts), int64(0), []string(nil)
	if p.Since == 0 || revision < p.Since {
		doubts = append(doubts, "edits by other means were not recorded then: the history has those alone that were made by Isochrone")
	}
	checked := map[string]bool{} // objects of which an entry at or before the revision has been seen
	for before, older := from.revision+1, 0; older < pageOfHistory; {
		entries, err := s.History(ctx, before, pageOfHistory)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if before = e.Revision; e.Revision > revision {
				undoEntry(texts, e)
				doubts = append(doubts, doubtful(e, revision)...)
				continue
			}
			made = max(made, e.Revision)
			older++
			doubts = append(doubts, missing(texts, e, checked, revision)...)
		}
		if len(entries) < pageOfHistory {
			break
		}
	}
	result := past(revision, made, texts)
	result.Doubts = doubts
	return result, nil
}

func undoEntry(texts map[string]string, e *Entry) {
	for _, object := range e.Objects() {
		if value, ok := e.Before[object]; ok {
			texts[object] = value
		} else {
			delete(texts, object)
		}
	}
}

// doubtful tells what an entry that is undone leaves open.
func doubtful(e *Entry, revision int64) []string {
	var doubts []string
	if e.Since != 0 && e.Since < revision {
		doubts = append(doubts, fmt.Sprintf("%s changed at some time in revisions %d to %d, when nobody recorded it: here it is as it was before",
			strings.Join(e.Objects(), ", "), e.Since+1, e.Revision))
	}
	if len(e.Omitted) > 0 {
		doubts = append(doubts, fmt.Sprintf("%s changed at revision %d and was too large for the history: here it is missing",
			strings.Join(e.Omitted, ", "), e.Revision))
	}
	if e.Action == "" {
		doubts = append(doubts, fmt.Sprintf("the entry of revision %d is disregarded: %s", e.Revision, e.Message))
	}
	return doubts
}

// missing tells where an entry at or before the revision left other values than were found; of each object the newest entry counts.
func missing(texts map[string]string, e *Entry, checked map[string]bool, revision int64) []string {
	var objects []string
	for _, object := range e.Objects() {
		if checked[object] {
			continue
		}
		checked[object] = true
		value, is := texts[object]
		left, was := e.After[object]
		if (is != was || value != left) && !slices.Contains(e.Omitted, object) {
			objects = append(objects, object)
		}
	}
	if len(objects) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s changed after revision %d by an edit that nobody recorded, perhaps after revision %d: here it is as it was then",
		strings.Join(objects, ", "), e.Revision, revision)}
}
