package topology

import "time"

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
	Step      string    `yaml:"step" json:"step"`             // what has been done
	NotBefore time.Time `yaml:"not_before" json:"not_before"` // when caches have forgotten what the next step takes away
}
