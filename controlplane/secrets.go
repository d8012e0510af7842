package controlplane

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/isochrone/isochrone/topology"
)

// Secrets lists the sealed secrets without what is sealed.
func (s *Service) Secrets(ctx context.Context) ([]SecretStatus, error) {
	snap, err := s.snapshot(ctx)
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

// PutSecret puts a sealed secret in place of one of its name, or as a new one.
func (s *Service) PutSecret(ctx context.Context, name string, sealed *topology.Sealed) error {
	st, err := s.store()
	if err != nil {
		return err
	}
	revision, err := st.PutSealed(ctx, name, sealed, author(ctx))
	if err == nil {
		s.settle(ctx, revision)
	}
	return refused(err)
}

// DeleteSecret deletes a sealed secret. The error is ErrNotFound if there is none of that name.
func (s *Service) DeleteSecret(ctx context.Context, name string) error {
	st, err := s.store()
	if err != nil {
		return err
	}
	revision, err := st.DeleteSealed(ctx, name, author(ctx))
	if err == nil {
		s.settle(ctx, revision)
	}
	return err
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
