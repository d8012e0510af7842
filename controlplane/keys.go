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
	keys, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, keys.Len())
	for id := range keys.All() {
		if id >= page.After { // After is the first one of the page
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	list := &KeyPage{Keys: []KeyStatus{}}
	if len(ids) > limit {
		list.Next, ids = ids[limit], ids[:limit]
	}
	for _, id := range ids {
		list.Keys = append(list.Keys, s.keyStatus(id, keys.Lookup(id)))
	}
	return list, nil
}

// keys are those of the newest snapshot, or of the store when nobody follows it.
func (s *Service) keys(ctx context.Context) (*topology.KeySet, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	snap, err := store.Read(ctx)
	if err != nil {
		return nil, err
	}
	return snap.Keys, nil
}

// keyStatus shows a key without its hash, which is nobody's business.
func (s *Service) keyStatus(id string, k *topology.Key) KeyStatus {
	return KeyStatus{ID: id, Key: k, Expired: k.Expired(s.Now())}
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
	if _, err := store.PutKey(ctx, id, key, author(ctx)); err != nil {
		return nil, refused(err)
	}
	return &NewKey{s.keyStatus(id, key), secret}, nil
}

// RotateKey gives a key a new secret; the old one is valid for a while longer. The error is ErrNotFound if there is no such key.
func (s *Service) RotateKey(ctx context.Context, id string, overlap time.Duration) (*NewKey, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	keys, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	key := keys.Lookup(id)
	if key == nil {
		return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
	}
	secret, rotated, err := key.Rotate(rand.Reader, id, s.Now(), overlap)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := store.PutKey(ctx, id, rotated, author(ctx)); err != nil {
		return nil, refused(err)
	}
	return &NewKey{s.keyStatus(id, rotated), secret}, nil
}

// RevokeKey deletes a key. The error is ErrNotFound if there is none of that id.
func (s *Service) RevokeKey(ctx context.Context, id string) error {
	store, err := s.store()
	if err != nil {
		return err
	}
	_, err = store.DeleteKey(ctx, id, author(ctx))
	return err
}
