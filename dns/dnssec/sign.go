package dnssec

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/miekg/dns"
)

// Sign returns the signatures of a record set: one of each active key of the role that signs its type. DNSKEY, CDS and CDNSKEY
// are signed by KSKs (RFC 7344 section 4.1), all else by ZSKs. The same record set has the same signatures until they are due,
// and while the clock is not put back by more than an hour. Their owner is in lower case. What is returned is the caller's to
// change: an RRSIG of a wildcard, say, is given the owner that was asked for.
//
// What is signed is kept, so this is for record sets that the zone has, whose number askers cannot raise; SignOnce is for others.
// The cost is that of a hash when there are signatures, else 50 µs or so for each key.
func (s *Signer) Sign(rrset []dns.RR, now time.Time) ([]dns.RR, error) {
	return s.sign(s.kept, rrset, now)
}

// SignOnce is Sign for record sets of names that askers make up: it keeps the signatures of some last tens of thousands.
func (s *Signer) SignOnce(rrset []dns.RR, now time.Time) ([]dns.RR, error) {
	return s.sign(s.once, rrset, now)
}

func (s *Signer) sign(c *cache, rrset []dns.RR, now time.Time) ([]dns.RR, error) {
	set, err := canonical(rrset)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if !dns.IsSubDomain(s.zone, set.owner) {
		return nil, fmt.Errorf("sign: %s is not in the zone %s", set.owner, s.zone)
	}
	keys := s.signers(set.kind)
	stored := c.find(set.hash)
	if found := s.complete(stored, keys, now); found != nil {
		return found, nil
	}
	var made []*dns.RRSIG
	for _, k := range keys {
		if there := signatureOf(stored, k.tag, k.Record.Algorithm); there != nil && !s.isDue(there, now) {
			made = append(made, there)
			continue
		}
		signature, err := s.makeSignature(set, k, now)
		if err != nil {
			return nil, fmt.Errorf("sign %s %s: %w", set.owner, dns.Type(set.kind), err)
		}
		made = append(made, signature)
	}
	stored = c.merge(set.hash, made, func(signature *dns.RRSIG) bool { return !s.isDue(signature, now) })
	found := s.complete(stored, keys, now)
	if found == nil {
		return nil, fmt.Errorf("sign %s %s: the clock has jumped", set.owner, dns.Type(set.kind)) // another signer has other times
	}
	return found, nil
}

// signers returns the keys that sign a type.
func (s *Signer) signers(kind uint16) []*Key {
	switch kind {
	case dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY:
		return s.ksks
	}
	return s.zsks
}

// complete returns copies of the signatures in the order of the keys, or nil if one is missing or due.
func (s *Signer) complete(signatures []*dns.RRSIG, keys []*Key, now time.Time) []dns.RR {
	if len(signatures) < len(keys) {
		return nil
	}
	all := make([]dns.RR, len(keys))
	for i, k := range keys {
		signature := signatureOf(signatures, k.tag, k.Record.Algorithm)
		if signature == nil || s.isDue(signature, now) {
			return nil
		}
		mine := *signature // also because packing a record writes into it
		all[i] = &mine
	}
	return all
}

// isDue reports whether a signature is to be made anew: less than half of the validity is left, or the clock was put back to
// before it begins.
func (s *Signer) isDue(signature *dns.RRSIG, now time.Time) bool {
	return moment(signature.Expiration, now).Sub(now) < s.validity/2 || moment(signature.Inception, now).After(now)
}

// HasSignature reports whether a record set has all its signatures, so that Sign or SignOnce costs little.
func (s *Signer) HasSignature(rrset []dns.RR, now time.Time) bool {
	set, err := canonical(rrset)
	if err != nil {
		return false
	}
	keys := s.signers(set.kind)
	return s.complete(s.kept.find(set.hash), keys, now) != nil || s.complete(s.once.find(set.hash), keys, now) != nil
}

// Due reports whether a signature that Sign has made is due: less than half of the validity is left.
func (s *Signer) Due(now time.Time) bool {
	due := false
	s.kept.each(false, func(_ hash, signatures []*dns.RRSIG) bool {
		due = anyOf(signatures, func(signature *dns.RRSIG) bool { return s.isDue(signature, now) })
		return !due
	})
	return due
}

// Drop forgets signatures that are due, and returns of how many record sets they were. Sign makes them anew.
func (s *Signer) Drop(now time.Time) int {
	return s.kept.drop(func(signature *dns.RRSIG) bool { return s.isDue(signature, now) })
}

// makeSignature signs a record set with one key.
func (s *Signer) makeSignature(set *recordSet, k *Key, now time.Time) (*dns.RRSIG, error) {
	// The end is spread by the hash, so that not all signatures made in one moment are due in one moment.
	jitter := time.Duration(float64(s.validity/8) * float64(binary.BigEndian.Uint32(set.hash[4:])) / (1 << 32))
	signature := &dns.RRSIG{
		Hdr:         dns.RR_Header{Name: set.owner, Rrtype: dns.TypeRRSIG, Class: set.class, Ttl: set.ttl},
		TypeCovered: set.kind, Algorithm: k.Record.Algorithm, Labels: set.labels, OrigTtl: set.ttl,
		Expiration: uint32(now.Add(s.validity - jitter).Unix()), Inception: uint32(now.Add(-inceptionSlack).Unix()),
		KeyTag: k.tag, SignerName: s.zone,
	}
	data, err := signedData(signature, set)
	if err != nil {
		return nil, err
	}
	octets, err := k.sign(data)
	if err != nil {
		return nil, err
	}
	signature.Signature = base64.StdEncoding.EncodeToString(octets)
	return signature, nil
}

// signedData is what a signature is over (RFC 4034 section 3.1.8.1): its own data up to the signer's name, and the records.
func signedData(signature *dns.RRSIG, set *recordSet) ([]byte, error) {
	name, err := packName(signature.SignerName)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, 18+len(name)+len(set.wire)+len(set.ends)*len(set.name))
	data = binary.BigEndian.AppendUint16(data, signature.TypeCovered)
	data = append(data, signature.Algorithm, signature.Labels)
	data = binary.BigEndian.AppendUint32(data, signature.OrigTtl)
	data = binary.BigEndian.AppendUint32(data, signature.Expiration)
	data = binary.BigEndian.AppendUint32(data, signature.Inception)
	data = binary.BigEndian.AppendUint16(data, signature.KeyTag)
	return set.signed(append(data, name...)), nil
}

// sign makes a signature in the form of DNS.
func (k *Key) sign(data []byte) ([]byte, error) {
	switch k.Record.Algorithm {
	case ED25519: // RFC 8080 section 4
		if _, ok := k.Signer.Public().(ed25519.PublicKey); !ok {
			return nil, errors.New("the key is none of Ed25519")
		}
		return k.Signer.Sign(rand.Reader, data, crypto.Hash(0))
	case ECDSAP256SHA256: // RFC 6605 section 4: r and s, 32 octets each
		digest := sha256.Sum256(data)
		der, err := k.Signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		var point struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &point); err != nil {
			return nil, err
		}
		octets := make([]byte, 64)
		point.R.FillBytes(octets[:32])
		point.S.FillBytes(octets[32:])
		return octets, nil
	}
	return nil, fmt.Errorf("algorithm %d is not known", k.Record.Algorithm)
}
