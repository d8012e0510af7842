// Package probekey looks after the API key of probes that all nodes share: it is sealed in the store for those who probe. It is apart from
// package health/probe, which knows no store.
package probekey

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// Secret is the name of the sealed secret: an API key for probes.
const Secret = "probe-key"

const (
	// keeperInterval is how often is looked whether there is a key, and whether it is still good.
	keeperInterval = time.Minute
	// settling is how long PoPs have to learn of a new key before anybody probes with it.
	settling = 10 * time.Second
)

// Keeper makes the key of probes where there is none that is good, and seals it anew when it is sealed for others. It is a task of the leader of
// the control planes.
type Keeper struct {
	Store      *store.Store
	Identities []age.Identity // by which it opens what it has sealed
	Recipients []string       // of the roles that probe (age1…); its own are added
	Log        *slog.Logger   // nil: nothing is told

	settling time.Duration // in tests; 0 for the constant
	told     string        // what was logged last
}

// Run looks after the key until ctx ends or the store cannot be reached; the error says which.
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

// Once makes the key, or seals it anew, if that is to be done; it waits between making a key and sealing it, so that PoPs know it before it is
// used. A secret that it cannot open is somebody else's, and stays. The error is store.ErrConflict when somebody wrote it meanwhile.
func (k *Keeper) Once(ctx context.Context) error {
	recipients := slices.Compact(slices.Sorted(slices.Values(append(sealed.RecipientsOf(k.Identities), k.Recipients...))))
	stored, base, err := k.Store.Sealed(ctx, Secret)
	if err != nil && base == 0 && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err != nil && base != 0 { // somebody wrote it by hand
		k.tell("the key of probes is sealed in an invalid form, and stays: put it anew or delete it", "error", err)
		return nil
	}
	if stored != nil {
		key, err := sealed.Open(Secret, stored, k.Identities)
		if err != nil {
			k.tell("the key of probes cannot be opened here, and stays", "error", err)
			return nil
		}
		good, err := k.good(ctx, string(key))
		if err != nil {
			return err
		}
		if good {
			if slices.Equal(stored.Recipients, recipients) {
				return nil
			}
			return k.seal(ctx, string(key), recipients, stored.Note, base)
		}
	}
	key, err := k.make(ctx)
	if err != nil {
		return err
	}
	return k.seal(ctx, key, recipients, "nodes probe PoPs with it", base)
}

var errSeen = errors.New("it is read, and not changed")

// good reports whether the store knows a key as one for probes.
func (k *Keeper) good(ctx context.Context, key string) (bool, error) {
	id, ok := topology.KeyID(key)
	if !ok {
		return false, nil
	}
	good := false
	_, err := k.Store.ChangeKey(ctx, id, "leader", func(stored *topology.Key) (*topology.Key, error) {
		now := time.Now()
		good = stored.Probe && stored.Matches(key, now) && !stored.Expired(now.Add(2*keeperInterval))
		return nil, errSeen
	})
	var invalid *topology.InvalidError
	if errors.Is(err, errSeen) || errors.Is(err, store.ErrNotFound) || errors.As(err, &invalid) {
		err = nil
	}
	return good, err
}

// make stores a new key, and waits until PoPs can know it.
func (k *Keeper) make(ctx context.Context) (string, error) {
	id, key, record, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		return "", err
	}
	record.Note, record.Probe = "key of probes, which the leader has sealed as "+Secret, true
	if _, err := k.Store.PutKey(ctx, id, record, "leader"); err != nil {
		return "", fmt.Errorf("store the key of probes: %w", err)
	}
	wait := settling
	if k.settling > 0 {
		wait = k.settling
	}
	select {
	case <-time.After(wait):
		return key, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (k *Keeper) seal(ctx context.Context, key string, recipients []string, note string, base int64) error {
	s, err := sealed.Seal(Secret, []byte(key), recipients, note, time.Now())
	if err != nil {
		return err
	}
	if _, err := k.Store.ReplaceSealed(ctx, Secret, s, base, "leader"); err != nil {
		return err
	}
	k.tell("the key of probes is sealed", "recipients", len(recipients))
	return nil
}

// tell logs what is news.
func (k *Keeper) tell(text string, args ...any) {
	if k.Log != nil && k.told != text {
		k.told = text
		k.Log.Info(text, args...)
	}
}
