// Package dnssec has the keys of signed zones, signatures, and the steps of a key roll.
package dnssec

import (
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

const DefaultValidity = 14 * 24 * time.Hour

// Keyring has private keys, by zone.
type Keyring struct{}
type Options struct {
	TTL     uint32
	Inherit *Signer
}
type Signer struct{}

func NewSigner(zone string, s *topology.Signing, ring *Keyring, o Options) (*Signer, error) {
	return nil, nil
}
func (*Signer) DNSKEY() []dns.RR                                       { return nil }
func (*Signer) CDS() []dns.RR                                          { return nil }
func (*Signer) CDNSKEY() []dns.RR                                      { return nil }
func (*Signer) DS() []*dns.DS                                          { return nil }
func (*Signer) Sign(rrs []dns.RR, now time.Time) ([]dns.RR, error)     { return nil, nil }
func (*Signer) SignOnce(rrs []dns.RR, now time.Time) ([]dns.RR, error) { return nil, nil }
func (*Signer) HasSignature(rrs []dns.RR, now time.Time) bool          { return true }
func Matching(owner string, types []uint16, ttl uint32) *dns.NSEC      { return nil }
func Nonexistent(owner string, ttl uint32) *dns.NSEC                   { return nil }
