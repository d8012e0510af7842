package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// ErrConflict is returned for an edit of what somebody else has changed meanwhile. Nothing was written.
var ErrConflict = errors.New("changed meanwhile")

// ErrNotFound is returned for an edit of what does not exist.
var ErrNotFound = errors.New("not found")

// requestTimeout bounds one request to etcd.
const requestTimeout = 5 * time.Second

// Store reads and edits what stands in etcd below one root. It is safe for concurrent use.
type Store struct {
	client *clientv3.Client
	root   string // ends with a slash
	now    func() time.Time
}

// New returns the store below a root such as /isochrone/. The client stays the caller's.
func New(client *clientv3.Client, root string) *Store {
	return &Store{client: client, root: strings.TrimSuffix(root, "/") + "/", now: time.Now}
}

// Read returns a snapshot of what is stored now. Its topology is empty when the stored one is invalid: who wants the last
// good one must have followed.
func (s *Store) Read(ctx context.Context) (*topology.Snapshot, error) {
	assembler := topology.NewAssembler(nil, 0)
	revision, err := s.assemble(ctx, assembler, nil)
	if err != nil {
		return nil, err
	}
	return assembler.Snapshot(revision), nil
}

// Stored returns the topology as it is stored, valid or not, with its faults and revision.
func (s *Store) Stored(ctx context.Context) (*topology.Topology, []topology.Fault, int64, error) {
	assembler := topology.NewAssembler(nil, 0)
	revision, err := s.assemble(ctx, assembler, nil)
	if err != nil {
		return nil, nil, 0, err
	}
	t, faults := assembler.Stored()
	return t, faults, revision, nil
}

// StoredText returns the text of one object as it is stored, valid or not. The error is ErrNotFound if there is none.
func (s *Store) StoredText(ctx context.Context, r topology.Ref) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"topology/"+r.String())
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	if len(response.Kvs) == 0 {
		return nil, fmt.Errorf("%v: %w", r, ErrNotFound)
	}
	return response.Kvs[0].Value, nil
}

// Signing returns the signing of a zone as it is stored, and the revision at which it was written, for PutSigning. The errors
// are ErrNotFound if there is none and *topology.InvalidError.
func (s *Store) Signing(ctx context.Context, zone string) (*topology.Signing, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"dnssec/"+zone)
	if err != nil {
		return nil, 0, fmt.Errorf("read the store: %w", err)
	}
	if len(response.Kvs) == 0 {
		return nil, 0, fmt.Errorf("dnssec/%s: %w", zone, ErrNotFound)
	}
	signing, faults := topology.ParseSigning(zone, response.Kvs[0].Value)
	if len(faults) > 0 {
		return nil, 0, &topology.InvalidError{Faults: faults}
	}
	return signing, response.Kvs[0].ModRevision, nil
}

// Sealed returns a sealed secret as it is stored, and the revision at which it was written, for ReplaceSealed. The errors are ErrNotFound
// if there is none and *topology.InvalidError.
func (s *Store) Sealed(ctx context.Context, name string) (*topology.Sealed, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"secrets/"+name)
	if err != nil {
		return nil, 0, fmt.Errorf("read the store: %w", err)
	}
	if len(response.Kvs) == 0 {
		return nil, 0, fmt.Errorf("secrets/%s: %w", name, ErrNotFound)
	}
	sealed, faults := topology.ParseSealed(name, response.Kvs[0].Value)
	if len(faults) > 0 {
		return nil, response.Kvs[0].ModRevision, &topology.InvalidError{Faults: faults}
	}
	return sealed, response.Kvs[0].ModRevision, nil
}

// pageOfValues is how many values of a section are read at once. 100,000 keys in one answer would have to come within the time of one
// request, and over a long line they do not.
const pageOfValues = 4000

// load reads sections at one revision, and gives each value to take. The error is rpctypes.ErrCompacted when etcd forgets the revision
// meanwhile.
func (s *Store) load(ctx context.Context, sections Sections, take func(*mvccpb.KeyValue)) (int64, error) {
	var gets []clientv3.Op
	for _, section := range sections {
		gets = append(gets, clientv3.OpGet(s.root+section, clientv3.WithPrefix(), clientv3.WithLimit(pageOfValues)))
	}
	first, cancel := context.WithTimeout(ctx, requestTimeout)
	response, err := s.client.Txn(first).Then(gets...).Commit()
	cancel()
	if err != nil {
		return 0, fmt.Errorf("read the store: %w", err)
	}
	for i, got := range response.Responses {
		page := got.GetResponseRange()
		for kvs, more := page.Kvs, page.More; ; {
			for _, kv := range kvs {
				take(kv)
			}
			if !more {
				break
			}
			next, err := s.page(ctx, string(kvs[len(kvs)-1].Key)+"\x00", s.root+sections[i], response.Header.Revision)
			if err != nil {
				return 0, err
			}
			kvs, more = next.Kvs, next.More
		}
	}
	return response.Header.Revision, nil
}

// page reads values of a section from a key on, at a revision.
func (s *Store) page(ctx context.Context, from, section string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	end := clientv3.WithRange(clientv3.GetPrefixRangeEnd(section))
	response, err := s.client.Get(ctx, from, end, clientv3.WithRev(revision), clientv3.WithLimit(pageOfValues))
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	return response, nil
}

// assemble reads all sections at one revision. What it reads is given to each as well, which may be nil.
func (s *Store) assemble(ctx context.Context, assembler *topology.Assembler, each func(*mvccpb.KeyValue)) (int64, error) {
	return s.load(ctx, sections, func(kv *mvccpb.KeyValue) {
		assembler.Put(strings.TrimPrefix(string(kv.Key), s.root), kv.Value)
		if each != nil {
			each(kv)
		}
	})
}
