// Package rotation keeps the keys of session tickets that PoPs share in the store, sealed, and rotates them. It is a task of the leader of
// the control planes.
package rotation

import (
	"context"
	"log/slog"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/dataplane/certs"
	"github.com/isochrone/isochrone/topology/sealed/keeper"
	"github.com/isochrone/isochrone/topology/store"
)

// Secret is the name of the sealed secret with the keys of session tickets.
const Secret = "tickets"

// New returns what makes keys when there are none, or none that it can open, rotates those that are due (certs.RotationPeriod), and seals them anew
// when they are sealed for others. Recipients are those of the role of PoPs (age1…); its own are added.
func New(s *store.Store, identities []age.Identity, recipients []string, log *slog.Logger) *keeper.Keeper {
	return rotating(s, identities, recipients, log, time.Now)
}

func rotating(s *store.Store, identities []age.Identity, recipients []string, log *slog.Logger, now func() time.Time) *keeper.Keeper {
	return &keeper.Keeper{
		Name: Secret, What: "the keys of session tickets", Store: s, Identities: identities, Recipients: recipients, Log: log, Replaces: true,
		Next: func(_ context.Context, present []byte) ([]byte, string, error) { return next(present, now()) },
	}
}

// next returns the keys that there are to be now. Those that cannot be read are made anew.
func next(present []byte, now time.Time) ([]byte, string, error) {
	made := certs.NewGenerations(now)
	if g, err := certs.ParseGenerations(present); present != nil && err == nil {
		if !g.Due(now, certs.RotationPeriod) {
			return present, "", nil
		}
		made = g.Rotate(now)
	}
	return made.Marshal(), "keys of session tickets, rotated by the leader at " + made.Rotated.UTC().Format(time.RFC3339), nil
}
