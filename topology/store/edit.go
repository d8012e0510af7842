package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// Limits of one transaction: etcd refuses requests of more than about 1.5 MiB, and more than 128 operations, where those of
// the outer transaction and of one nested in it add up.
const (
	groupSize      = 100
	maxGroups      = 28
	maxChangeBytes = 1_468_000 // 1.4 MiB
	opOverhead     = 32        // of each operation, about
)

// ErrTooLarge is returned for a change that does not fit one transaction.
var ErrTooLarge = errors.New("too large for one transaction")

// Change is an edit of the topology.
type Change struct {
	Put           map[topology.Ref]topology.Object
	Delete        []topology.Ref
	Base          int64  // the revision that the edit was made on; 0 means whatever is stored now
	Author        string // who does it, for history and audit
	Message       string // why, in a sentence
	RevertInvalid bool   // take back first, in the same transaction, the edits that made the stored topology invalid, if it is
}

// Apply makes a change in one transaction and returns its revision. The result is validated as a whole first. The errors
// are *topology.InvalidError with all faults, *ConflictError, ErrNotFound for a deletion of nothing, and ErrTooLarge.
func (s *Store) Apply(ctx context.Context, change Change) (int64, error) {
	return s.attempt(ctx, func() (*Planned, error) { return s.Plan(ctx, change) }, change.Author, change.Message)
}

// Rollback makes the topology in one transaction what it was at a revision, and returns its own. The errors are those of Apply
// and of At, and ErrUncertain.
func (s *Store) Rollback(ctx context.Context, revision, base int64, author, message string) (int64, error) {
	return s.attempt(ctx, func() (*Planned, error) { return s.PlanRollback(ctx, revision, base) }, author, message)
}

// attempt plans and commits, anew when somebody edits between the two; whether that is in the way, planning finds out.
func (s *Store) attempt(ctx context.Context, plan func() (*Planned, error), author, message string) (int64, error) {
	for attempt := 0; ; attempt++ {
		planned, err := plan()
		if err != nil {
			return 0, err
		}
		revision, err := s.carryOut(ctx, planned, author, message)
		if !errors.Is(err, ErrConflict) || attempt == 9 {
			return revision, err
		}
	}
}

// carryOut commits what was planned, with its history.
func (s *Store) carryOut(ctx context.Context, p *Planned, author, message string) (int64, error) {
	if len(p.values) == 0 {
		return p.Revision, nil
	}
	entry := Entry{
		Schema: topology.SchemaVersion, Action: p.action, Author: author, Time: s.now().UTC(), Message: message,
		Before: map[string]string{}, After: map[string]string{},
	}
	var ops []clientv3.Op
	objects := slices.SortedFunc(maps.Keys(p.values), compareObjects)
	for _, object := range objects {
		if before, ok := p.stored.texts[object]; ok {
			entry.Before[object] = before
		}
		if value := p.values[object]; value != nil {
			entry.After[object] = *value
			ops = append(ops, clientv3.OpPut(s.root+"topology/"+object, *value))
		} else {
			ops = append(ops, clientv3.OpDelete(s.root+"topology/"+object))
		}
	}
	text, err := entry.marshal()
	if err != nil {
		return 0, err
	}
	ops = append(ops, clientv3.OpPut(s.number("history/", p.Revision)+editSuffix, string(text)), s.audit(author, string(p.action), objects...))
	compares := s.unchanged(p.Revision)
	if len(ops) <= groupSize { // there is room to compare for deletions too, so that what the entry says was before is true
		for _, object := range objects {
			compares = append(compares, clientv3.Compare(clientv3.ModRevision(s.root+"topology/"+object), "=", p.stored.modified[object]))
		}
	}
	return s.commit(ctx, compares, ops)
}

// unchanged compares for a topology that is as it was at a revision: nothing was put since, and no edit left a history entry,
// so that nothing was deleted by one either. A deletion by other means than an edit, in this very moment, goes unseen, but for that of
// the few objects that are edited themselves; should it make the topology invalid, followers keep the last good one.
func (s *Store) unchanged(revision int64) []clientv3.Cmp {
	before := func(section string) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(s.root+section).WithPrefix(), "<", revision+1)
	}
	return []clientv3.Cmp{before("topology/"), before("history/")}
}

