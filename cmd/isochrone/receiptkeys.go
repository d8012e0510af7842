package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/topology"
)

// givenKeys are public keys that the caller trusts, whichever PoP they belong to.
type givenKeys []ed25519.PublicKey

// lookup returns the one with an id, or nil.
func (k givenKeys) lookup(_, kid string) ed25519.PublicKey {
	for _, key := range k {
		if receipt.KeyID(key) == kid {
			return key
		}
	}
	return nil
}

// readGivenKeys reads what --key says: keys, or files with one. Errors repeat nothing that may be a private key.
func readGivenKeys(given []string) (givenKeys, error) {
	var keys givenKeys
	for _, text := range given {
		if key, err := topology.ParseReceiptKey(text); err == nil {
			keys = append(keys, key)
			continue
		}
		content, err := os.ReadFile(text)
		if errors.Is(err, os.ErrNotExist) {
			return nil, errors.New("--key is neither an Ed25519 public key in base64url, 43 characters, nor a file with one")
		}
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		key, err := parsePublicKey(content)
		if err != nil {
			return nil, fmt.Errorf("--key %s: %w", text, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// parsePublicKey reads a file with a key in base64url, or in PEM (RFC 8410).
func parsePublicKey(content []byte) (ed25519.PublicKey, error) {
	if key, err := topology.ParseReceiptKey(strings.TrimSpace(string(content))); err == nil {
		return key, nil
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("it has neither an Ed25519 public key in base64url, 43 characters, nor one in PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if key, ok := parsed.(ed25519.PublicKey); err == nil && ok {
		return key, nil
	}
	return nil, fmt.Errorf("its %.40q is no Ed25519 public key", block.Type)
}
