package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// AuditEntry is what every write leaves behind, under audit/.
type AuditEntry struct {
	Schema   int       `yaml:"schema"`
	Revision int64     `yaml:"revision,omitempty"` // where it is missing, that of the entry itself
	Author   string    `yaml:"author"`
	Time     time.Time `yaml:"time"`
	Action   string    `yaml:"action"` // such as apply, put, delete
	Objects  []string  `yaml:"objects"`
	Key      string    `yaml:"-"` // to go on after
}

// Audit returns what was written, the newest first, as the clocks of the authors say: at most limit entries, from the one on that
// follows the entry with a key; none stands for the newest.
func (s *Store) Audit(ctx context.Context, after string, limit int) ([]*AuditEntry, error) {
	day := 24 * time.Hour
	end := s.now().Add(day).UnixNano() // clocks are not that wrong
	if after != "" {
		digits, _, _ := strings.Cut(after, "-")
		at, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || len(digits) != 20 {
			return nil, fmt.Errorf("%q is not the key of an audit entry: %w", after, ErrNotFound)
		}
		end = at + 1
	}
	kvs, err := s.tail(ctx, "audit/", end, limit+1, int64(2*day))
	if err != nil {
		return nil, err
	}
	var entries []*AuditEntry
	for _, kv := range kvs {
		key := strings.TrimPrefix(string(kv.Key), s.root+"audit/")
		if after != "" && key >= after {
			continue
		}
		e := &AuditEntry{Revision: kv.ModRevision}
		if err := yaml.Unmarshal(kv.Value, e); err != nil {
			e = &AuditEntry{Revision: kv.ModRevision, Author: "unknown", Action: fmt.Sprintf("cannot be read: %v", err)}
		}
		e.Key = key
		if entries = append(entries, e); len(entries) == limit {
			break
		}
	}
	return entries, nil
}

// audit is the operation that writes an audit entry.
func (s *Store) audit(author, action string, objects ...string) clientv3.Op {
	a := AuditEntry{Schema: topology.SchemaVersion, Author: author, Time: s.now().UTC(), Action: action, Objects: objects}
	key := fmt.Sprintf("%s-%08x", s.number("audit/", a.Time.UnixNano()), rand.Uint32()) // several may write in one nanosecond
	return clientv3.OpPut(key, string(topology.MarshalValue(a)))
}
