package peer

import (
	"context"
	"log/slog"

	"filippo.io/age"

	"github.com/isochrone/isochrone/topology/sealed/keeper"
	"github.com/isochrone/isochrone/topology/store"
)

// Secret is the name of the sealed secret that PoPs share for calls.
const Secret = "peers"

// NewKeeper returns what makes the secret that PoPs share where there is none, and seals it anew when it is sealed for others. It is a task of the
// leader of the control planes. Recipients are those of the role of PoPs (age1…); its own are added.
func NewKeeper(s *store.Store, identities []age.Identity, recipients []string, log *slog.Logger) *keeper.Keeper {
	return &keeper.Keeper{
		Name: Secret, What: "the secret of PoPs for calls to each other", Store: s, Identities: identities, Recipients: recipients, Log: log,
		Next: func(_ context.Context, present []byte) ([]byte, string, error) {
			if present != nil {
				return present, "", nil
			}
			return NewSecret(), "PoPs show each other with it that they are PoPs", nil
		},
	}
}
