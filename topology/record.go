package topology

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ParseRecord reads one record of a zone, a line of a zone file (RFC 1035 section 5.1) that begins with the owner's name, such
// as "www 300 A 192.0.2.1". Names without a trailing dot are below the zone, @ is its apex; without a time to live the record
// has the given one. Types that have no form of their own are written as RFC 3597 says. The record's names are as written.
func ParseRecord(zone string, ttl Duration, line string) (dns.RR, error) {
	if strings.ContainsAny(line, "\n\r") || strings.HasPrefix(strings.TrimLeft(line, "() \t"), "$") || strings.TrimLeft(line, " \t") != line || line == "" {
		return nil, errors.New("is not one line with an owner's name in front")
	}
	parser := dns.NewZoneParser(strings.NewReader(line+"\n"), zone+".", "")
	parser.SetDefaultTTL(uint32(time.Duration(ttl) / time.Second))
	rr, ok := parser.Next()
	if ok {
		if _, more := parser.Next(); more { // which finds too what is left open, such as a parenthesis
			return nil, errors.New("is more than one record")
		}
	}
	if err := parser.Err(); err != nil {
		message, column, _ := strings.Cut(strings.TrimPrefix(err.Error(), "dns: "), " at line: 1:")
		return nil, fmt.Errorf("is no record: %s at column %s", message, column)
	}
	if !ok {
		return nil, errors.New("is no record")
	}
	if rr.Header().Name == "" { // a parenthesis hid that the line has no owner
		return nil, errors.New("has no owner's name in front")
	}
	if rr.Header().Class != dns.ClassINET {
		return nil, errors.New("is not of class IN")
	}
	return rr, nil
}

// Parsed returns the records of the zone, whose name is given: those that stand in it as lines, in their order. Lines that are
// no records are left out; a valid zone has none. Whoever calls must not change the records. For a zone that was read from a
// document they were parsed then.
func (z *Zone) Parsed(zone string) []dns.RR { return z.contents(zone).rrs }

// contents returns what the zone's lines say. It is kept with a zone that came from a document, and found anew where the zone
// was changed since, or has been made by a program.
func (z *Zone) contents(name string) *contents {
	if kept := z.read; kept != nil && kept.zone == name && kept.ttl == z.TTL && slices.Equal(kept.lines, z.Records) {
		return kept
	}
	return readContents(name, z.TTL, z.Records)
}

// canonicalName returns an absolute name as names stand in a topology: in lower case, without the dot at the end, and with
// escapes only where there is no other way, so that equal names are equal strings.
func canonicalName(name string) string {
	for i := range len(name) {
		if c := name[i]; c == '\\' || c <= ' ' || c > '~' {
			wire := make([]byte, 256)
			end, err := dns.PackDomainName(name, wire, 0, nil, false)
			if err != nil {
				break
			}
			if plain, _, err := dns.UnpackDomainName(wire[:end], 0); err == nil {
				name = plain
			}
			break
		}
	}
	return strings.TrimSuffix(dns.CanonicalName(name), ".")
}

// parentName returns a canonical name without its first label, or false for one of a single label.
func parentName(name string) (string, bool) {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '.':
			return name[i+1:], true
		}
	}
	return "", false
}

// liesIn reports whether a canonical name is in a zone. Unlike isBelow it knows dots within a label.
func liesIn(name, zone string) bool {
	for ok := true; ok && len(name) >= len(zone); name, ok = parentName(name) {
		if name == zone {
			return true
		}
	}
	return false
}

// namesFrom says from which octet on the data of a type consist of domain names, in which letters count alike in both cases.
var namesFrom = map[uint16]int{
	dns.TypeNS: 0, dns.TypeCNAME: 0, dns.TypePTR: 0, dns.TypeMB: 0, dns.TypeMG: 0, dns.TypeMR: 0, dns.TypeMINFO: 0, dns.TypeRP: 0,
	dns.TypeMX: 2, dns.TypeAFSDB: 2, dns.TypeRT: 2, dns.TypeKX: 2, dns.TypePX: 2, dns.TypeSRV: 6,
}

// packRecord returns the data of a record as a message has them. They are in the buffer, which has room for the longest record.
func packRecord(rr dns.RR, buffer []byte) ([]byte, error) {
	start, err := dns.PackDomainName(rr.Header().Name, buffer, 0, nil, false)
	if err != nil {
		return nil, err
	}
	end, err := dns.PackRR(rr, buffer, 0, nil, false)
	if err != nil {
		return nil, err
	}
	return buffer[start+10 : end], nil // behind type, class, time to live and length
}

// recordData returns the data of a record so that equal records of a name and type have equal data.
func recordData(rr dns.RR, buffer []byte) (string, error) {
	data, err := packRecord(rr, buffer)
	if err != nil {
		return "", err
	}
	if from, ok := namesFrom[rr.Header().Rrtype]; ok && from <= len(data) {
		for i, c := range data[from:] { // lengths of labels are below the letters
			if c >= 'A' && c <= 'Z' {
				data[from+i] = c + 'a' - 'A'
			}
		}
	}
	return string(data), nil
}
