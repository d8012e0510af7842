package controlplane

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology/relay"
	"github.com/isochrone/isochrone/topology/store"
)

// Members knows the nodes that have been let in, as a Registrar has written them. It looks them up in memory, which Run keeps as etcd is;
// what it knew last stays while etcd is away. It is safe for concurrent use.
type Members struct {
	store *store.Store
	ca    *ca.CA
	now   func() time.Time
	known atomic.Pointer[map[string]*member] // by user; nil before they have been read
}

// NewMembers returns the members below a root in etcd, such as /isochrone/, with certificates of a CA. It knows none before it runs.
func NewMembers(etcd *clientv3.Client, root string, authority *ca.CA, now func() time.Time) *Members {
	return &Members{store: store.New(etcd, root), ca: authority, now: now}
}

// Run follows etcd until ctx ends, whose error it returns.
func (m *Members) Run(ctx context.Context) error {
	known := map[string]*member{}
	return (&store.Tail{Feed: m.store.Feed(store.Sections{members}), Take: func(u store.Update) {
		for _, key := range u.Delete {
			delete(known, strings.TrimPrefix(key, members))
		}
		for key, value := range u.Put {
			user := strings.TrimPrefix(key, members)
			if read, err := readMember(value); err == nil {
				known[user] = read
			} else {
				delete(known, user)
			}
		}
		now := maps.Clone(known) // few change
		m.known.Store(&now)
	}}).Run(ctx)
}

// Admit is relay.Config's: it refuses certificates of nodes that have not been let in, or were turned out since.
func (m *Members) Admit(shown *x509.Certificate) error {
	known := m.known.Load()
	if known == nil {
		return relay.ErrUnsure
	}
	user, err := userOf(m.ca, shown, m.now())
	if err != nil {
		return err
	}
	node := (*known)[user]
	if node == nil {
		node = new(member)
	}
	return node.admits(user, shown)
}

// userOf returns the user whose certificate this is, of a node.
func userOf(authority *ca.CA, shown *x509.Certificate, now time.Time) (string, error) {
	if shown == nil {
		return "", fmt.Errorf("%w: no certificate was shown", ErrNotAdmitted)
	}
	if err := authority.Verify(shown, now); err != nil {
		return "", fmt.Errorf("%w: the certificate is not good here: %w", ErrNotAdmitted, err)
	}
	user := shown.Subject.CommonName
	if role, _, err := store.ParseUserName(user); err != nil || !role.IsNode() {
		return "", fmt.Errorf("%w: %.80q is no node", ErrNotAdmitted, user)
	}
	return user, nil
}

// admits reports why a user's certificate, which the CA has signed, is not good. A certificate that was made after the newest that the
// record knows of is: then the record is from a backup.
func (m *member) admits(user string, shown *x509.Certificate) error {
	role, known := nodeRoles[m.Kind]
	if !known || store.UserName(role, m.Name) != user { // what it may become is never decided by what stands in etcd
		return fmt.Errorf("%w: %s has not joined, or was turned out", ErrNotAdmitted, user)
	}
	if serial := serialOf(shown); m.Serial != serial && m.Previous != serial && !shown.NotAfter.After(m.Expires) {
		return fmt.Errorf("%w: %s has a newer certificate; if that is not on this machine, invite it anew", ErrNotAdmitted, user)
	}
	return nil
}
