package controlplane

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// limit returns how many items a page has.
func (p Page) limit() (int, error) {
	if p.Limit < 0 || p.Limit > 1000 {
		return 0, fmt.Errorf("%w: limit %d is not in 1..1000", ErrInvalid, p.Limit)
	}
	return cmp.Or(p.Limit, 100), nil
}

// Keys lists API keys without their secrets.
func (s *Service) Keys(ctx context.Context, page Page) (*KeyPage, error) {
	limit, err := page.limit()
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	keys := snap.Keys
	ids := make([]string, 0, keys.Len())
	for id := range keys.All() {
		if id > page.After {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	list := &KeyPage{Keys: []KeyStatus{}}
	if len(ids) > limit {
		list.Next, ids = ids[limit-1], ids[:limit]
	}
	for _, id := range ids {
		list.Keys = append(list.Keys, s.keyStatus(id, keys.Lookup(id), snap.Topology))
	}
	return list, nil
}

// keyStatus shows a key without its hash, which is nobody's business. It warns of services that the topology does not have; without one
// nothing is known of that.
func (s *Service) keyStatus(id string, k *topology.Key, top *topology.Topology) KeyStatus {
	shown := KeyStatus{
		ID: id, Services: k.Services, From: k.From, QuotaPerMinute: k.QuotaPerMinute, Probe: k.Probe, Note: k.Note,
		Created: k.Created, Expires: k.Expires, Expired: k.Expired(s.Now()),
	}
	if k.PreviousUntil.After(s.Now()) {
		shown.PreviousUntil = k.PreviousUntil
	}
	for _, service := range k.Services {
		if top != nil && top.Services[service] == nil {
			shown.Warnings = append(shown.Warnings, fmt.Sprintf("there is no service %s", service))
		}
	}
	return shown
}

// CreateKey makes an API key.
func (s *Service) CreateKey(ctx context.Context, request KeyRequest) (*NewKey, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	id, secret, key, err := topology.NewKey(rand.Reader, s.Now())
	if err != nil {
		return nil, err
	}
	key.Services, key.Note, key.Probe = request.Services, request.Note, request.Probe
	key.QuotaPerMinute = cmp.Or(request.QuotaPerMinute, topology.DefaultQuotaPerMinute)
	if !request.Expires.IsZero() {
		key.Expires = request.Expires.UTC().Truncate(time.Second)
		if key.Expired(s.Now()) {
			return nil, fmt.Errorf("%w: expires %s is over", ErrInvalid, key.Expires.Format(time.RFC3339))
		}
	}
	for _, text := range request.From {
		prefix, err := parseClient(text)
		if err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		key.From = append(key.From, prefix)
	}
	top, _, _, err := store.Stored(ctx)
	if err != nil {
		return nil, err
	}
	revision, err := store.PutKey(ctx, id, key, author(ctx))
	if err != nil {
		return nil, refused(err)
	}
	s.settle(ctx, revision)
	return &NewKey{s.keyStatus(id, key, top), secret}, nil
}

// RotateKey gives a key a new secret; the old one is valid for a while longer. The errors are ErrNotFound if there is no such key, and
// ErrConflict when somebody has changed it at the same moment.
func (s *Service) RotateKey(ctx context.Context, id string, overlap time.Duration) (*NewKey, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	top, _, _, err := store.Stored(ctx)
	if err != nil {
		return nil, err
	}
	var (
		secret  string
		rotated *topology.Key
	)
	revision, err := store.ChangeKey(ctx, id, author(ctx), func(key *topology.Key) (_ *topology.Key, err error) {
		if secret, rotated, err = key.Rotate(rand.Reader, id, s.Now(), overlap); err != nil {
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return rotated, err
	})
	if err != nil {
		return nil, refused(err)
	}
	s.settle(ctx, revision)
	return &NewKey{s.keyStatus(id, rotated, top), secret}, nil
}

// RevokeKey deletes a key. The error is ErrNotFound if there is none of that id.
func (s *Service) RevokeKey(ctx context.Context, id string) error {
	store, err := s.store()
	if err != nil {
		return err
	}
	revision, err := store.DeleteKey(ctx, id, author(ctx))
	if err == nil {
		s.settle(ctx, revision)
	}
	return err
}
