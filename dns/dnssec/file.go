package dnssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isochrone/isochrone/topology"
)

// The endings of a key's two files.
const (
	publicEnding  = ".key"
	privateEnding = ".private"
)

// maxKeyFileBytes bounds what is read of a private key's file, which has some 200 octets.
const maxKeyFileBytes = 16 << 10

// WriteFiles writes the key into a folder, in the form of BIND 9 (Private-key-format v1.3), and returns the path of the private
// file. The folder is made with mode 0700 if it is missing; the private file has mode 0600. Files that exist are never
// written over: the error is fs.ErrExist then. A file is there whole, and safe on disk, or not at all.
func (k *Key) WriteFiles(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("write key: %w", err)
	}
	path := filepath.Join(dir, FileName(k.Zone(), k.Record.Algorithm, k.tag))
	if err := writeNew(path+privateEnding, k.privateText(), 0o600); err != nil {
		return "", fmt.Errorf("write key: %w", err)
	}
	if err := writeNew(path+publicEnding, k.publicText(), 0o644); err != nil {
		return "", errors.Join(fmt.Errorf("write key: %w", err), os.Remove(path+privateEnding))
	}
	return path + privateEnding, nil
}

// RemoveFiles takes away what WriteFiles has written, for a key that was never used.
func (k *Key) RemoveFiles(dir string) error {
	path := filepath.Join(dir, FileName(k.Zone(), k.Record.Algorithm, k.tag))
	return errors.Join(os.Remove(path+publicEnding), os.Remove(path+privateEnding))
}

// writeNew writes a file that does not exist yet. The text goes to a file of another name first; linking that to the right
// name, unlike renaming it, fails if there is a file.
func writeNew(path, text string, mode fs.FileMode) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-key-*") // O_EXCL, mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(temporary.Name())) }()
	_, err = temporary.WriteString(text)
	if err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err := os.Link(temporary.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (k *Key) publicText() string {
	kind := "zone-signing"
	if k.Role() == topology.KSK {
		kind = "key-signing"
	}
	r := k.Record
	return fmt.Sprintf("; This is a %s key, keyid %d, for %s\n%s IN DNSKEY %d %d %d %s\n",
		kind, k.tag, r.Hdr.Name, r.Hdr.Name, r.Flags, r.Protocol, r.Algorithm, r.PublicKey)
}

func (k *Key) privateText() string {
	var secret []byte
	name := ""
	switch p := k.Signer.(type) {
	case *ecdsa.PrivateKey:
		secret, _ = p.Bytes() // fails for curves of one's own only
		name = "ECDSAP256SHA256"
	case ed25519.PrivateKey:
		secret, name = p.Seed(), "ED25519"
	}
	return fmt.Sprintf("Private-key-format: v1.3\nAlgorithm: %d (%s)\nPrivateKey: %s\n",
		k.Record.Algorithm, name, base64.StdEncoding.EncodeToString(secret))
}

// parsePrivate reads the text of a private key's file. BIND adds times to it, which are disregarded.
func parsePrivate(text string) (algorithm uint8, private crypto.Signer, err error) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if name == "" || strings.HasPrefix(name, ";") {
			continue
		}
		if _, twice := fields[name]; !ok || twice {
			return 0, nil, fmt.Errorf("%q is not one line of a key's file, such as Algorithm: 13 (ECDSAP256SHA256)", shorten(name))
		}
		fields[name] = strings.TrimSpace(value)
	}
	if format := fields["Private-key-format"]; format != "v1.2" && format != "v1.3" {
		return 0, nil, fmt.Errorf("its Private-key-format is %q: want v1.3", shorten(format))
	}
	number, _, _ := strings.Cut(fields["Algorithm"], " ")
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		return 0, nil, fmt.Errorf("its Algorithm is %q: want %d or %d", shorten(fields["Algorithm"]), ECDSAP256SHA256, ED25519)
	}
	secret, err := base64.StdEncoding.DecodeString(fields["PrivateKey"])
	if err != nil || len(secret) == 0 {
		return 0, nil, errors.New("its PrivateKey is not base64")
	}
	private, err = privateKey(uint8(n), secret)
	return uint8(n), private, err
}

func privateKey(algorithm uint8, secret []byte) (crypto.Signer, error) {
	switch algorithm {
	case ECDSAP256SHA256:
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
		if err != nil {
			return nil, errors.New("its PrivateKey is none of ECDSA P-256: want 32 octets")
		}
		return k, nil
	case ED25519:
		if len(secret) != ed25519.SeedSize {
			return nil, fmt.Errorf("its PrivateKey has %d octets, one of Ed25519 has %d", len(secret), ed25519.SeedSize)
		}
		return ed25519.NewKeyFromSeed(secret), nil
	}
	return nil, fmt.Errorf("algorithm %d is not known: want %d or %d", algorithm, ECDSAP256SHA256, ED25519)
}

// shorten keeps an error readable. What may be a secret is never given to it.
func shorten(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}
