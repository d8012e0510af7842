package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// Limits of one transaction: etcd refuses requests of more than about 1.5 MiB, and more than 128 operations, where those of
// the outer transaction and of one nested in it add up.
const (
	groupSize      = 100
	maxGroups      = 28
	maxChangeBytes = topology.MaxDocumentBytes
)

// ErrTooLarge is returned for a change that does not fit one transaction.
var ErrTooLarge = errors.New("too large for one transaction")

// Change is an edit of the topology.
type Change struct {
	Put     map[topology.Ref]topology.Object
	Delete  []topology.Ref
	Base    int64  // the revision that the edit was made on; 0 means whatever is stored now
	Author  string // who does it, for history and audit
	Message string // why, in a sentence
}

// History is what an edit of the topology leaves behind, under history/.
type History struct {
	Schema  int               `yaml:"schema"`
	Author  string            `yaml:"author"`
	Time    time.Time         `yaml:"time"`
	Message string            `yaml:"message,omitempty"`
	Before  map[string]string `yaml:"before,omitempty"` // values by KIND/NAME; of new objects there is none
	After   map[string]string `yaml:"after,omitempty"`  // of deleted objects there is none
}

// Audit is what every edit leaves behind, under audit/.
type Audit struct {
	Schema  int       `yaml:"schema"`
	Author  string    `yaml:"author"`
	Time    time.Time `yaml:"time"`
	Action  string    `yaml:"action"` // such as apply, put, delete
	Objects []string  `yaml:"objects"`
}

// Apply makes a change in one transaction and returns its revision. The result is validated as a whole first. The errors
// are *topology.InvalidError with all faults, ErrConflict naming what changed since Base, ErrNotFound for a deletion of
// nothing, and ErrTooLarge.
func (s *Store) Apply(ctx context.Context, change Change) (int64, error) {
	for attempt := 0; ; attempt++ {
		revision, err := s.applyOnce(ctx, change)
		if !errors.Is(err, ErrConflict) || change.Base != 0 || attempt == 4 {
			return revision, err
		}
	}
}

func (s *Store) applyOnce(ctx context.Context, change Change) (int64, error) {
	assembler, before := topology.NewAssembler(nil, 0), map[string]*mvccpb.KeyValue{}
	revision, err := s.assemble(ctx, assembler, func(kv *mvccpb.KeyValue) {
		if object, ok := strings.CutPrefix(string(kv.Key), s.root+"topology/"); ok {
			before[object] = kv
		}
	})
	if err != nil {
		return 0, err
	}
	if changed := changedSince(before, change.Base); change.Base != 0 && len(changed) > 0 {
		return 0, fmt.Errorf("%w: since revision %d somebody changed %s", ErrConflict, change.Base, strings.Join(changed, ", "))
	}
	if err := check(assembler, change); err != nil {
		return 0, err
	}
	history := History{
		Schema: topology.SchemaVersion, Author: change.Author, Time: s.now().UTC(), Message: change.Message,
		Before: map[string]string{}, After: map[string]string{},
	}
	var ops []clientv3.Op
	for _, r := range slices.SortedFunc(maps.Keys(change.Put), compareRefs) {
		value := string(topology.MarshalValue(change.Put[r]))
		history.After[r.String()] = value
		ops = append(ops, clientv3.OpPut(s.root+"topology/"+r.String(), value))
	}
	for _, r := range change.Delete {
		if before[r.String()] == nil {
			return 0, fmt.Errorf("%v: %w", r, ErrNotFound)
		}
		ops = append(ops, clientv3.OpDelete(s.root+"topology/"+r.String()))
	}
	touched := append(slices.Sorted(maps.Keys(history.After)), refNames(change.Delete)...)
	for _, object := range touched {
		if kv := before[object]; kv != nil {
			history.Before[object] = string(kv.Value)
		}
	}
	if len(ops) == 0 {
		return revision, nil
	}
	ops = append(ops, s.record(history), s.audit(change.Author, "apply", touched...))
	return s.commit(ctx, s.unchanged(revision), ops)
}

// check validates what a change would result in.
func check(assembler *topology.Assembler, change Change) error {
	for r, object := range change.Put {
		assembler.Put("topology/"+r.String(), topology.MarshalValue(object))
	}
	for _, r := range change.Delete {
		assembler.Delete("topology/" + r.String())
	}
	if _, faults := assembler.Stored(); len(faults) > 0 {
		return &topology.InvalidError{Faults: faults}
	}
	return nil
}

func compareRefs(a, b topology.Ref) int { return strings.Compare(a.String(), b.String()) }

func refNames(refs []topology.Ref) []string {
	names := make([]string, len(refs))
	for i, r := range refs {
		names[i] = r.String()
	}
	return names
}

