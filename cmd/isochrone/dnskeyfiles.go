package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// storeKeys writes the files of keys, and then the signing that has them. The files go again if nobody can have learnt of the
// keys; they stay when the store has perhaps taken the signing and the answer was lost.
func storeKeys(ctx context.Context, s *store.Store, zone string, signing *topology.Signing, base int64, folder string, made []*dnssec.Key) error {
	for i, k := range made {
		if _, err := k.WriteFiles(folder); err != nil {
			return errors.Join(err, removeFiles(made[:i], folder))
		}
	}
	_, err := s.PutSigning(ctx, zone, signing, base, author())
	switch {
	case errors.Is(err, store.ErrConflict), errors.Is(err, topology.ErrInvalid):
		return errors.Join(err, removeFiles(made, folder))
	case err != nil:
		return fmt.Errorf("%w; the new keys stay in %s, as it may have been written", err, folder)
	}
	return nil
}

func removeFiles(keys []*dnssec.Key, folder string) error {
	var err error
	for _, k := range keys {
		err = errors.Join(err, k.RemoveFiles(folder))
	}
	return err
}

// makeKey makes a key whose tag no other key of the zone has, stored or in a file.
func makeKey(zone string, role topology.KeyRole, algorithm uint8, signing *topology.Signing, ring *dnssec.Keyring) (*dnssec.Key, error) {
	var taken []uint16
	for _, k := range signing.Keys {
		taken = append(taken, k.Tag)
	}
	for _, k := range ring.Of(zone) {
		taken = append(taken, k.Tag())
	}
	return dnssec.Generate(zone, role, algorithm, taken...)
}

// onlyKey returns the key of a role that is in the folder already.
func onlyKey(ring *dnssec.Keyring, zone string, role topology.KeyRole, algorithm uint8, folder string) (*dnssec.Key, error) {
	keys := slices.DeleteFunc(ring.Of(zone), func(k *dnssec.Key) bool { return k.Role() != role || k.Record.Algorithm != algorithm })
	if len(keys) != 1 {
		return nil, fmt.Errorf("%s has %d %ss of zone %s and algorithm %s: want the one to go on with", folder, len(keys), role, zone,
			dnssec.AlgorithmName(algorithm))
	}
	return keys[0], nil
}

// tellFiles says what DNS nodes need.
func tellFiles(out io.Writer, zone string, keys []topology.SigningKey, folder string) {
	fmt.Fprintln(out, "\nCopy to the folder of private keys of every DNS node, with mode 0600, which reads them by itself:")
	for _, k := range keys {
		fmt.Fprintln(out, filepath.Join(folder, dnssec.FileName(zone, uint8(k.Algorithm), k.Tag)+".private"))
	}
}
