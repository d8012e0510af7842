package dns

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// tsigFudge is by how many seconds the clocks of two servers may differ (RFC 8945 section 10).
const tsigFudge = 300

// transaction authenticates the messages of one exchange (RFC 8945).
type transaction struct {
	key    TSIGKey
	rcode  uint16 // error to tell in the TSIG record; 0 for none
	mac    string // of the message before, in hex
	stream bool   // the message before is one of ours
	asked  *dns.TSIG
}

// keyName returns the name of the key that an asker has used, or has said to use; it is empty for none.
func (t *transaction) keyName() string {
	if t == nil {
		return ""
	}
	return t.asked.Hdr.Name
}

// authenticate reads the TSIG record of a packet. Without one it returns nil, nil. The error is that the packet cannot be read; a
// transaction whose rcode is set is not authenticated.
func authenticate(packet []byte, keys []TSIGKey) (*transaction, error) {
	var m dns.Msg
	if err := m.Unpack(packet); err != nil {
		return nil, err
	}
	asked := m.IsTsig()
	if asked == nil {
		return nil, nil
	}
	if asked.Algorithm == "" { // has no data at all, which the package takes for an empty record
		return nil, errors.New("a TSIG record without data")
	}
	t := &transaction{asked: asked, mac: asked.MAC, rcode: dns.RcodeBadKey}
	for _, key := range keys {
		if key.Name != strings.ToLower(asked.Hdr.Name) || key.Algorithm != strings.ToLower(asked.Algorithm) {
			continue
		}
		t.key = key
		if size, whole := int(asked.MACSize), macSize(key.Algorithm); size > whole || size < max(10, whole/2) { // RFC 8945 section 5.2.2.1
			return nil, fmt.Errorf("a MAC of %d octets for %s, want %d", size, key.Algorithm, whole)
		}
		switch err := dns.TsigVerify(bytes.Clone(packet), t.secret(), "", false); { // which writes into the packet
		case err == nil:
			t.rcode = 0
			return t, nil
		case errors.Is(err, dns.ErrTime):
			t.rcode = dns.RcodeBadTime
		default:
			t.rcode = dns.RcodeBadSig
		}
	}
	return t, nil
}

// macSize is how many octets an algorithm's MAC has that is not truncated.
func macSize(algorithm string) int {
	switch algorithm {
	case dns.HmacSHA1:
		return sha1.Size
	case dns.HmacSHA224:
		return sha256.Size224
	case dns.HmacSHA256:
		return sha256.Size
	case dns.HmacSHA384:
		return sha512.Size384
	}
	return sha512.Size
}

func (t *transaction) secret() string { return base64.StdEncoding.EncodeToString(t.key.Secret) }

// sign packs a message with a TSIG record.
func (t *transaction) sign(m *dns.Msg, now time.Time) ([]byte, error) {
	record := &dns.TSIG{
		Hdr:       dns.RR_Header{Name: t.asked.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: t.asked.Algorithm, TimeSigned: uint64(now.Unix()), Fudge: tsigFudge, OrigId: m.Id, Error: t.rcode,
	}
	if t.rcode == dns.RcodeBadTime { // tells our time, and verifies whatever the other's clock says (RFC 8945 section 5.2.3)
		record.TimeSigned, record.OtherLen, record.OtherData = t.asked.TimeSigned, 6, fmt.Sprintf("%012x", now.Unix())
	}
	signed := *m
	signed.Extra = append(append([]dns.RR(nil), m.Extra...), record)
	if t.rcode == dns.RcodeBadKey || t.rcode == dns.RcodeBadSig { // which nobody could check (RFC 8945 section 5.3.2)
		return signed.Pack()
	}
	packet, mac, err := dns.TsigGenerate(&signed, t.secret(), t.mac, t.stream)
	t.mac, t.stream = mac, true
	return packet, err
}
