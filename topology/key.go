package topology

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
)

// DefaultQuotaPerMinute is the quota of a key that states none.
const DefaultQuotaPerMinute = 1000

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewKey makes an API key of 160 random bits: the id by which it is known, the key itself, which is shown once and stored
// nowhere, and the record that is stored. A key reads iso_ID_SECRET.
func NewKey(random io.Reader, now time.Time) (id, key string, record *Key, err error) {
	var bits [25]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return "", "", nil, fmt.Errorf("make an API key: %w", err)
	}
	id = keyEncoding.EncodeToString(bits[:5])
	key = "iso_" + id + "_" + keyEncoding.EncodeToString(bits[5:])
	record = &Key{
		Schema: SchemaVersion, SHA256: HashKey(key), QuotaPerMinute: DefaultQuotaPerMinute,
		Created: now.UTC().Truncate(time.Second),
	}
	return id, key, record, nil
}

// HashKey returns the form in which a key is stored: its SHA-256 in lower-case hex.
func HashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// KeyID returns the id that a key made by NewKey has in it, and false for other text.
func KeyID(key string) (string, bool) {
	parts := strings.Split(key, "_")
	if len(parts) != 3 || parts[0] != "iso" || parts[1] == "" {
		return "", false
	}
	return parts[1], true
}
