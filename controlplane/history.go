package controlplane

import (
	"context"

	"github.com/isochrone/isochrone/topology"
)

// History is not there yet.
func (s *Service) History(context.Context, Page) (*HistoryPage, error) { return nil, ErrNotReady }

// At is not there yet.
func (s *Service) At(context.Context, int64) (*Stored, error) { return nil, ErrNotReady }

// Diff is not there yet.
func (s *Service) Diff(context.Context, DiffRequest) (*Difference, error) { return nil, ErrNotReady }

// Rollback is not there yet.
func (s *Service) Rollback(context.Context, RollbackRequest) (*Applied, error) {
	return nil, ErrNotReady
}

// Doctor is not there yet.
func (s *Service) Doctor(context.Context) (*Diagnosis, error) { return nil, ErrNotReady }

// Audit is not there yet.
func (s *Service) Audit(context.Context, Page) (*AuditPage, error) { return nil, ErrNotReady }

// PutSecret is not there yet.
func (s *Service) PutSecret(context.Context, string, *topology.Sealed) error { return ErrNotReady }

// DeleteSecret is not there yet.
func (s *Service) DeleteSecret(context.Context, string) error { return ErrNotReady }
