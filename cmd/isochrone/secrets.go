package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/dataplane/certs/acme"
	"github.com/isochrone/isochrone/dataplane/certs/rotation"
	"github.com/isochrone/isochrone/dataplane/peer"
	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/health/probekey"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
)

// Beginnings of the names of sealed secrets, by what they are for.
const (
	clusterTokenSecret = "cluster-token."
	serviceHMACSecret  = "service-hmac."
	webhookHMACSecret  = "webhook-hmac."
	tsigSecret         = "tsig."
)

// registerSecretKey adds the flag by which a node gets its role's key file.
func registerSecretKey(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "secret-key", "", "key `file` of this node's role, which sealed secrets are opened with, of mode 0600")
}

// secretsOf says which secrets a kind of node has a use for. It opens no others.
func secretsOf(kind string) []string {
	switch kind {
	case "dns":
		return []string{probekey.Secret, tsigSecret, bgpSecret}
	case "pop", "up": // whose DNS server takes no zone transfers with keys
		return []string{clusterTokenSecret, serviceHMACSecret, webhookHMACSecret, bgpSecret, acme.Prefix, rotation.Secret, peer.Secret, probekey.Secret}
	case "control":
		return []string{probekey.Secret}
	}
	return nil
}

// secrets are the sealed secrets of the store that a node has a use for, opened with the key file of its role. They are opened when
// they come or change, or when the file does, and kept in memory alone. It is safe for concurrent use.
type secrets struct {
	path string   // of the key file; empty: there is none
	uses []string // beginnings of names
	log  *slog.Logger

	changed func() // called when any secret has become another one; nil when nobody asks

	now    atomic.Pointer[openedSecrets]
	looked atomic.Int64 // when the key file was looked at, in Unix nanoseconds

	mu         sync.Mutex // of what follows
	stored     map[string]*topology.Sealed
	keyFile    fs.FileInfo
	identities []age.Identity
	told       map[string]string // reasons that were logged, by name
}

// openedSecrets are those of one moment.
type openedSecrets struct {
	values map[string][]byte
	from   map[string]string // what the values were sealed as
	failed map[string]string // why others are not opened
}

// keyFileInterval is how often the key file is looked at, when secrets are asked for.
const keyFileInterval = 5 * time.Second

// newSecrets reads the key file, which must be good at the start.
func newSecrets(path, kind string, log *slog.Logger) (*secrets, error) {
	s := &secrets{path: path, uses: secretsOf(kind), log: log, told: map[string]string{}}
	s.now.Store(&openedSecrets{})
	if path == "" {
		return s, nil
	}
	if err := s.readKeyFile(); err != nil {
		return nil, fmt.Errorf("secret-key: %w", err)
	}
	return s, nil
}

// readKeyFile reads the key file if it is another one than before.
func (s *secrets) readKeyFile() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	if s.keyFile != nil && os.SameFile(info, s.keyFile) && info.ModTime().Equal(s.keyFile.ModTime()) && info.Size() == s.keyFile.Size() {
		return nil
	}
	identities, err := sealed.ReadIdentities(s.path)
	if err != nil {
		return err
	}
	s.keyFile, s.identities = info, identities
	return nil
}

// take opens what a snapshot has.
func (s *secrets) take(snap *topology.Snapshot) {
	stored := map[string]*topology.Sealed{}
	for name, one := range snap.Secrets {
		if slices.ContainsFunc(s.uses, func(use string) bool { return strings.HasPrefix(name, use) }) {
			stored[name] = one
		}
	}
	s.open(stored)
}

// reread looks at the key file, and opens with it what could not be opened before.
func (s *secrets) reread() { s.open(nil) }

// open opens what is stored; nil stands for what was before.
func (s *secrets) open(stored map[string]*topology.Sealed) {
	if s.openAll(stored) && s.changed != nil {
		s.changed()
	}
}

