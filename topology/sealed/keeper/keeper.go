// Package keeper looks after a sealed secret in the store for as long as this process leads the control planes: it is made where there is none,
// replaced when that is due, and sealed anew when it is sealed for others than it should be. What the secret is, and when another one is due, is the
// business of who has it kept. When two do it for a moment, one of them fails and looks again.
//
//	k := &keeper.Keeper{Name: "peers", What: "the secret of PoPs", Store: s, Identities: own, Recipients: pops, Next: next}
//	err := k.Run(ctx)
package keeper

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// author stands in the audit.
const author = "leader"

// Interval is the time between two looks at a secret.
const Interval = time.Minute

// Keeper looks after one secret. Its methods may not be called concurrently.
type Keeper struct {
	Name       string // of the secret in the store
	What       string // it is, in the log: such as "the key of probes"
	Store      *store.Store
	Identities []age.Identity // by which it opens what it has sealed
	Recipients []string       // age1…; its own are added
	Log        *slog.Logger   // nil: nothing is told

	// Next returns what the secret is to be, and a note of where it comes from, for people. Present is what it is, nil if there is none; it is
	// returned as it is if it stays, and its note does, too.
	Next func(ctx context.Context, present []byte) (next []byte, note string, err error)
	// Replaces says that a secret that is invalid or cannot be opened is made anew. Otherwise it is somebody else's, and stays.
	Replaces bool

	told string // of what is wrong
}

// Run looks after the secret until ctx ends or the store cannot be reached; the error says which.
func (k *Keeper) Run(ctx context.Context) error {
	look := time.NewTicker(Interval)
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

// Once does what is to be done now. The error is store.ErrConflict when somebody wrote the secret meanwhile, that of Next, or that of the store.
func (k *Keeper) Once(ctx context.Context) error {
	recipients := slices.Compact(slices.Sorted(slices.Values(append(sealed.RecipientsOf(k.Identities), k.Recipients...))))
	stored, base, err := k.Store.Sealed(ctx, k.Name)
	if err != nil && base == 0 && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var present []byte
	if stored != nil {
		present, err = sealed.Open(k.Name, stored, k.Identities)
	}
	if err != nil && base != 0 && !k.Replaces {
		k.wrong("it is invalid or cannot be opened here, and stays: put it anew or delete it", err)
		return nil
	}
	if err != nil && base != 0 {
		k.wrong("it is invalid or cannot be opened here, and is made anew", err)
	}
	next, note, err := k.Next(ctx, present)
	if err != nil {
		return err
	}
	if present != nil && bytes.Equal(next, present) {
		if slices.Equal(stored.Recipients, recipients) {
			return nil
		}
		note = stored.Note
	}
	s, err := sealed.Seal(k.Name, next, recipients, note, time.Now())
	if err != nil {
		return err
	}
	if _, err := k.Store.ReplaceSealed(ctx, k.Name, s, base, author); err != nil {
		return err
	}
	if k.told = ""; k.Log != nil {
		k.Log.Info(k.What+" is sealed", "secret", k.Name, "recipients", len(recipients))
	}
	return nil
}

// wrong logs what is wrong, once.
func (k *Keeper) wrong(text string, err error) {
	if k.Log != nil && k.told != text {
		k.told = text
		k.Log.Warn(k.What+": "+text, "secret", k.Name, "error", err)
	}
}
