package dnssec

import (
	"slices"

	"github.com/miekg/dns"
)

// NSEC returns an NSEC record (RFC 4034 section 4) that says which types owner has; RRSIG and NSEC are added to them.
func NSEC(owner, next string, types []uint16, ttl uint32) *dns.NSEC {
	bitmap := append([]uint16{dns.TypeRRSIG, dns.TypeNSEC}, types...)
	slices.Sort(bitmap)
	return &dns.NSEC{
		Hdr:        dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: ttl},
		NextDomain: next, TypeBitMap: slices.Compact(bitmap),
	}
}

// Matching returns the record by which compact denial of existence tells that owner has only these types (RFC 9824 section
// 3.1); none of them for an empty non-terminal (section 3.2). It covers no other name. The record is in lower case.
func Matching(owner string, types []uint16, ttl uint32) *dns.NSEC {
	owner, next := successor(owner)
	return NSEC(owner, next, types, ttl)
}

// Nonexistent returns the record by which compact denial of existence tells that there is no such name: its only type is NXNAME
// (RFC 9824 section 3.3).
func Nonexistent(owner string, ttl uint32) *dns.NSEC {
	return Matching(owner, []uint16{dns.TypeNXNAME}, ttl)
}

// successor returns a name in lower case, and the first possible name after it in canonical order. That is its least child; for a
// name so long that it can have no child, the name with an octet more or a higher one in its first label (RFC 4471 section
// 3.1.2).
func successor(name string) (owner, next string) {
	wire, err := packName(name)
	if err != nil { // no name comes here that was not read from a packet or a zone
		return name, `\000.` + name
	}
	owner, _, _ = dns.UnpackDomainName(wire, 0)
	if len(wire)+2 <= 255 {
		return owner, `\000.` + owner
	}
	next, _, _ = dns.UnpackDomainName(after(wire), 0)
	return owner, next
}

// after returns the first name after a name and all that could be below it.
func after(wire []byte) []byte {
	label, rest := wire[1:1+wire[0]], wire[1+wire[0]:]
	if len(label) < 63 && len(wire) < 255 {
		return join(append(slices.Clone(label), 0), rest)
	}
	for len(label) > 0 && label[len(label)-1] == 0xff { // has none after it of the same length
		label = label[:len(label)-1]
	}
	if len(label) == 0 {
		if rest[0] == 0 {
			return rest
		}
		return after(rest)
	}
	label = slices.Clone(label)
	last := &label[len(label)-1]
	if *last++; *last == 'A' { // upper-case letters are no octets of canonical names
		*last = 'Z' + 1
	}
	return join(label, rest)
}

func join(label, rest []byte) []byte {
	return append(append([]byte{byte(len(label))}, label...), rest...)
}