// openAll opens what is stored, and reports whether any secret is another one than before. A secret that cannot be opened any more stays
// what it was, until it is deleted: it may be sealed for a key file that is still to come.
func (s *secrets) openAll(stored map[string]*topology.Sealed) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stored != nil {
		s.stored = stored
	}
	if s.path != "" {
		s.looked.Store(time.Now().UnixNano())
		if err := s.readKeyFile(); err != nil {
			s.tell("secret-key", "the key file cannot be read, and what it gave stays in use: "+err.Error())
		} else {
			delete(s.told, "secret-key")
		}
	}
	before := s.now.Load()
	next := &openedSecrets{values: map[string][]byte{}, from: map[string]string{}, failed: map[string]string{}}
	for name, one := range s.stored {
		value, had := before.values[name]
		from := before.from[name]
		if !had || from != one.Age {
			opened, err := s.openOne(name, one)
			if err == nil {
				value, had, from = opened, true, one.Age
				delete(s.told, name)
			} else if name != probekey.Secret || s.path != "" && !errors.Is(err, sealed.ErrNotOurs) { // there may be one in a file instead
				next.failed[name] = err.Error()
				s.tell(name, "a sealed secret cannot be opened: "+err.Error())
			}
		}
		if had {
			next.values[name], next.from[name] = value, from
		}
	}
	s.now.Store(next)
	return !maps.EqualFunc(before.values, next.values, func(a, b []byte) bool { return string(a) == string(b) })
}

func (s *secrets) openOne(name string, one *topology.Sealed) ([]byte, error) {
	if s.path == "" {
		return nil, errors.New("this node has no --secret-key")
	}
	return sealed.Open(name, one, s.identities)
}

// tell logs why a secret is not there, once for each reason.
func (s *secrets) tell(name, reason string) {
	if s.told[name] != reason {
		s.told[name] = reason
		s.log.Error(reason, "secret", name)
	}
}

// value returns a secret, and false when there is none of that name that this node can open. Now and then it looks at the key file.
func (s *secrets) value(name string) ([]byte, bool) {
	if s == nil {
		return nil, false
	}
	if last, now := s.looked.Load(), time.Now().UnixNano(); s.path != "" && now-last > int64(keyFileInterval) && s.looked.CompareAndSwap(last, now) {
		s.reread()
	}
	value, ok := s.now.Load().values[name]
	return value, ok
}

// failed tells which secrets this node has a use for and cannot open, and why; nothing when there is none.
func (s *secrets) failed() string {
	failed := s.now.Load().failed
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		texts = append(texts, name+": "+failed[name])
	}
	return strings.Join(texts, "; ")
}

// tsig returns the TSIG keys among the secrets. One that is not as it should be is left out, and told.
func (s *secrets) tsig() []dns.TSIGKey {
	var keys []dns.TSIGKey
	values := s.now.Load().values
	for _, name := range slices.Sorted(maps.Keys(values)) {
		keyName, ok := strings.CutPrefix(name, tsigSecret)
		if !ok {
			continue
		}
		key, err := parseTSIGSecret(keyName, values[name])
		if err != nil {
			s.mu.Lock()
			s.tell(name, err.Error())
			s.mu.Unlock()
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// withSealedKeys returns settings with the TSIG keys among the secrets. Of two of one name the sealed one counts.
func withSealedKeys(settings dns.Settings, s *secrets) dns.Settings {
	keys := s.tsig()
	for _, k := range settings.TSIG {
		if !slices.ContainsFunc(keys, func(sealed dns.TSIGKey) bool { return sealed.Name == k.Name }) {
			keys = append(keys, k)
		}
	}
	settings.TSIG = keys
	return settings
}

// parseTSIGSecret reads ALGORITHM:BASE64. An error does not tell the secret.
func parseTSIGSecret(name string, text []byte) (dns.TSIGKey, error) {
	algorithm, encoded, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	key := dns.TSIGKey{Name: keyName(name), Algorithm: keyName(algorithm)}
	var err error
	key.Secret, err = base64.StdEncoding.DecodeString(encoded)
	if !ok || !slices.Contains(tsigAlgorithms, key.Algorithm) || err != nil || len(key.Secret) < 16 {
		return dns.TSIGKey{}, fmt.Errorf("secret %s%s is no TSIG key: want ALGORITHM:BASE64, such as hmac-sha256: and at least 16 bytes in base64", tsigSecret, name)
	}
	return key, nil
}
