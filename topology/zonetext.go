package topology

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// ZoneFile returns the zone, whose name is given, as a zone file: what it says by itself, without services. The serial is 0, as
// the server chooses it. Addresses of name servers that do not lie in the zone cannot stand in it; they are told in remarks.
func (z *Zone) ZoneFile(zone string) []byte {
	var text strings.Builder
	hosts := slices.Sorted(maps.Keys(z.Nameservers))
	primary := zone
	if len(hosts) > 0 {
		primary = hosts[0]
	}
	fmt.Fprintf(&text, "$ORIGIN %s.\n$TTL %d\n", zone, seconds(z.TTL))
	// The time that negative answers are kept is the lower of the SOA's own time to live and its last field (RFC 2308 section 5).
	fmt.Fprintf(&text, "@ %d SOA %s. %s. 0 3600 600 604800 %d\n", max(seconds(z.TTL), seconds(z.NegativeTTL)), primary, z.Hostmaster, seconds(z.NegativeTTL))
	for _, host := range hosts {
		fmt.Fprintf(&text, "@ NS %s\n", ownerText(host, zone))
	}
	for _, host := range hosts {
		for _, addr := range z.Nameservers[host] {
			remark := ""
			if !isBelow(host, zone) {
				remark = "; "
			}
			fmt.Fprintf(&text, "%s%s %s %s\n", remark, ownerText(host, zone), addressType(addr), addr)
		}
	}
	for _, line := range z.Records {
		text.WriteString(line + "\n")
	}
	return []byte(text.String())
}

func addressType(addr netip.Addr) string {
	if addr.Is4() {
		return "A"
	}
	return "AAAA"
}

// ownerText writes a canonical name as the first word of a line in a zone's file.
func ownerText(name, zone string) string {
	switch {
	case name == zone:
		return "@"
	case liesIn(name, zone):
		name = strings.TrimSuffix(name, "."+zone)
	default:
		name += "."
	}
	if strings.HasPrefix(name, "$") {
		return `\` + name // else it would be a directive
	}
	return name
}

// recordLine writes a record as a line of a zone whose time to live is given. The line says what the record does: where the
// form of its type cannot be read back as the same, it has that of RFC 3597, and it is empty where that cannot either. A record
// without valid data is written as it is, for a message.
func recordLine(zone string, ttl Duration, rr dns.RR, buffer []byte) string {
	wire, invalid := packRecord(rr, buffer)
	if invalid != nil {
		return strings.ToValidUTF8(writeRecord(zone, ttl, rr), "?")
	}
	generic := &dns.RFC3597{Hdr: *rr.Header(), Rdata: hex.EncodeToString(wire)}
	data, _ := recordData(rr, buffer)
	forms := []dns.RR{generic}
	if unpacked, ok := repack(rr, buffer); ok { // so that text has one form, however it was written
		forms = []dns.RR{relative(unpacked, zone), unpacked, generic}
	}
	for _, form := range forms {
		if line := writeRecord(zone, ttl, form); says(line, zone, ttl, rr, data, buffer) {
			return line
		}
	}
	if len(wire) == 0 { // of a type that must have data, of which there is a better message
		return strings.ToValidUTF8(writeRecord(zone, ttl, rr), "?")
	}
	return ""
}

func repack(rr dns.RR, buffer []byte) (dns.RR, bool) {
	end, err := dns.PackRR(rr, buffer, 0, nil, false)
	if err != nil {
		return nil, false
	}
	unpacked, _, err := dns.UnpackRR(buffer[:end], 0)
	return unpacked, err == nil
}

func writeRecord(zone string, ttl Duration, rr dns.RR) string {
	h := rr.Header()
	words := []string{ownerText(canonicalName(h.Name), zone)}
	if h.Ttl != seconds(ttl) {
		words = append(words, fmt.Sprint(h.Ttl))
	}
	data := strings.TrimSpace(strings.TrimPrefix(rr.String(), h.String()))
	if unknown, ok := rr.(*dns.RFC3597); ok {
		data = strings.TrimSpace(fmt.Sprintf(`\# %d %s`, len(unknown.Rdata)/2, strings.ToLower(unknown.Rdata)))
	}
	return strings.TrimSpace(strings.Join(append(words, dns.Type(h.Rrtype).String(), data), " "))
}

// says reports whether a line can stand in a document and is the record.
func says(line, zone string, ttl Duration, rr dns.RR, data string, buffer []byte) bool {
	for i := range len(line) {
		if line[i] < ' ' || line[i] > '~' {
			return false
		}
	}
	read, err := ParseRecord(zone, ttl, line)
	if err != nil || read.Header().Rrtype != rr.Header().Rrtype || read.Header().Ttl != rr.Header().Ttl ||
		canonicalName(read.Header().Name) != canonicalName(rr.Header().Name) {
		return false
	}
	got, err := recordData(read, buffer)
	return err == nil && got == data
}

// relative returns a record whose data names other names, with those in the zone as they are written below it.
func relative(rr dns.RR, zone string) dns.RR {
	field := func(rr dns.RR) *string {
		switch rr := rr.(type) {
		case *dns.NS:
			return &rr.Ns
		case *dns.CNAME:
			return &rr.Target
		case *dns.PTR:
			return &rr.Ptr
		case *dns.MX:
			return &rr.Mx
		case *dns.SRV:
			return &rr.Target
		}
		return nil
	}
	host := field(rr)
	if host == nil || !liesIn(canonicalName(*host), zone) {
		return rr
	}
	short := dns.Copy(rr)
	*field(short) = ownerText(canonicalName(*host), zone)
	return short
}
