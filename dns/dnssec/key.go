package dnssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// The algorithms of keys.
const (
	ECDSAP256SHA256 = topology.ECDSAP256SHA256 // the default: every validator knows it
	ED25519         = topology.ED25519
)

// AlgorithmName returns the name of an algorithm that keys can have, as on the command line.
func AlgorithmName(algorithm uint8) string {
	switch algorithm {
	case ECDSAP256SHA256:
		return "ecdsa"
	case ED25519:
		return "ed25519"
	}
	return fmt.Sprintf("algorithm %d", algorithm)
}

// ParseAlgorithm reads what AlgorithmName returns.
func ParseAlgorithm(name string) (uint8, error) {
	for _, algorithm := range []uint8{ECDSAP256SHA256, ED25519} {
		if AlgorithmName(algorithm) == name {
			return algorithm, nil
		}
	}
	return 0, fmt.Errorf("%q is no algorithm: want ecdsa or ed25519", name)
}

// Key is a key with its private side. It is immutable.
type Key struct {
	Record *dns.DNSKEY   // the public side; its time to live means nothing
	Signer crypto.Signer // *ecdsa.PrivateKey or ed25519.PrivateKey

	tag uint16
}

func newKey(zone string, role topology.KeyRole, algorithm uint8, private crypto.Signer) *Key {
	var public []byte
	switch p := private.Public().(type) {
	case *ecdsa.PublicKey:
		if point, err := p.Bytes(); err == nil { // SEC 1: 4, x, y
			public = point[1:]
		}
	case ed25519.PublicKey:
		public = p
	}
	described := topology.SigningKey{Role: role, Algorithm: uint16(algorithm), Public: base64.StdEncoding.EncodeToString(public)}
	record := described.DNSKEY(zone, 0)
	return &Key{Record: record, Signer: private, tag: record.KeyTag()}
}

// Generate makes a key for a zone, whose name has no trailing dot. Keys of a zone are told apart by their tags, so those of
// its other keys are given.
func Generate(zone string, role topology.KeyRole, algorithm uint8, taken ...uint16) (*Key, error) {
	if role != topology.KSK && role != topology.ZSK {
		return nil, fmt.Errorf("make a key: %q is not a role: want %s or %s", role, topology.KSK, topology.ZSK)
	}
	for {
		private, err := generatePrivate(algorithm)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		if k := newKey(zone, role, algorithm, private); !slices.Contains(taken, k.tag) {
			return k, nil
		}
	}
}

func generatePrivate(algorithm uint8) (crypto.Signer, error) {
	switch algorithm {
	case ECDSAP256SHA256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ED25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("algorithm %d is not known: want %d or %d", algorithm, ECDSAP256SHA256, ED25519)
}

// Zone returns the name of the key's zone, without a trailing dot.
func (k *Key) Zone() string { return strings.TrimSuffix(k.Record.Hdr.Name, ".") }

// Tag returns the key tag (RFC 4034 appendix B).
func (k *Key) Tag() uint16 { return k.tag }

// Role returns what the key signs.
func (k *Key) Role() topology.KeyRole {
	if k.Record.Flags&dns.SEP != 0 {
		return topology.KSK
	}
	return topology.ZSK
}

// Public returns the public side as it is stored.
func (k *Key) Public(state topology.KeyState, since time.Time) topology.SigningKey {
	return topology.SigningKey{
		Tag: k.tag, Role: k.Role(), Algorithm: uint16(k.Record.Algorithm), Public: k.Record.PublicKey,
		State: state, Since: since.UTC().Truncate(time.Second),
	}
}

// FileName returns the name of a key's files without their ending, such as Kexample.net.+013+12345.
func FileName(zone string, algorithm uint8, tag uint16) string {
	return fmt.Sprintf("K%s.+%03d+%05d", zone, algorithm, tag)
}

// parseFileName reads what FileName returns.
func parseFileName(name string) (zone string, algorithm uint8, tag uint16, err error) {
	parts := strings.Split(name, "+")
	if len(parts) == 3 && strings.HasPrefix(parts[0], "K") {
		zone = strings.TrimSuffix(parts[0][1:], ".")
		if n, _ := fmt.Sscanf(parts[1]+" "+parts[2], "%d %d", &algorithm, &tag); n == 2 && FileName(zone, algorithm, tag) == name {
			return zone, algorithm, tag, nil
		}
	}
	return "", 0, 0, errors.New("is not named as a key: want a name such as Kexample.net.+013+12345.private")
}
