package controlplane

import (
	"context"
	"fmt"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// Overrides lists the overrides that are stored, those that have expired too.
func (s *Service) Overrides(ctx context.Context) ([]OverrideStatus, error) {
	snap, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return s.overridesOf(snap), nil
}

// PutOverride adds or replaces an override. Who is asking is its author; without a time of creation it is made now.
func (s *Service) PutOverride(ctx context.Context, name string, o *topology.Override) (int64, error) {
	store, err := s.store()
	if err != nil {
		return 0, err
	}
	made := *o
	made.Author = author(ctx)
	if made.Schema == 0 {
		made.Schema = topology.FirstSchema
	}
	if made.Created.IsZero() {
		made.Created = s.Now().UTC().Truncate(time.Second)
	}
	if !made.Expires.IsZero() && !made.Expires.After(s.Now()) {
		return 0, fmt.Errorf("%w: the override would have ended at %s", ErrInvalid, made.Expires.UTC().Format(time.RFC3339))
	}
	revision, err := store.PutOverride(ctx, name, &made)
	if err == nil {
		s.settle(ctx, revision)
	}
	return revision, refused(err)
}

// DeleteOverride ends an override. The error is ErrNotFound when there is none of that name.
func (s *Service) DeleteOverride(ctx context.Context, name string) (int64, error) {
	store, err := s.store()
	if err != nil {
		return 0, err
	}
	revision, err := store.DeleteOverride(ctx, name, author(ctx))
	if err == nil {
		s.settle(ctx, revision)
	}
	return revision, err
}
