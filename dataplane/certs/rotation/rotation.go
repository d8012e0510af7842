// Package rotation keeps the keys of session tickets that PoPs share in the store, sealed, and rotates them. It is a task of the leader of
// the control planes; when two do it for a moment, one of them fails and looks again.
package rotation

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/dataplane/certs"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// Secret is the name of the sealed secret with the keys of session tickets.
const Secret = "tickets"

// author stands in the audit.
const author = "leader"

// lookInterval is how often is looked whether the keys are due.
const lookInterval = time.Minute

// Rotator rotates keys.
type Rotator struct {
	Store      *store.Store
	Identities []age.Identity // by which it opens what it has sealed
	Recipients []string       // of the role of PoPs (age1…); its own are added
	Period     time.Duration  // 0 stands for certs.RotationPeriod
	Log        *slog.Logger   // nil: nothing is told
	Now        func() time.Time
}

// Run rotates the keys when they are due, until ctx ends or the store cannot be reached; the error says which.
func (r *Rotator) Run(ctx context.Context) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		if err := r.Once(ctx); err != nil && !errors.Is(err, store.ErrConflict) { // another leader was faster
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Once makes keys when there are none, or none that it can open, rotates those that are due, and seals them anew when they are sealed for
// others. The error is store.ErrConflict when somebody did so meanwhile.
func (r *Rotator) Once(ctx context.Context) error {
	now, period := time.Now(), r.Period
	if r.Now != nil {
		now = r.Now()
	}
	if period == 0 {
		period = certs.RotationPeriod
	}
	recipients := slices.Compact(slices.Sorted(slices.Values(append(sealed.RecipientsOf(r.Identities), r.Recipients...))))
	stored, base, err := r.Store.Sealed(ctx, Secret)
	if err != nil && base == 0 && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	next, renewed := certs.NewGenerations(now), true
	if stored != nil {
		g, err := r.open(stored)
		switch {
		case err != nil:
			r.tell("keys of session tickets cannot be opened, and are made anew", "error", err)
		case g.Due(now, period):
			next = g.Rotate(now)
		default:
			next, renewed = g, false
		}
		if !renewed && slices.Equal(stored.Recipients, recipients) {
			return nil
		}
	}
	note := "keys of session tickets, rotated by the leader at " + next.Rotated.UTC().Format(time.RFC3339)
	s, err := sealed.Seal(Secret, next.Marshal(), recipients, note, now)
	if err != nil {
		return err
	}
	if _, err := r.Store.ReplaceSealed(ctx, Secret, s, base, author); err != nil {
		return err
	}
	r.tell("keys of session tickets sealed", "rotated", next.Rotated)
	return nil
}

func (r *Rotator) open(stored *topology.Sealed) (certs.Generations, error) {
	text, err := sealed.Open(Secret, stored, r.Identities)
	if err != nil {
		return certs.Generations{}, err
	}
	return certs.ParseGenerations(text)
}

func (r *Rotator) tell(text string, args ...any) {
	if r.Log != nil {
		r.Log.Info(text, args...)
	}
}
