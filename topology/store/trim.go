package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// Limits say how much of history and audit is kept, and how long overrides that have ended. Zero values stand for the defaults.
type Limits struct {
	Age   time.Duration // of entries of history/ and audit/; default 90 days
	Most  int           // entries of each; default 100,000
	Ended time.Duration // how long an override is kept after its end; default a day
}

// trimmer is the author of what is deleted by age.
const trimmer = "isochrone"

// Trim deletes entries of history and audit that are too old or too many, and overrides that have ended long ago, the latter with an
// audit entry each. It is the leader's; more than one at a time do no harm.
//
// It leaves API keys alone, also those that have expired, and what is left of a rotation: they have no effect any more, and who wonders
// why a client is refused should find them. Operators revoke them.
func (s *Store) Trim(ctx context.Context, l Limits) error {
	if l.Age == 0 {
		l.Age = 90 * 24 * time.Hour
	}
	if l.Most == 0 {
		l.Most = 100_000
	}
	if l.Ended == 0 {
		l.Ended = 24 * time.Hour
	}
	oldest := s.now().Add(-l.Age)
	err := s.trim(ctx, "history/", l.Most, func(kv *mvccpb.KeyValue) (bool, int64) {
		e, err := unmarshalEntry(kv.Value, kv.ModRevision)
		if err != nil {
			return true, kv.ModRevision
		}
		return e.Time.Before(oldest), e.Revision
	})
	if err != nil {
		return fmt.Errorf("trim the history: %w", err)
	}
	err = s.trim(ctx, "audit/", l.Most, func(kv *mvccpb.KeyValue) (bool, int64) {
		var e AuditEntry
		return yaml.Unmarshal(kv.Value, &e) != nil || e.Time.Before(oldest), 0
	})
	if err != nil {
		return fmt.Errorf("trim the audit log: %w", err)
	}
	return s.trimOverrides(ctx, s.now().Add(-l.Ended))
}

// pageOfTrimming is how many entries are read and deleted at once.
const pageOfTrimming = 100

// trim deletes the first values of a section: those that are old, and more while there are too many. Old returns the revision that is
// forgotten with a value, too, which is noted first.
func (s *Store) trim(ctx context.Context, section string, most int, old func(*mvccpb.KeyValue) (bool, int64)) error {
	for {
		total, page, err := s.first(ctx, section)
		if err != nil {
			return err
		}
		n, forgotten := 0, int64(0)
		for _, kv := range page {
			is, revision := old(kv)
			if !is && total-n <= most {
				break
			}
			n++
			forgotten = max(forgotten, revision)
		}
		if n == 0 {
			return nil
		}
		if forgotten > 0 {
			if err := s.advance(ctx, func(r *recording) { r.Trimmed = max(r.Trimmed, forgotten) }); err != nil {
				return err
			}
		}
		deletion := clientv3.OpDelete(s.root+section, clientv3.WithRange(string(page[n-1].Key)+"\x00"))
		if _, err := s.commit(ctx, nil, []clientv3.Op{deletion}); err != nil {
			return err
		}
		if n < len(page) {
			return nil
		}
	}
}

// first reads the first values of a section, and how many there are.
func (s *Store) first(ctx context.Context, section string) (total int, page []*mvccpb.KeyValue, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+section, clientv3.WithPrefix(), clientv3.WithLimit(pageOfTrimming))
	if err != nil {
		return 0, nil, fmt.Errorf("read the store: %w", err)
	}
	return int(response.Count), response.Kvs, nil
}

// trimOverrides deletes overrides that ended before a time. Those that cannot be read are left alone.
func (s *Store) trimOverrides(ctx context.Context, before time.Time) error {
	reading, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(reading, s.root+"overrides/", clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read the overrides: %w", err)
	}
	for _, kv := range response.Kvs {
		name := strings.TrimPrefix(string(kv.Key), s.root+"overrides/")
		o, faults := topology.ParseOverride(name, kv.Value)
		if len(faults) > 0 || !o.Expires.Before(before) {
			continue
		}
		same := clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision)
		_, err := s.commit(ctx, []clientv3.Cmp{same}, []clientv3.Op{
			clientv3.OpDelete(string(kv.Key)), s.audit(trimmer, "delete", "overrides/"+name),
		})
		if err != nil && !errors.Is(err, ErrConflict) { // somebody has prolonged it
			return fmt.Errorf("delete override %s, which ended %s: %w", name, o.Expires.Format(time.RFC3339), err)
		}
	}
	return nil
}
