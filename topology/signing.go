package topology

import (
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Signing is the public side of a zone's DNSSEC: its keys and what each is used for. It stands under dnssec/ZONE. The private
// keys are files on each DNS node.
type Signing struct {
	Schema int          `yaml:"schema" json:"schema"`
	Keys   []SigningKey `yaml:"keys" json:"keys"`
	Roll   *Roll        `yaml:"roll,omitempty" json:"roll,omitempty"` // in progress
}

// SigningKey is the public side of one key.
type SigningKey struct {
	Tag       uint16    `yaml:"tag" json:"tag"`             // RFC 4034 appendix B
	Role      KeyRole   `yaml:"role" json:"role"`           //
	Algorithm uint16    `yaml:"algorithm" json:"algorithm"` // 13 (ECDSA P-256 with SHA-256) or 15 (Ed25519)
	Public    string    `yaml:"public" json:"public"`       // as in the DNSKEY record, base64
	State     KeyState  `yaml:"state" json:"state"`
	Since     time.Time `yaml:"since" json:"since"` // of the state
}

// KeyRole is what a key signs.
type KeyRole string

// The roles of keys.
const (
	KSK KeyRole = "ksk" // signs the DNSKEY records; the parent's DS records point to it
	ZSK KeyRole = "zsk" // signs everything else
)

// KeyState is what a key is used for.
type KeyState string

// The states of keys. All of them stand in the zone's DNSKEY records.
const (
	KeyPublished KeyState = "published" // does not sign yet, so that caches learn it first
	KeyActive    KeyState = "active"    // signs
	KeyRetired   KeyState = "retired"   // does not sign any more; what it has signed may still be in caches
)

// Roll is a key roll in progress (RFC 7583).
type Roll struct {
	Role      KeyRole   `yaml:"role" json:"role"`
	Old       uint16    `yaml:"old" json:"old"`               // tag
	New       uint16    `yaml:"new" json:"new"`               // tag
	Step      string    `yaml:"step" json:"step"`             // what has been done: one of the constants below
	NotBefore time.Time `yaml:"not_before" json:"not_before"` // when caches have forgotten what the next step takes away
}

// The steps of rolls, by what has been done. Package dnssec takes them.
const (
	RollPublished = "published" // the new key is in the DNSKEY records; a KSK signs them too, beside the old one
	RollSwapped   = "swapped"   // ZSK: the new key signs, the old one does not any more
	RollDSWanted  = "ds-wanted" // KSK: the parent is asked for the new key's DS records instead of the old one's
	RollDSSeen    = "ds-seen"   // KSK: the parent has them
)

// The algorithms of keys, by their DNSSEC numbers.
const (
	ECDSAP256SHA256 = 13 // RFC 6605
	ED25519         = 15 // RFC 8080
)

// maxSigningKeys bounds the DNSKEY records of a zone: each needs space in an answer, and validators' time.
const maxSigningKeys = 16

// DNSKEY returns the key's record, with the given time to live in seconds. Its zone has no trailing dot.
func (k *SigningKey) DNSKEY(zone string, ttl uint32) *dns.DNSKEY {
	flags := uint16(dns.ZONE)
	if k.Role == KSK {
		flags |= dns.SEP
	}
	return &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: zone + ".", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: ttl},
		Flags: flags, Protocol: 3, Algorithm: uint8(k.Algorithm), PublicKey: k.Public,
	}
}

// Key returns the key of a tag, or nil.
func (s *Signing) Key(tag uint16) *SigningKey {
	for i := range s.Keys {
		if s.Keys[i].Tag == tag {
			return &s.Keys[i]
		}
	}
	return nil
}

// ParseSigning reads and checks the signing of a zone, as it is the value of an etcd key.
func ParseSigning(zone string, text []byte) (*Signing, []Fault) {
	s, d := new(Signing), decoder{}
	if d.decode(text, "dnssec."+zone, s); len(d.faults) > 0 {
		return nil, d.faults
	}
	if faults := d.locate(checkSigning(zone, s)); len(faults) > 0 {
		return nil, faults
	}
	return s, nil
}

