package dnssec

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// DefaultValidity is how long signatures are valid when nothing else is said.
const DefaultValidity = 14 * 24 * time.Hour

const (
	// inceptionSlack is how long ago a new signature began to be valid, for validators whose clocks are behind.
	inceptionSlack = time.Hour
	// onceEntries bounds each of the two generations of signatures over names that askers made up.
	onceEntries = 32768
)

// ErrUnsigned is returned for a zone that has no keys.
var ErrUnsigned = errors.New("the zone is not signed")

// Options change how a Signer signs. The zero value works.
type Options struct {
	TTL      uint32        // of the DNSKEY, CDS and CDNSKEY records, in seconds; 0 is an hour
	Validity time.Duration // of signatures; 0 is DefaultValidity
	Inherit  *Signer       // whose signatures are taken over, as far as their keys are still used; of the same zone, or nil
	Once     *Once         // where SignOnce keeps its signatures; nil is a place of the Signer's own
}

// Once keeps the signatures over names that askers have made up, of all zones that it is given to, and bounds them together.
type Once struct{ signatures *cache }

// NewOnce returns an empty place for such signatures.
func NewOnce() *Once { return &Once{newCache(onceEntries)} }

// Signer signs the record sets of one zone, and keeps the signatures: two over the same data differ, so those who sent the
// first one want it again. It is safe for concurrent use.
type Signer struct {
	zone     string // with a trailing dot
	validity time.Duration
	ksks     []*Key // that are active
	zsks     []*Key
	dnskeys  []dns.RR
	cds      []dns.RR
	cdnskeys []dns.RR
	ds       []*dns.DS
	kept     *cache
	once     *cache
	settled  atomic.Bool
}

// MissingKeysError tells which active keys a node lacks.
type MissingKeysError struct {
	Zone  string
	Files []string // names of their private files
}

func (e *MissingKeysError) Error() string {
	return fmt.Sprintf("zone %s: this node has no private file of its active keys: copy %s from a node that has it",
		e.Zone, strings.Join(e.Files, ", "))
}

// NewSigner returns a Signer for a zone, whose name has no trailing dot. The errors are ErrUnsigned for a zone without keys, and
// *MissingKeysError when the keyring lacks active keys. With the latter there is a Signer all the same if it can do with other keys
// of the zone, published or retired: whoever has the zone's DNSKEY records accepts what any of them has signed.
func NewSigner(zone string, signing *topology.Signing, ring *Keyring, o Options) (*Signer, error) {
	if signing == nil || len(signing.Keys) == 0 {
		return nil, fmt.Errorf("zone %s: %w", zone, ErrUnsigned)
	}
	if o.TTL == 0 {
		o.TTL = 3600
	}
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	s := &Signer{zone: zone + ".", validity: o.Validity, kept: newCache(0)}
	if o.Once == nil {
		o.Once = NewOnce()
	}
	s.once = o.Once.signatures
	var missing error
	if files := s.choose(signing, ring, o.TTL); files != nil {
		missing = &MissingKeysError{Zone: zone, Files: files}
	}
	if len(s.ksks) == 0 || len(s.zsks) == 0 {
		return nil, missing
	}
	s.ds = DS(zone, signing, o.TTL)
	for _, k := range wantedKSKs(signing) {
		s.cdnskeys = append(s.cdnskeys, k.DNSKEY(zone, o.TTL).ToCDNSKEY())
	}
	for _, ds := range s.ds {
		s.cds = append(s.cds, ds.ToCDS())
	}
	if o.Inherit != nil && o.Inherit.zone == s.zone {
		s.inherit(s.kept, o.Inherit.kept, o.Inherit)
		if s.once != o.Inherit.once {
			s.inherit(s.once, o.Inherit.once, o.Inherit)
		}
	}
	return s, missing
}

