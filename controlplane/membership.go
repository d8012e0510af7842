package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// Renew signs a new certificate for a node that shows its present one. The errors are ErrInvalid and ErrNotAdmitted.
func (r *Registrar) Renew(ctx context.Context, shown *x509.Certificate, request string) (*Joined, error) {
	public, err := ca.ReadRequest([]byte(request))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	m, revision, err := r.member(ctx, shown)
	if err != nil {
		return nil, err
	}
	// The certificate that is shown stays good, since the answer with the new one can get lost; any other does not.
	m.Previous = serialOf(shown)
	joined, err := r.sign(m, public, r.Now())
	if err != nil {
		return nil, err
	}
	user := shown.Subject.CommonName
	written, err := r.commit(ctx, user, "renew", user,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(r.key(memberKey(user))), "=", revision)},
		clientv3.OpPut(r.key(memberKey(user)), string(topology.MarshalValue(m))))
	if err == nil && !written {
		err = fmt.Errorf("%s: %w: ask again", user, store.ErrConflict)
	}
	if err != nil {
		return nil, err
	}
	return joined, nil
}

// member returns the record of the node whose certificate this is.
func (r *Registrar) member(ctx context.Context, shown *x509.Certificate) (*member, int64, error) {
	user, err := userOf(r.CA, shown, r.Now())
	if err != nil {
		return nil, 0, err
	}
	m := new(member)
	revision, err := r.load(ctx, memberKey(user), m)
	if err != nil {
		return nil, 0, err
	}
	return m, revision, m.admits(user, shown)
}

// Expel turns a node out: its certificate is renewed no more, and its user in etcd is gone, where the registrar's own user may do
// that: else the error is store.ErrPermission, after the rest. It is ErrNotFound when no such node has joined.
func (r *Registrar) Expel(ctx context.Context, kind, name, author string) error {
	role, known := nodeRoles[kind]
	if !known {
		return fmt.Errorf("%w: kind %.40q is not pop or dns", ErrInvalid, kind)
	}
	user := store.UserName(role, name)
	key := r.key(memberKey(user))
	gone, err := r.commit(ctx, author, "expel", user, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}, clientv3.OpDelete(key))
	if err != nil {
		return err
	}
	err = store.RemoveUser(ctx, r.Etcd, role, name)
	if !gone && (err == nil || errors.Is(err, store.ErrPermission)) {
		return fmt.Errorf("%s: %w", user, ErrNotFound)
	}
	return err
}