func checkSigning(zone string, s *Signing) []Fault {
	c := &checker{path: "dnssec." + zone}
	if c.faults = checkSchema(c.path+".schema", s.Schema); IsTooNew(s.Schema) {
		return c.faults
	}
	c.domain("", zone)
	if len(s.Keys) > maxSigningKeys {
		c.fault("keys", "has %d entries, at most %d are taken", len(s.Keys), maxSigningKeys)
		return c.faults
	}
	for i := range s.Keys {
		c.signingKey(fmt.Sprintf("keys[%d]", i), zone, &s.Keys[i])
		if slices.ContainsFunc(s.Keys[:i], func(k SigningKey) bool { return k.Tag == s.Keys[i].Tag }) {
			c.fault(fmt.Sprintf("keys[%d].tag", i), "%d stands here twice: keys are told apart by their tags, so make another key", s.Keys[i].Tag)
		}
	}
	c.completeAlgorithms(s.Keys)
	if s.Roll != nil {
		c.roll(s)
	}
	return c.faults
}

func (c *checker) signingKey(field, zone string, k *SigningKey) {
	oneOf(c, field+".role", k.Role, KSK, ZSK)
	oneOf(c, field+".state", k.State, KeyPublished, KeyActive, KeyRetired)
	octets := 0
	switch k.Algorithm {
	case ECDSAP256SHA256:
		octets = 64
	case ED25519:
		octets = 32
	default:
		c.fault(field+".algorithm", "%d is not taken: want %d (ECDSA P-256 with SHA-256) or %d (Ed25519)", k.Algorithm, ECDSAP256SHA256, ED25519)
		return
	}
	public, err := base64.StdEncoding.Strict().DecodeString(k.Public)
	switch {
	case err != nil:
		c.fault(field+".public", "%q is not base64 (RFC 4648 section 4)", k.Public)
	case len(public) != octets:
		c.fault(field+".public", "has %d octets: a public key of algorithm %d has %d", len(public), k.Algorithm, octets)
	case k.Role != KSK && k.Role != ZSK: // the tag depends on it
	default:
		if tag := k.DNSKEY(zone, 0).KeyTag(); tag != k.Tag {
			c.fault(field+".tag", "%d is not the tag of this key, which is %d (RFC 4034 appendix B)", k.Tag, tag)
		}
	}
}

// completeAlgorithms checks that everything is signed with each algorithm that the zone has keys of (RFC 4035 section 2.2).
func (c *checker) completeAlgorithms(keys []SigningKey) {
	var done []uint16
	for _, k := range keys {
		if slices.Contains(done, k.Algorithm) {
			continue
		}
		done = append(done, k.Algorithm)
		for _, role := range []KeyRole{KSK, ZSK} {
			if !slices.ContainsFunc(keys, func(o SigningKey) bool {
				return o.Algorithm == k.Algorithm && o.Role == role && o.State == KeyActive
			}) {
				c.fault("keys", "no %s of algorithm %d is active: want at least one", role, k.Algorithm)
			}
		}
	}
}

func (c *checker) roll(s *Signing) {
	r := s.Roll
	oneOf(c, "roll.role", r.Role, KSK, ZSK)
	switch r.Role {
	case ZSK:
		oneOf(c, "roll.step", r.Step, RollPublished, RollSwapped)
	case KSK:
		oneOf(c, "roll.step", r.Step, RollPublished, RollDSWanted, RollDSSeen)
	}
	c.rolled("roll.old", s, r.Old)
	c.rolled("roll.new", s, r.New)
	if r.Old == r.New {
		c.fault("roll.new", "%d is the old key too", r.New)
	}
}

// rolled checks one of the keys of a roll.
func (c *checker) rolled(field string, s *Signing, tag uint16) {
	switch k := s.Key(tag); {
	case k == nil:
		c.fault(field, "there is no key %d", tag)
	case k.Role != s.Roll.Role:
		c.fault(field, "key %d is a %s, the roll is of a %s", tag, k.Role, s.Roll.Role)
	}
}