// commit carries out operations in one transaction, if all comparisons hold; it returns ErrConflict if one does not.
func (s *Store) commit(ctx context.Context, compares []clientv3.Cmp, ops []clientv3.Op) (int64, error) {
	size, groups := 0, ops
	if len(ops) > groupSize {
		groups = nil
	}
	for group := range slices.Chunk(ops, groupSize) {
		for _, op := range group {
			size += len(op.KeyBytes()) + len(op.ValueBytes()) + opOverhead
		}
		if len(ops) > groupSize {
			groups = append(groups, clientv3.OpTxn(nil, group, nil))
		}
	}
	if size > maxChangeBytes || len(ops) > maxGroups*groupSize {
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

// ChangeKey puts in place of an API key what change makes of it, and returns the revision. The errors are those of change, ErrNotFound
// when there is no key of that id, and ErrConflict when it was changed or revoked meanwhile: a key that is revoked stays so.
func (s *Store) ChangeKey(ctx context.Context, id, author string, change func(*topology.Key) (*topology.Key, error)) (int64, error) {
	at := s.root + "keys/" + id
	reading, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(reading, at)
	if err != nil {
		return 0, fmt.Errorf("read the store: %w", err)
	}
	if len(response.Kvs) == 0 {
		return 0, fmt.Errorf("keys/%s: %w", id, ErrNotFound)
	}
	before, faults := topology.ParseKey(id, response.Kvs[0].Value)
	if len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	after, err := change(before)
	if err != nil {
		return 0, err
	}
	value := topology.MarshalValue(after)
	if _, faults := topology.ParseKey(id, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	revision, err := s.commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(at), "=", response.Kvs[0].ModRevision)}, []clientv3.Op{
		clientv3.OpPut(at, string(value)), s.audit(author, "put", "keys/"+id),
	})
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("keys/%s: %w", id, err)
	}
	return revision, err
}

// DeleteKey revokes an API key and returns the revision. The error is ErrNotFound when there is none of that id.
func (s *Store) DeleteKey(ctx context.Context, id, author string) (int64, error) {
	return s.remove(ctx, "keys/"+id, author)
}

// PutSealed adds or replaces a sealed secret and returns the revision.
func (s *Store) PutSealed(ctx context.Context, name string, sealed *topology.Sealed, author string) (int64, error) {
	value := topology.MarshalValue(sealed)
	if _, faults := topology.ParseSealed(name, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	return s.commit(ctx, nil, []clientv3.Op{
		clientv3.OpPut(s.root+"secrets/"+name, string(value)), s.audit(author, "put", "secrets/"+name),
	})
}

// ReplaceSealed writes a sealed secret in place of what Sealed returned with revision base; 0 means that there must be none. It returns the
// revision. The errors are ErrConflict and *topology.InvalidError.
func (s *Store) ReplaceSealed(ctx context.Context, name string, sealed *topology.Sealed, base int64, author string) (int64, error) {
	value := topology.MarshalValue(sealed)
	if _, faults := topology.ParseSealed(name, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	same := clientv3.Compare(clientv3.ModRevision(s.root+"secrets/"+name), "=", base) // that of a missing key is 0
	revision, err := s.commit(ctx, []clientv3.Cmp{same}, []clientv3.Op{
		clientv3.OpPut(s.root+"secrets/"+name, string(value)), s.audit(author, "put", "secrets/"+name),
	})
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("secrets/%s: %w: read it again", name, err)
	}
	return revision, err
}

// PutChallenge has DNS nodes answer a challenge of ACME, in place of one of the same name. It returns the revision from which on a node
// that follows the store does. The error is *topology.InvalidError for one that none would take. It leaves no line in the audit, as
// DeleteChallenge does not.
func (s *Store) PutChallenge(ctx context.Context, name string, c *topology.Challenge) (int64, error) {
	value := topology.MarshalValue(c)
	if _, faults := topology.ParseChallenge(name, value); len(faults) > 0 {
		return 0, &topology.InvalidError{Faults: faults}
	}
	return s.commit(ctx, nil, []clientv3.Op{clientv3.OpPut(s.root+"acme/challenges/"+name, string(value))})
}

// DeleteChallenge ends a challenge; it is no error when there is none.
func (s *Store) DeleteChallenge(ctx context.Context, name string) error {
	_, err := s.commit(ctx, nil, []clientv3.Op{clientv3.OpDelete(s.root + "acme/challenges/" + name)})
	return err
}

// DeleteSealed deletes a sealed secret and returns the revision. The error is ErrNotFound when there is none of that name.
func (s *Store) DeleteSealed(ctx context.Context, name, author string) (int64, error) {
	return s.remove(ctx, "secrets/"+name, author)
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
	exists := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.root+name), ">", 0)}
	gone := clientv3.OpDelete(s.root + name)
	revision, err := s.commit(ctx, exists, []clientv3.Op{gone, s.audit(author, "delete", name)})
	if errors.Is(err, rpctypes.ErrNoSpace) { // a full etcd still deletes: a drain must end, and a key be revoked, though nobody can note who did it
		revision, err = s.commit(ctx, exists, []clientv3.Op{gone})
	}
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return revision, err
}
