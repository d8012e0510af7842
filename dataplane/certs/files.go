package certs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/internal/certfile"
)

// maxPairs bounds the pairs of a folder.
const maxPairs = 1000

// pairsOf lists the pairs of a folder by name: each .pem or .key of it makes one, whether the other is there or not.
func pairsOf(dir string) ([]Pair, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of certificates: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, isCert := strings.CutSuffix(e.Name(), ".pem")
		if !isCert {
			var isKey bool
			if name, isKey = strings.CutSuffix(e.Name(), ".key"); !isKey {
				continue
			}
		}
		if name != "" && name[0] != '.' { // those are of who has not finished writing
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxPairs {
		return nil, fmt.Errorf("%s has %d pairs of certificate and key: %d at most are taken", dir, len(names), maxPairs)
	}
	var pairs []Pair
	for _, name := range names {
		pairs = append(pairs, Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")})
	}
	return pairs, nil
}

// readFolder takes what has come into the folder, and forgets what has gone with both its files. It reports whether anything did.
func (s *Source) readFolder() (changed bool) {
	if s.config.Dir == "" {
		return false
	}
	pairs, err := pairsOf(s.config.Dir)
	if s.tell(s.config.Dir, err); err != nil {
		return false
	}
	s.files = slices.DeleteFunc(s.files, func(f *file) bool {
		gone := !f.listed && !slices.Contains(pairs, f.Pair)
		if gone {
			s.config.Log.Info("certificate removed", "file", f.Cert)
			delete(s.told, f.Cert)
		}
		changed = changed || gone
		return gone
	})
	for _, pair := range pairs {
		if slices.ContainsFunc(s.files, func(f *file) bool { return !f.listed && f.Pair == pair }) {
			continue
		}
		opened, err := certfile.Open(pair.Cert, pair.Key)
		if err == nil {
			err = nameFault(pair, hasNames(current(opened)))
		}
		if s.tell(pair.Cert, err); err != nil {
			continue
		}
		s.files = append(s.files, &file{pair, false, opened, current(opened)})
		s.config.Log.Info("certificate added", "file", pair.Cert, "names", current(opened).Leaf.DNSNames)
		changed = true
	}
	return changed
}

func nameFault(p Pair, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %w", p.Cert, err)
}
