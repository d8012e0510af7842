package dnssec

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// recordSet is a record set in the form in which it is signed.
type recordSet struct {
	owner  string // canonical, as text
	wire   []byte // records in canonical form and order (RFC 4034 sections 6.2 and 6.3), without their owner
	labels uint8
	kind   uint16
	class  uint16
	ttl    uint32
	name   []byte // owner's wire form
	ends   []int  // where in wire each record ends
	hash   [sha256.Size]byte
}

// canonical puts a record set into the form in which it is signed. The records are not changed.
func canonical(rrset []dns.RR) (*recordSet, error) {
	if len(rrset) == 0 {
		return nil, errors.New("a record set is empty")
	}
	h := rrset[0].Header()
	name, err := packName(h.Name)
	if err != nil {
		return nil, err
	}
	s := &recordSet{kind: h.Rrtype, class: h.Class, ttl: h.Ttl, name: name}
	s.owner, _, _ = dns.UnpackDomainName(name, 0)
	s.labels = countLabels(name)
	rdata := make([][]byte, len(rrset))
	for i, rr := range rrset {
		if o := rr.Header(); o.Rrtype != s.kind || o.Class != s.class || o.Ttl != s.ttl || !strings.EqualFold(o.Name, h.Name) {
			return nil, fmt.Errorf("%q is not of one record set with %q: want the same owner, class, type and time to live", rr, rrset[0])
		}
		if rdata[i], err = packData(rr); err != nil {
			return nil, fmt.Errorf("pack %q: %w", rr, err)
		}
	}
	slices.SortFunc(rdata, bytes.Compare)
	rdata = slices.CompactFunc(rdata, bytes.Equal) // RFC 4034 section 6.3: no record twice
	for _, data := range rdata {
		s.wire = binary.BigEndian.AppendUint16(s.wire, s.kind)
		s.wire = binary.BigEndian.AppendUint16(s.wire, s.class)
		s.wire = binary.BigEndian.AppendUint32(s.wire, s.ttl)
		s.wire = binary.BigEndian.AppendUint16(s.wire, uint16(len(data)))
		s.wire = append(s.wire, data...)
		s.ends = append(s.ends, len(s.wire))
	}
	s.hash = sha256.Sum256(append(slices.Clip(name), s.wire...)) // a name ends itself, so the two cannot be mistaken
	return s, nil
}

// signed appends the records with their owner, as they go into a signature.
func (s *recordSet) signed(data []byte) []byte {
	from := 0
	for _, end := range s.ends {
		data = append(data, s.name...)
		data = append(data, s.wire[from:end]...)
		from = end
	}
	return data
}

// packName returns the canonical wire form of a name. Length octets are below the letters, so all octets can be lower-cased.
func packName(name string) ([]byte, error) {
	var wire [256]byte
	n, err := dns.PackDomainName(dns.Fqdn(name), wire[:], 0, nil, false)
	if err != nil || n > 255 {
		return nil, fmt.Errorf("%q is no domain name", name)
	}
	lower(wire[:n])
	return slices.Clone(wire[:n]), nil
}

func lower(octets []byte) {
	for i, b := range octets {
		if 'A' <= b && b <= 'Z' {
			octets[i] = b + 'a' - 'A'
		}
	}
}

// countLabels returns the number of labels as an RRSIG record has it: without the root, and without a label * in front (RFC
// 4034 section 3.1.3). A label that only begins with * is like any other (RFC 4592 section 2.1.1).
func countLabels(name []byte) uint8 {
	count := uint8(0)
	for at := 0; name[at] != 0; at += int(name[at]) + 1 {
		count++
	}
	if name[0] == 1 && name[1] == '*' {
		count--
	}
	return count
}

// packData returns the canonical wire form of a record's data.
func packData(rr dns.RR) ([]byte, error) {
	// Not by dns.PackRR, which writes the length into the record: many may sign it at the same time.
	const header = 12
	wire, err := (&dns.Msg{Answer: []dns.RR{lowerNames(rr)}}).Pack()
	if err != nil {
		return nil, err
	}
	_, at, err := dns.UnpackDomainName(wire, header)
	if err != nil {
		return nil, err
	}
	return wire[at+10:], nil
}

// lowerNames returns the record with the names in its data in lower case, if it is of a type whose canonical form has them so
// (RFC 4034 section 6.2 as amended by RFC 6840 section 5.1: not those of NSEC, nor of types newer than RFC 3597).
func lowerNames(rr dns.RR) dns.RR {
	switch rr.(type) {
	case *dns.NS, *dns.CNAME, *dns.SOA, *dns.PTR, *dns.MX, *dns.SRV, *dns.DNAME, *dns.NAPTR, *dns.RP, *dns.AFSDB, *dns.KX,
		*dns.RT, *dns.PX, *dns.MINFO, *dns.MB, *dns.MG, *dns.MR, *dns.MD, *dns.MF:
	default:
		return rr
	}
	rr = dns.Copy(rr)
	switch rr := rr.(type) {
	case *dns.NS:
		lowerText(&rr.Ns)
	case *dns.CNAME:
		lowerText(&rr.Target)
	case *dns.SOA:
		lowerText(&rr.Ns, &rr.Mbox)
	case *dns.PTR:
		lowerText(&rr.Ptr)
	case *dns.MX:
		lowerText(&rr.Mx)
	case *dns.SRV:
		lowerText(&rr.Target)
	case *dns.DNAME:
		lowerText(&rr.Target)
	case *dns.NAPTR:
		lowerText(&rr.Replacement)
	case *dns.RP:
		lowerText(&rr.Mbox, &rr.Txt)
	case *dns.AFSDB:
		lowerText(&rr.Hostname)
	case *dns.KX:
		lowerText(&rr.Exchanger)
	case *dns.RT:
		lowerText(&rr.Host)
	case *dns.PX:
		lowerText(&rr.Map822, &rr.Mapx400)
	case *dns.MINFO:
		lowerText(&rr.Rmail, &rr.Email)
	case *dns.MB:
		lowerText(&rr.Mb)
	case *dns.MG:
		lowerText(&rr.Mg)
	case *dns.MR:
		lowerText(&rr.Mr)
	case *dns.MD:
		lowerText(&rr.Md)
	case *dns.MF:
		lowerText(&rr.Mf)
	}
	return rr
}

// lowerText lower-cases names in text form. By way of the wire, where a letter cannot hide in an escape such as \065.
func lowerText(names ...*string) {
	for _, name := range names {
		if !strings.Contains(*name, `\`) {
			*name = dns.CanonicalName(*name)
			continue
		}
		if wire, err := packName(*name); err == nil {
			*name, _, _ = dns.UnpackDomainName(wire, 0)
		}
	}
}
