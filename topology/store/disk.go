package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// ErrDamaged is returned for a file that is not as it was written.
var ErrDamaged = errors.New("damaged")

// keysSuffix ends the name of the file of keys beside a file of a snapshot.
const keysSuffix = ".keys"

// keysHeader is the first line of a file of keys. Behind it, each key has a line with its id and the length of its record, and its record.
const keysHeader = "# API keys as they were in force last. A change by hand is refused: delete the file instead.\n"

// saved is a snapshot in a file, without its keys. Its values are in the form in which they are stored, so that Load reads them as
// strictly as they were read from the store.
type saved struct {
	Good   int64             `yaml:"topology_revision"`
	Signed int64             `yaml:"signing_revision,omitempty"`
	Values map[string]string `yaml:"values"`
}

// Keeper keeps snapshots in files, one after the other. API keys, of which there may be many, have a file of their own, which is written
// only when they have changed. A Keeper is not safe for concurrent use; two of them, in a process and in the one that replaces it, may
// keep the same files.
type Keeper struct {
	path string
	keys string      // the hash of those that it has written
	file fs.FileInfo // of that file, nil before
}

// NewKeeper returns a Keeper of the file of a path, and of one beside it for keys.
func NewKeeper(path string) *Keeper { return &Keeper{path: path} }

// Save writes what a snapshot has in force, for Load. Each file is written whole or not at all, has a checksum, is on disk when Save
// returns, and is readable by its owner alone.
func (k *Keeper) Save(snap *topology.Snapshot) error {
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return err
	}
	if err := k.saveKeys(snap.Keys); err != nil {
		return err
	}
	s := saved{Good: snap.Good, Signed: snap.Signed, Values: map[string]string{}}
	for _, r := range snap.Topology.Refs() {
		s.Values["topology/"+r.String()] = string(topology.MarshalValue(snap.Topology.Object(r)))
	}
	for name, o := range snap.Overrides {
		s.Values["overrides/"+name] = string(topology.MarshalValue(o))
	}
	for name, sealed := range snap.Secrets {
		s.Values["secrets/"+name] = string(topology.MarshalValue(sealed))
	}
	for zone, signing := range snap.Signing {
		s.Values["dnssec/"+zone] = string(topology.MarshalValue(signing))
	}
	for name, challenge := range snap.Challenges {
		s.Values["acme/challenges/"+name] = string(topology.MarshalValue(challenge))
	}
	return writeWhole(k.path, func(w io.Writer) error { return yaml.NewEncoder(w).Encode(s) })
}

func (k *Keeper) saveKeys(keys *topology.KeySet) error {
	path, hash := k.path+keysSuffix, keys.Hash()
	if info, err := os.Stat(path); err == nil && k.file != nil && k.keys == hash && os.SameFile(info, k.file) && info.ModTime().Equal(k.file.ModTime()) {
		return nil
	}
	err := writeWhole(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, keysHeader); err != nil {
			return err
		}
		for id, key := range keys.All() {
			text := topology.MarshalKey(key)
			if _, err := fmt.Fprintf(w, "%s %d\n%s", id, len(text), text); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		k.keys = hash
		k.file, err = os.Stat(path)
	}
	return err
}

// Save writes a snapshot once: see Keeper.
func Save(path string, snap *topology.Snapshot) error { return NewKeeper(path).Save(snap) }

// Load reads a snapshot that Save has written, to begin with when the store is away or holds an invalid topology. Its
// revision is 0: it is older than anything that is read from the store. Without a file it is an empty one. The error is ErrDamaged for
// files that are not as they were written; if it is that of the keys, the snapshot is returned too, without keys.
func Load(path string) (*topology.Snapshot, error) {
	text, err := readWhole(path)
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
	keysErr := loadKeys(path+keysSuffix, assembler)
	snap := assembler.Snapshot(s.Good)
	if len(snap.Faults) > 0 {
		return nil, fmt.Errorf("read %s: %w", path, &topology.InvalidError{Faults: snap.Faults})
	}
	snap.Revision, snap.Signed = 0, s.Signed
	return snap, keysErr
}

func loadKeys(path string, into *topology.Assembler) error {
	text, err := readWhole(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(text, []byte(keysHeader))
	for ok && len(rest) > 0 {
		head, after, found := bytes.Cut(rest, []byte("\n"))
		id, size, spaced := bytes.Cut(head, []byte(" "))
		length, err := strconv.Atoi(string(size))
		if !found || !spaced || err != nil || length < 0 || length > len(after) {
			ok = false
			break
		}
		into.Put("keys/"+string(id), after[:length])
		rest = after[length:]
	}
	if !ok { // though its checksum is right
		return fmt.Errorf("read %s: it is of another version of the program: delete it, and keys are read from the store", path)
	}
	return nil
}
