package store

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// recordingKey is where the leader's tasks keep how far they have come with the history.
const recordingKey = "leader/recorded"

// recording is how complete the history is.
type recording struct {
	Schema  int   `yaml:"schema"`
	Since   int64 `yaml:"since,omitempty"`   // from this revision on all outside edits are recorded, or summed up
	Through int64 `yaml:"through,omitempty"` // up to this one they have been looked at
	Trimmed int64 `yaml:"trimmed,omitempty"` // the entries up to this one's were trimmed
}

// recording reads it, and the revision at which it was written; both are 0 when there is none.
func (s *Store) recording(ctx context.Context) (recording, int64, error) {
	var p recording
	revision, err := s.record(ctx, recordingKey, &p)
	return p, revision, err
}

// record reads the YAML of a key into a value. It returns the revision at which it was written, 0 if there is none.
func (s *Store) record(ctx context.Context, key string, into any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+key)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	if len(response.Kvs) == 0 {
		return 0, nil
	}
	if err := yaml.Unmarshal(response.Kvs[0].Value, into); err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	return response.Kvs[0].ModRevision, nil
}

// advance changes the progress, whoever else does so.
func (s *Store) advance(ctx context.Context, change func(*recording)) error {
	for {
		p, revision, err := s.recording(ctx)
		if err != nil {
			return err
		}
		p.Schema = topology.SchemaVersion
		change(&p)
		same := clientv3.Compare(clientv3.ModRevision(s.root+recordingKey), "=", revision)
		_, err = s.commit(ctx, []clientv3.Cmp{same}, []clientv3.Op{clientv3.OpPut(s.root+recordingKey, string(topology.MarshalValue(p)))})
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
}
