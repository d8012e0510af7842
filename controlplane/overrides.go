package controlplane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// Overrides lists the overrides that are stored, those that have expired too.
func (s *Service) Overrides(ctx context.Context) ([]OverrideStatus, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	snap, err := store.Read(ctx)
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
		made.Schema = topology.SchemaVersion
	}
	if made.Created.IsZero() {
		made.Created = s.Now().UTC().Truncate(time.Second)
	}
	if !made.Expires.IsZero() && !made.Expires.After(s.Now()) {
		return 0, fmt.Errorf("%w: the override would have ended at %s", ErrInvalid, made.Expires.UTC().Format(time.RFC3339))
	}
	revision, err := store.PutOverride(ctx, name, &made)
	return revision, refused(err)
}

// DeleteOverride ends an override. The error is ErrNotFound when there is none of that name.
func (s *Service) DeleteOverride(ctx context.Context, name string) (int64, error) {
	store, err := s.store()
	if err != nil {
		return 0, err
	}
	return store.DeleteOverride(ctx, name, author(ctx))
}

// Secrets lists the sealed secrets without what is sealed.
func (s *Service) Secrets(ctx context.Context) ([]SecretStatus, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	snap, err := store.Read(ctx)
	if err != nil {
		return nil, err
	}
	list := []SecretStatus{}
	for _, name := range slices.Sorted(maps.Keys(snap.Secrets)) {
		shown := *snap.Secrets[name]
		shown.Age = ""
		list = append(list, SecretStatus{name, &shown})
	}
	return list, nil
}

// Tokens lists the tokens of the API without their secrets.
func (s *Service) Tokens(ctx context.Context) ([]TokenStatus, error) {
	tokens, err := s.auth()
	if err != nil {
		return nil, err
	}
	return tokens.list(ctx)
}

// CreateToken makes a token of the API.
func (s *Service) CreateToken(ctx context.Context, request TokenRequest) (*NewToken, error) {
	tokens, err := s.auth()
	if err != nil {
		return nil, err
	}
	return tokens.Create(ctx, request, author(ctx))
}

// RevokeToken deletes a token of the API. The error is ErrNotFound if there is none of that id.
func (s *Service) RevokeToken(ctx context.Context, id string) error {
	tokens, err := s.auth()
	if err != nil {
		return err
	}
	return tokens.Revoke(ctx, id, author(ctx))
}

func (s *Service) auth() (*Tokens, error) {
	if s.Auth == nil {
		return nil, fmt.Errorf("%w: there is no store", ErrNotReady)
	}
	return s.Auth, nil
}
