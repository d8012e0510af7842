package controlplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/isochrone/isochrone/topology/store"
)

// Expelled is a node that has been turned out.
type Expelled struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Etcd bool   `json:"etcd"` // its user in etcd may be there still: only root can remove it
}

// errNoRegistrar is told where nodes cannot join.
var errNoRegistrar = fmt.Errorf("%w: this control plane lets no nodes in: it was started without ca-dir", ErrInvalid)

// Invite makes a one-time token by which a new machine joins as a node. The errors are ErrInvalid and ErrTooLarge.
func (s *Service) Invite(ctx context.Context, request InviteRequest) (*Invitation, error) {
	if s.Registrar == nil {
		return nil, errNoRegistrar
	}
	request.Author = author(ctx)
	return s.Registrar.Invite(ctx, request)
}

// Expel turns a node out. The errors are ErrInvalid, and ErrNotFound when no such node has joined.
func (s *Service) Expel(ctx context.Context, kind, name string) (*Expelled, error) {
	if s.Registrar == nil {
		return nil, errNoRegistrar
	}
	err := s.Registrar.Expel(ctx, kind, name, author(ctx))
	left := errors.Is(err, store.ErrPermission)
	if err != nil && !left {
		return nil, err
	}
	return &Expelled{Kind: kind, Name: name, Etcd: left}, nil
}
