package peer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// Secret is the name of the sealed secret that PoPs share for calls.
const Secret = "peers"

// keeperInterval is how often is looked whether there is a secret.
const keeperInterval = time.Minute

// Keeper makes the secret that PoPs share where there is none, and seals it anew when it is sealed for others. It is a task of the leader of
// the control planes.
type Keeper struct {
	Store      *store.Store
	Identities []age.Identity // by which it opens what it has sealed
	Recipients []string       // of the role of PoPs (age1…); its own are added
	Log        *slog.Logger   // nil: nothing is told

	told string // what was logged last
}

// Run looks after the secret until ctx ends or the store cannot be reached; the error says which.
func (k *Keeper) Run(ctx context.Context) error {
	look := time.NewTicker(keeperInterval)
	defer look.Stop()
	for {
		if err := k.Once(ctx); err != nil && !errors.Is(err, store.ErrConflict) { // another leader was faster
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Once makes the secret, or seals it anew, if that is to be done. One that it cannot open is somebody else's, and stays. The error is
// store.ErrConflict when somebody wrote it meanwhile.
func (k *Keeper) Once(ctx context.Context) error {
	recipients := slices.Compact(slices.Sorted(slices.Values(append(sealed.RecipientsOf(k.Identities), k.Recipients...))))
	stored, base, err := k.Store.Sealed(ctx, Secret)
	if err != nil && base == 0 && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err != nil && base != 0 { // somebody wrote it by hand
		k.tell("the secret of PoPs for calls to each other is invalid, and stays: put it anew or delete it", "error", err)
		return nil
	}
	secret, note := NewSecret(), "PoPs show each other with it that they are PoPs"
	if stored != nil {
		if slices.Equal(stored.Recipients, recipients) {
			return nil
		}
		if secret, err = sealed.Open(Secret, stored, k.Identities); err != nil {
			k.tell("the secret of PoPs for calls to each other cannot be opened here, and stays", "error", err)
			return nil
		}
		note = stored.Note
	}
	return k.put(ctx, secret, recipients, note, base)
}

func (k *Keeper) put(ctx context.Context, secret []byte, recipients []string, note string, base int64) error {
	var s *topology.Sealed
	s, err := sealed.Seal(Secret, secret, recipients, note, time.Now())
	if err != nil {
		return err
	}
	if _, err := k.Store.ReplaceSealed(ctx, Secret, s, base, "leader"); err != nil {
		return err
	}
	k.tell("the secret of PoPs for calls to each other is sealed", "recipients", len(recipients))
	return nil
}

// tell logs what is news.
func (k *Keeper) tell(text string, args ...any) {
	if k.Log != nil && k.told != text {
		k.told = text
		k.Log.Info(text, args...)
	}
}
