package topology

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// DefaultQuotaPerMinute is the quota of a key that states none.
const DefaultQuotaPerMinute = 1000

// The bounds of a key's scope.
const (
	maxKeyServices = 100
	maxKeyPrefixes = 100
	maxNote        = 500
)

// Key is the record of an API key of a client. Its id is the name; the key itself is stored nowhere. While a key is rotated, two are
// good for one record: they have one id, and so one quota.
type Key struct {
	Schema         int            `yaml:"schema" json:"schema"`
	SHA256         string         `yaml:"sha256" json:"sha256"`                                       // of the whole key, lower-case hex, 64 characters
	PreviousSHA256 string         `yaml:"previous_sha256,omitempty" json:"previous_sha256,omitempty"` // of the key that this one replaces …
	PreviousUntil  time.Time      `yaml:"previous_until,omitempty" json:"previous_until,omitzero"`    // … which is good until then
	Services       []string       `yaml:"services,omitempty,flow" json:"services,omitempty"`          // that it may be used for; none means all
	From           []netip.Prefix `yaml:"from,omitempty,flow" json:"from,omitempty"`                  // where it may be used; none means anywhere
	QuotaPerMinute int64          `yaml:"quota_per_minute" json:"quota_per_minute"`                   // over all PoPs together; default 1000
	Probe          bool           `yaml:"probe,omitempty" json:"probe,omitempty"`                     // only for probes: accepted with X-Isochrone-Probe, never forwarded or counted
	Note           string         `yaml:"note,omitempty" json:"note,omitempty"`                       // at most 500 characters
	Created        time.Time      `yaml:"created" json:"created"`
	Expires        time.Time      `yaml:"expires,omitempty" json:"expires,omitzero"` // the zero time means never
}

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewKey makes an API key of 160 random bits: the id by which it is known, the key itself, which is shown once and stored
// nowhere, and the record that is stored. A key reads iso_ID_SECRET.
func NewKey(random io.Reader, now time.Time) (id, key string, record *Key, err error) {
	var bits [5]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return "", "", nil, fmt.Errorf("make an API key: %w", err)
	}
	id = keyEncoding.EncodeToString(bits[:])
	if key, err = NewSecret(random, id); err != nil {
		return "", "", nil, err
	}
	record = &Key{
		Schema: FirstSchema, SHA256: HashKey(key), QuotaPerMinute: DefaultQuotaPerMinute, Created: now.UTC().Truncate(time.Second),
	}
	return id, key, record, nil
}

// NewSecret makes another key, of 160 random bits, for an id that there is already.
func NewSecret(random io.Reader, id string) (key string, err error) {
	var bits [20]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return "", fmt.Errorf("make an API key: %w", err)
	}
	return "iso_" + id + "_" + keyEncoding.EncodeToString(bits[:]), nil
}

// Rotate makes another key for an id and returns it with the record that is to be stored in place of k. The present key stays good for
// the overlap besides; if k is in the middle of a rotation, the key before it ends now. With no overlap, the present one ends now.
func (k *Key) Rotate(random io.Reader, id string, now time.Time, overlap time.Duration) (key string, record *Key, err error) {
	if key, err = NewSecret(random, id); err != nil {
		return "", nil, err
	}
	rotated := *k
	rotated.SHA256, rotated.PreviousSHA256, rotated.PreviousUntil = HashKey(key), "", time.Time{}
	if overlap > 0 {
		rotated.PreviousSHA256, rotated.PreviousUntil = k.SHA256, now.Add(overlap).UTC().Truncate(time.Second)
	}
	return key, &rotated, nil
}

// Matches reports whether a key is the one of the record, or the one before it while that is good. It takes as long for wrong ones,
// wherever they differ.
func (k *Key) Matches(key string, now time.Time) bool {
	hash := []byte(HashKey(key))
	present := subtle.ConstantTimeCompare(hash, []byte(k.SHA256))
	previous := subtle.ConstantTimeCompare(hash, []byte(k.PreviousSHA256)) // never equal to an empty one
	if !now.Before(k.PreviousUntil) {
		previous = 0
	}
	return present|previous == 1
}