// choose takes the active keys, or where one is missing whatever else there is of its role, and returns the files of those that are.
func (s *Signer) choose(signing *topology.Signing, ring *Keyring, ttl uint32) (missing []string) {
	active, others := map[topology.KeyRole][]*Key{}, map[topology.KeyRole][]*Key{}
	for i := range signing.Keys {
		public := &signing.Keys[i]
		s.dnskeys = append(s.dnskeys, public.DNSKEY(s.Zone(), ttl))
		k := ring.Key(s.Zone(), public.Tag, uint8(public.Algorithm))
		there := k != nil && k.Record.PublicKey == public.Public && k.Role() == public.Role
		switch {
		case there && public.State == topology.KeyActive:
			active[public.Role] = append(active[public.Role], k)
		case there:
			others[public.Role] = append(others[public.Role], k)
		case public.State == topology.KeyActive:
			missing = append(missing, FileName(s.Zone(), uint8(public.Algorithm), public.Tag)+privateEnding)
		}
	}
	for role, keys := range map[topology.KeyRole]*[]*Key{topology.KSK: &s.ksks, topology.ZSK: &s.zsks} {
		if *keys = active[role]; len(*keys) == 0 {
			*keys = others[role]
		}
	}
	return missing
}

// DS returns the DS records that a zone's parent should have, with SHA-256 digests (RFC 4509). The zone has no trailing dot.
func DS(zone string, signing *topology.Signing, ttl uint32) []*dns.DS {
	var all []*dns.DS
	for _, k := range wantedKSKs(signing) {
		if ds := k.DNSKEY(zone, ttl).ToDS(dns.SHA256); ds != nil {
			all = append(all, ds)
		}
	}
	return all
}

// wantedKSKs returns the KSKs that the parent's DS records should point to. In a roll they are the old one as long as caches
// may lack the new one, and the new one from then on.
func wantedKSKs(signing *topology.Signing) []*topology.SigningKey {
	var wanted []*topology.SigningKey
	for i := range signing.Keys {
		k, unwanted := &signing.Keys[i], false
		if r := signing.Roll; r != nil && r.Role == topology.KSK {
			unwanted = k.Tag == r.Old
			if r.Step == topology.RollPublished {
				unwanted = k.Tag == r.New
			}
		}
		if k.Role == topology.KSK && k.State == topology.KeyActive && !unwanted {
			wanted = append(wanted, k)
		}
	}
	return wanted
}

// Settle says that all that is still wanted has been asked for since the Signer was made. Who inherits from it takes nothing else, so
// that signatures of what there was once do not pile up.
func (s *Signer) Settle() { s.settled.Store(true) }

// inherit takes over signatures of keys that are still used. All of the other's signatures are of keys that were active.
func (s *Signer) inherit(to, from *cache, other *Signer) {
	still := map[keyID]bool{}
	for _, k := range append(append([]*Key{}, s.ksks...), s.zsks...) {
		for _, o := range append(append([]*Key{}, other.ksks...), other.zsks...) {
			if o.Record.PublicKey == k.Record.PublicKey && o.tag == k.tag {
				still[keyID{tag: k.tag, algorithm: k.Record.Algorithm}] = true
			}
		}
	}
	from.each(other.settled.Load(), func(h hash, signatures []*dns.RRSIG) bool {
		var kept []*dns.RRSIG
		for _, signature := range signatures {
			if still[keyID{tag: signature.KeyTag, algorithm: signature.Algorithm}] {
				kept = append(kept, signature)
			}
		}
		if kept != nil {
			to.adopt(h, kept)
		}
		return true
	})
}

// Zone returns the zone's name, without a trailing dot.
func (s *Signer) Zone() string { return strings.TrimSuffix(s.zone, ".") }

// DNSKEY returns the zone's DNSKEY records: all keys, in whatever state.
func (s *Signer) DNSKEY() []dns.RR { return copyRecords(s.dnskeys) }

// CDS returns the CDS records by which the parent can learn its DS records (RFC 7344).
func (s *Signer) CDS() []dns.RR { return copyRecords(s.cds) }

// CDNSKEY returns the CDNSKEY records (RFC 7344).
func (s *Signer) CDNSKEY() []dns.RR { return copyRecords(s.cdnskeys) }

// DS returns the DS records that the parent should have.
func (s *Signer) DS() []*dns.DS {
	all := make([]*dns.DS, len(s.ds))
	for i, ds := range s.ds {
		all[i] = dns.Copy(ds).(*dns.DS)
	}
	return all
}

// copyRecords makes records the caller's: packing them writes into them.
func copyRecords(records []dns.RR) []dns.RR {
	all := make([]dns.RR, len(records))
	for i, rr := range records {
		all[i] = dns.Copy(rr)
	}
	return all
}

// Expiry returns when a signature of about now ends.
func Expiry(signature *dns.RRSIG, now time.Time) time.Time { return moment(signature.Expiration, now) }
