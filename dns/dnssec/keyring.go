package dnssec

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/topology"
)

// Keyring has the private keys of one node, of any zones. It is immutable; nil is an empty one.
type Keyring struct{ keys map[keyID]*Key }

// keyID is what a key is known by.
type keyID struct {
	zone      string
	tag       uint16
	algorithm uint8
}

// NewKeyring returns a Keyring of keys.
func NewKeyring(keys ...*Key) *Keyring {
	r := &Keyring{map[keyID]*Key{}}
	for _, k := range keys {
		r.keys[keyID{k.Zone(), k.tag, k.Record.Algorithm}] = k
	}
	return r
}

// LoadKeyring reads all private keys of a folder: files named K<zone>.+<algorithm>+<tag>.private, as WriteFiles and BIND write
// them. The files of public keys are not needed. A missing folder is an empty keyring. A file that group or others can read
// is refused, and so is one that is not what its name says; the error tells of all such files.
func LoadKeyring(dir string) (*Keyring, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return NewKeyring(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	var (
		keys  []*Key
		fails []error
	)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "K") || !strings.HasSuffix(entry.Name(), privateEnding) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		k, err := readKey(path)
		if err != nil {
			fails = append(fails, err)
			continue
		}
		keys = append(keys, k)
	}
	if fails != nil {
		return nil, fmt.Errorf("read keys: %w", errors.Join(fails...))
	}
	return NewKeyring(keys...), nil
}

// readKey reads one private key.
func readKey(path string) (*Key, error) {
	text, err := privatefile.Read(path, maxKeyFileBytes)
	if err != nil {
		return nil, err
	}
	k, err := parseKeyFile(filepath.Base(path), string(text))
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return k, nil
}

// parseKeyFile reads one private key from a file of this name. Its errors follow the path.
func parseKeyFile(name, text string) (*Key, error) {
	zone, algorithm, tag, err := parseFileName(strings.TrimSuffix(name, privateEnding))
	if err != nil {
		return nil, err
	}
	is, private, err := parsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("is no private key: %w", err)
	}
	if is != algorithm {
		return nil, fmt.Errorf("is of algorithm %d, its name says %d", is, algorithm)
	}
	// The file does not say which role the key has, but the tag does.
	var tags [2]uint16
	for i, role := range []topology.KeyRole{topology.ZSK, topology.KSK} {
		k := newKey(zone, role, algorithm, private)
		if k.tag == tag {
			return k, nil
		}
		tags[i] = k.tag
	}
	return nil, fmt.Errorf("has the tag %d as a ZSK or %d as a KSK, its name says %d", tags[0], tags[1], tag)
}

// Key returns a key of a zone, whose name has no trailing dot, or nil.
func (r *Keyring) Key(zone string, tag uint16, algorithm uint8) *Key {
	if r == nil {
		return nil
	}
	return r.keys[keyID{zone, tag, algorithm}]
}

// Of returns the keys of a zone, sorted by their tags.
func (r *Keyring) Of(zone string) []*Key {
	var keys []*Key
	if r != nil {
		for id, k := range r.keys {
			if id.zone == zone {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(a.tag, b.tag) })
	return keys
}

// Len is the number of keys.
func (r *Keyring) Len() int {
	if r == nil {
		return 0
	}
	return len(r.keys)
}

// Equal reports whether two keyrings have the same keys, so that nothing is to be done after reading them again.
func (r *Keyring) Equal(o *Keyring) bool {
	if r.Len() != o.Len() {
		return false
	}
	if r.Len() == 0 {
		return true
	}
	for id, k := range r.keys {
		if other := o.keys[id]; other == nil || other.Record.PublicKey != k.Record.PublicKey {
			return false
		}
	}
	return true
}
