package acme

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

const (
	challengeLife = time.Hour        // of a challenge that nobody takes away
	seenTimeout   = 15 * time.Second // for DNS nodes to learn of one
)

// solver has our DNS nodes answer challenges.
type solver struct {
	store *store.Store
	seen  func(ctx context.Context, revision int64) error

	mu        sync.Mutex
	revisions map[string]int64 // of challenges that are stored, by name
}

var (
	_ acmez.Solver = (*solver)(nil)
	_ acmez.Waiter = (*solver)(nil)
)

// Present implements acmez.Solver.
func (s *solver) Present(ctx context.Context, c acme.Challenge) error {
	name := c.Identifier.Value
	revision, err := s.store.PutChallenge(ctx, name, topology.NewChallenge(c.DNS01KeyAuthorization(), challengeLife, time.Now()))
	if err != nil {
		return fmt.Errorf("store the challenge of %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revisions[name] = revision
	return nil
}

// Wait implements acmez.Waiter: it returns when DNS nodes answer the challenge. When some do not say so in time, the CA is asked all the
// same: a node that has lost the store may not be the one that it asks.
func (s *solver) Wait(ctx context.Context, c acme.Challenge) error {
	s.mu.Lock()
	revision := s.revisions[c.Identifier.Value]
	s.mu.Unlock()
	waiting, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	if s.seen != nil {
		_ = s.seen(waiting, revision)
	}
	return ctx.Err()
}

// CleanUp implements acmez.Solver.
func (s *solver) CleanUp(ctx context.Context, c acme.Challenge) error {
	name := c.Identifier.Value
	s.mu.Lock()
	delete(s.revisions, name)
	s.mu.Unlock()
	if err := s.store.DeleteChallenge(context.WithoutCancel(ctx), name); err != nil {
		return fmt.Errorf("take away the challenge of %s: %w", name, err)
	}
	return nil
}
