package store

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The keys of history/ begin with a number of 20 digits: of an outside edit its revision; of others the revision that the edit was
// made on, since the one that the transaction gets is not known before. Nothing else can have been edited between the two (but
// for outside deletions: see unchanged), so the order of the keys is that of the edits, whatever the clocks of their authors say.
const (
	editSuffix    = "-edit"
	outsideSuffix = "-outside"
)

// misplaced is how many entries may stand before others in the order of keys though their revisions are higher: an edit that
// was made while others deleted by other means.
const misplaced = 16

// number is a key below a section that sorts by a number.
func (s *Store) number(section string, n int64) string {
	return fmt.Sprintf("%s%s%020d", s.root, section, n)
}

// History returns the edits before a revision, the newest first; 0 stands for all. At most limit are returned, and not many more
// are read, however long the history is.
func (s *Store) History(ctx context.Context, before int64, limit int) ([]*Entry, error) {
	if before == 0 {
		revision, err := s.Revision(ctx)
		if err != nil {
			return nil, err
		}
		before = revision + 1
	}
	kvs, err := s.tail(ctx, "history/", before, limit+misplaced, int64(limit)+misplaced)
	if err != nil {
		return nil, err
	}
	var entries []*Entry
	for _, kv := range kvs {
		e, err := unmarshalEntry(kv.Value, kv.ModRevision)
		if err != nil {
			e = &Entry{Revision: kv.ModRevision, Author: "unknown", Message: fmt.Sprintf("%s cannot be read: %v", kv.Key, err)}
		}
		if e.Revision < before {
			entries = append(entries, e)
		}
	}
	slices.SortStableFunc(entries, func(a, b *Entry) int { return int(b.Revision - a.Revision) })
	return entries[:min(len(entries), limit)], nil
}

// since returns the edits after a revision, the newest first, and whether these are all; at most limit.
func (s *Store) since(ctx context.Context, revision int64, limit int) ([]*Entry, bool, error) {
	entries, err := s.History(ctx, 0, limit)
	end := slices.IndexFunc(entries, func(e *Entry) bool { return e.Revision <= revision })
	if end < 0 {
		return entries, len(entries) < limit, err
	}
	return entries[:end], true, err
}

// Revision returns the store's, as it is now.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"topology/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("read the store: %w", err)
	}
	return response.Header.Revision, nil
}

// tail reads the last values of a section before a number: at least want of them if there are, and at most about twice as many.
// etcd would read all of a section to sort it downwards; so the place from which on to read is found by counting, first in a width
// that is likely enough.
func (s *Store) tail(ctx context.Context, section string, end int64, want int, width int64) ([]*mvccpb.KeyValue, error) {
	count := func(from int64) (int, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		response, err := s.client.Get(ctx, s.number(section, from), clientv3.WithRange(s.number(section, end)), clientv3.WithCountOnly())
		if err != nil {
			return 0, fmt.Errorf("read the store: %w", err)
		}
		return int(response.Count), nil
	}
	few, from := end, int64(0) // from few on there are too few
	for {
		from = max(end-width, 0)
		found, err := count(from)
		if err != nil {
			return nil, err
		}
		if found >= want || from == 0 {
			break
		}
		few, width = from, min(width, end)*4
	}
	for found, most := 0, 2*want+misplaced; few-from > 1; {
		var err error
		if found, err = count(from); err != nil {
			return nil, err
		} else if found <= most {
			break
		}
		middle := from + (few-from)/2
		if found, err = count(middle); err != nil {
			return nil, err
		} else if found < want {
			few = middle
		} else {
			from = middle
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.number(section, from), clientv3.WithRange(s.number(section, end)))
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	slices.Reverse(response.Kvs)
	return response.Kvs, nil
}