// changedSince names the objects that were put after a revision.
func changedSince(objects map[string]*mvccpb.KeyValue, revision int64) []string {
	var names []string
	for name, kv := range objects {
		if kv.ModRevision > revision {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unchanged compares for a topology that is as it was at a revision: nothing was put since, and no edit left a history entry,
// so that nothing was deleted by one either. A deletion by other means than an edit, in this very moment, goes unseen; should
// it make the topology invalid, followers keep the last good one.
func (s *Store) unchanged(revision int64) []clientv3.Cmp {
	before := func(section string) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(s.root+section).WithPrefix(), "<", revision+1)
	}
	return []clientv3.Cmp{before("topology/"), before("history/")}
}

// timeKey is a key below a section that sorts by time.
func (s *Store) timeKey(section string, at time.Time) string {
	return fmt.Sprintf("%s%s%020d", s.root, section, at.UnixNano())
}

func (s *Store) record(h History) clientv3.Op {
	return clientv3.OpPut(s.timeKey("history/", h.Time), string(topology.MarshalValue(h)))
}

func (s *Store) audit(author, action string, objects ...string) clientv3.Op {
	a := Audit{Schema: topology.SchemaVersion, Author: author, Time: s.now().UTC(), Action: action, Objects: objects}
	return clientv3.OpPut(s.timeKey("audit/", a.Time), string(topology.MarshalValue(a)))
}

// commit carries out operations in one transaction, if all comparisons hold; it returns ErrConflict if one does not.
func (s *Store) commit(ctx context.Context, compares []clientv3.Cmp, ops []clientv3.Op) (int64, error) {
	size := 0
	var groups []clientv3.Op
	for group := range slices.Chunk(ops, groupSize) {
		for _, op := range group {
			size += len(op.KeyBytes()) + len(op.ValueBytes())
		}
		groups = append(groups, clientv3.OpTxn(nil, group, nil))
	}
	if size > maxChangeBytes || len(groups) > maxGroups {
		return 0, fmt.Errorf("%w: %d operations of %d bytes with their history; apply the objects in parts", ErrTooLarge, len(ops), size)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Txn(ctx).If(compares...).Then(groups...).Commit()
	if errors.Is(err, rpctypes.ErrRequestTooLarge) {
		return 0, fmt.Errorf("%w: apply the objects in parts", ErrTooLarge)
	}
	if err != nil {
		return 0, fmt.Errorf("write to the store: %w", err)
	}
	if !response.Succeeded {
		return 0, ErrConflict
	}
	return response.Header.Revision, nil
}

// PutOverride adds or replaces an override and returns the revision.
func (s *Store) PutOverride(ctx context.Context, name string, o *topology.Override) (int64, error) {
	value := topology.MarshalValue(o)
	if _, faults := topology.ParseOverride(name, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	return s.commit(ctx, nil, []clientv3.Op{
		clientv3.OpPut(s.root+"overrides/"+name, string(value)), s.audit(o.Author, "put", "overrides/"+name),
	})
}

// DeleteOverride ends an override and returns the revision. The error is ErrNotFound when there is none of that name.
func (s *Store) DeleteOverride(ctx context.Context, name, author string) (int64, error) {
	return s.remove(ctx, "overrides/"+name, author)
}

// PutKey adds or replaces an API key's record and returns the revision.
func (s *Store) PutKey(ctx context.Context, id string, k *topology.Key, author string) (int64, error) {
	value := topology.MarshalValue(k)
	if _, faults := topology.ParseKey(id, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	return s.commit(ctx, nil, []clientv3.Op{
		clientv3.OpPut(s.root+"keys/"+id, string(value)), s.audit(author, "put", "keys/"+id),
	})
}

// DeleteKey revokes an API key and returns the revision. The error is ErrNotFound when there is none of that id.
func (s *Store) DeleteKey(ctx context.Context, id, author string) (int64, error) {
	return s.remove(ctx, "keys/"+id, author)
}

// PutSigning writes the signing of a zone, in place of what Signing returned with revision base; 0 means that there must be
// none. It returns the revision. The errors are ErrConflict and *topology.InvalidError.
func (s *Store) PutSigning(ctx context.Context, zone string, signing *topology.Signing, base int64, author string) (int64, error) {
	value := topology.MarshalValue(signing)
	if _, faults := topology.ParseSigning(zone, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	return s.replaceSigning(ctx, zone, base, clientv3.OpPut(s.root+"dnssec/"+zone, string(value)), s.audit(author, "put", "dnssec/"+zone))
}

// DeleteSigning makes a zone unsigned, if its signing is what Signing returned with revision base. It returns the revision.
// The error is ErrConflict if the signing has changed or is gone.
func (s *Store) DeleteSigning(ctx context.Context, zone string, base int64, author string) (int64, error) {
	return s.replaceSigning(ctx, zone, base, clientv3.OpDelete(s.root+"dnssec/"+zone), s.audit(author, "delete", "dnssec/"+zone))
}

func (s *Store) replaceSigning(ctx context.Context, zone string, base int64, ops ...clientv3.Op) (int64, error) {
	same := clientv3.Compare(clientv3.ModRevision(s.root+"dnssec/"+zone), "=", base) // that of a missing key is 0
	revision, err := s.commit(ctx, []clientv3.Cmp{same}, ops)
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("dnssec/%s: %w: read it again", zone, err)
	}
	return revision, err
}

func (s *Store) remove(ctx context.Context, name, author string) (int64, error) {
	exists := clientv3.Compare(clientv3.CreateRevision(s.root+name), ">", 0)
	revision, err := s.commit(ctx, []clientv3.Cmp{exists}, []clientv3.Op{
		clientv3.OpDelete(s.root + name), s.audit(author, "delete", name),
	})
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return revision, err
}
