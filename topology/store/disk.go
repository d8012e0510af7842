package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// saved is a snapshot in a file. Its values are in the form in which they are stored, so that Load reads them as strictly as
// they were read from the store.
type saved struct {
	Good   int64             `yaml:"topology_revision"`
	Signed int64             `yaml:"signing_revision,omitempty"`
	Values map[string]string `yaml:"values"`
}

// Save writes what a snapshot has in force to a file, whole or not at all, readable by its owner alone.
func Save(path string, snap *topology.Snapshot) error {
	s := saved{Good: snap.Good, Signed: snap.Signed, Values: map[string]string{}}
	for _, r := range snap.Topology.Refs() {
		s.Values["topology/"+r.String()] = string(topology.MarshalValue(snap.Topology.Object(r)))
	}
	for name, o := range snap.Overrides {
		s.Values["overrides/"+name] = string(topology.MarshalValue(o))
	}
	for id, k := range snap.Keys.All() {
		s.Values["keys/"+id] = string(topology.MarshalValue(k))
	}
	for name, sealed := range snap.Secrets {
		s.Values["secrets/"+name] = string(topology.MarshalValue(sealed))
	}
	for zone, signing := range snap.Signing {
		s.Values["dnssec/"+zone] = string(topology.MarshalValue(signing))
	}
	text, err := yaml.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d.tmp", path, os.Getpid()) // two processes may keep it while one replaces the other
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// Load reads a snapshot that Save has written, to begin with when the store is away or holds an invalid topology. Its
// revision is 0: it is older than anything that is read from the store. Without a file it is an empty one.
func Load(path string) (*topology.Snapshot, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return topology.NewAssembler(nil, 0).Snapshot(0), nil
	}
	if err != nil {
		return nil, err
	}
	var s saved
	if err := yaml.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	assembler := topology.NewAssembler(nil, 0)
	for key, value := range s.Values {
		assembler.Put(key, []byte(value))
	}
	snap := assembler.Snapshot(s.Good)
	if len(snap.Faults) > 0 {
		return nil, fmt.Errorf("read %s: %w", path, &topology.InvalidError{Faults: snap.Faults})
	}
	snap.Revision, snap.Signed = 0, s.Signed
	return snap, nil
}
