// Package probekey looks after the API key of probes that all nodes share: it is sealed in the store for those who probe. It is apart from
// package health/probe, which knows no store.
package probekey

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed/keeper"
	"github.com/isochrone/isochrone/topology/store"
)

// Secret is the name of the sealed secret: an API key for probes.
const Secret = "probe-key"

// settling is how long PoPs have to learn of a new key before anybody probes with it.
const settling = 10 * time.Second

// NewKeeper returns what makes the key of probes where there is none that is good, and seals it anew when it is sealed for others. It is a task of
// the leader of the control planes. Recipients are those of the roles that probe (age1…); its own are added.
func NewKeeper(s *store.Store, identities []age.Identity, recipients []string, log *slog.Logger) *keeper.Keeper {
	return newKeeper(s, identities, recipients, log, settling)
}

func newKeeper(s *store.Store, identities []age.Identity, recipients []string, log *slog.Logger, settling time.Duration) *keeper.Keeper {
	k := keys{s, settling}
	return &keeper.Keeper{Name: Secret, What: "the key of probes", Store: s, Identities: identities, Recipients: recipients, Log: log, Next: k.next}
}

// keys are those of the store.
type keys struct {
	*store.Store
	settling time.Duration
}

// next returns the key that there is, if it is good, else another one. It waits between making a key and having it sealed, so that PoPs know it
// before it is used.
func (k keys) next(ctx context.Context, present []byte) ([]byte, string, error) {
	if present != nil {
		if good, err := k.good(ctx, string(present)); good || err != nil {
			return present, "", err
		}
	}
	key, err := k.make(ctx)
	return []byte(key), "nodes probe PoPs with it", err
}

var errSeen = errors.New("it is read, and not changed")

// good reports whether the store knows a key as one for probes.
func (k keys) good(ctx context.Context, key string) (bool, error) {
	id, ok := topology.KeyID(key)
	if !ok {
		return false, nil
	}
	good := false
	_, err := k.ChangeKey(ctx, id, "leader", func(stored *topology.Key) (*topology.Key, error) {
		now := time.Now()
		good = stored.Probe && stored.Matches(key, now) && !stored.Expired(now.Add(2*keeper.Interval))
		return nil, errSeen
	})
	var invalid *topology.InvalidError
	if errors.Is(err, errSeen) || errors.Is(err, store.ErrNotFound) || errors.As(err, &invalid) {
		err = nil
	}
	return good, err
}

// make stores a new key, and waits until PoPs can know it.
func (k keys) make(ctx context.Context) (string, error) {
	id, key, record, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		return "", err
	}
	record.Note, record.Probe = "key of probes, which the leader has sealed as "+Secret, true
	if _, err := k.PutKey(ctx, id, record, "leader"); err != nil {
		return "", fmt.Errorf("store the key of probes: %w", err)
	}
	select {
	case <-time.After(k.settling):
		return key, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