// Expired reports whether the key has ended.
func (k *Key) Expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

// IsFor reports whether the key may be used for a service.
func (k *Key) IsFor(service string) bool {
	return len(k.Services) == 0 || slices.Contains(k.Services, service)
}

// IsFrom reports whether the key may be used by a client of an address.
func (k *Key) IsFrom(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	return len(k.From) == 0 || slices.ContainsFunc(k.From, func(p netip.Prefix) bool { return p.Contains(client) })
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

// ParseKey reads and checks an API key's record.
func ParseKey(id string, text []byte) (*Key, []Fault) {
	if k := readKey(string(text)); k != nil {
		if k.fillDefaults(); len(checkKey(id, k)) == 0 {
			return k, nil
		}
	}
	return parseKey(id, text)
}

// parseKey reads a key's record as it may be written, and tells the lines of its faults.
func parseKey(id string, text []byte) (*Key, []Fault) {
	k, d := new(Key), decoder{}
	if d.decode(text, "keys."+id, k); len(d.faults) > 0 {
		return nil, d.faults
	}
	k.fillDefaults()
	if faults := d.locate(checkKey(id, k)); len(faults) > 0 {
		return nil, faults
	}
	return k, nil
}

func (k *Key) fillDefaults() {
	if k.QuotaPerMinute == 0 {
		k.QuotaPerMinute = DefaultQuotaPerMinute
	}
}

func checkKey(id string, k *Key) []Fault {
	c := &checker{path: "keys." + id}
	if c.faults = checkSchema(c.path+".schema", k.Schema); IsTooNew(k.Schema) {
		return c.faults
	}
	c.label(id)
	c.keyHash("sha256", k.SHA256)
	switch {
	case k.PreviousSHA256 == "" && !k.PreviousUntil.IsZero():
		c.fault("previous_until", "is the end of nothing: there is no previous_sha256")
	case k.PreviousSHA256 != "" && k.PreviousUntil.IsZero():
		c.fault("previous_until", "is missing: the key before ends some time")
	case k.PreviousSHA256 != "":
		c.keyHash("previous_sha256", k.PreviousSHA256)
	}
	if len(k.Services) > maxKeyServices {
		c.fault("services", "has %d entries, at most %d are taken; none stands for all services", len(k.Services), maxKeyServices)
	} else {
		for i, name := range k.Services {
			c.domain(fmt.Sprintf("services[%d]", i), name)
			if slices.Contains(k.Services[:i], name) {
				c.fault(fmt.Sprintf("services[%d]", i), "%q stands here twice", name)
			}
		}
	}
	if len(k.From) > maxKeyPrefixes {
		c.fault("from", "has %d entries, at most %d are taken", len(k.From), maxKeyPrefixes)
	} else {
		for i, prefix := range k.From {
			c.prefix(fmt.Sprintf("from[%d]", i), prefix)
		}
	}
	within(c, "quota_per_minute", k.QuotaPerMinute, 1, 1<<40)
	c.short("note", k.Note, maxNote)
	return c.faults
}

func (c *checker) keyHash(field, hash string) {
	if sum, err := hex.DecodeString(hash); err != nil || len(sum) != sha256.Size || strings.ToLower(hash) != hash {
		c.fault(field, "is not the SHA-256 of a key in lower-case hex, 64 characters")
	}
}

// prefix checks that a prefix is written in one way only.
func (c *checker) prefix(field string, p netip.Prefix) {
	switch {
	case !p.IsValid():
		c.fault(field, "is no prefix")
	case p.Addr().Is4In6() && p.Bits() >= 96:
		c.fault(field, "%v has an IPv4 address in IPv6 form: write %v", p, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked())
	case p.Masked() != p || p.Addr().Is4In6():
		c.fault(field, "%v is not in its canonical form, which is %v", p, p.Masked())
	}
}
