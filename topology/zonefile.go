package topology

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// ZoneFile is what a zone file says (RFC 1035 section 5), as a zone.
type ZoneFile struct {
	Zone      *Zone
	Kept      map[string]int // records by type that Zone.Records has
	Signer    int            // records of who signed the zone (RRSIG, NSEC, DNSKEY, ...), which were left out
	Addresses int            // records that are Zone.Nameservers now
	Twice     int            // records that stand in the file more than once, of which one was taken
	Notes     []string       // what is not as the file says, in sentences

	name  string
	file  string
	lines []place // of Zone.Records
}

// place is a line of a file.
type place struct {
	file string
	line int
}

func (p place) String() string { return p.file + ":" + strconv.Itoa(p.line) }

// ReadZoneFile reads the file of a zone. The SOA record becomes hostmaster and negative TTL, the NS records of the zone itself
// become its name servers, with the addresses that the file has for them, and their time to live that of the zone. The other
// records become lines in a canonical form; what a former signer made is left out. Errors in the text are *InvalidError, with
// file and line as path; what is wrong with the records Check tells.
func ReadZoneFile(zone string, text []byte, options ZoneFileOptions) (*ZoneFile, error) {
	f := &ZoneFile{Zone: &Zone{Schema: FirstSchema}, Kept: map[string]int{}, name: zone, file: options.Name}
	r := zoneFileReader{ZoneFile: f, base: options.Base, seen: map[string]bool{}, buffer: make([]byte, 66_000)}
	if r.base == nil {
		r.base = &Zone{}
	}
	if err := scanZoneFile(zone, text, options, r.take); err != nil {
		return nil, err
	}
	if err := r.apex(options.Base != nil); err != nil {
		return nil, err
	}
	return f, r.records()
}

// zoneFileReader makes a zone of the records of a file.
type zoneFileReader struct {
	*ZoneFile
	base    *Zone // what the file does not say
	soa     *dns.SOA
	servers []*dns.NS // of the zone itself
	rest    []placed
	seen    map[string]bool // by name, type and data
	buffer  []byte
}

type placed struct {
	place
	rr dns.RR
}

// take takes a record, and refuses those that cannot stand in a zone file at all.
func (r *zoneFileReader) take(at place, rr dns.RR) error {
	h := rr.Header()
	owner := canonicalName(h.Name)
	switch {
	case h.Name == "":
		return faultAt(at, "has no owner's name, and there is none before it")
	case h.Class != dns.ClassINET:
		return faultAt(at, "is of class %v: want IN", dns.Class(h.Class))
	case isOfSigner(h.Rrtype), h.Rrtype == dns.TypeZONEMD, h.Rrtype == typeOfSigningState && owner == r.name:
		r.Signer++
		return nil
	}
	if data, err := recordData(rr, r.buffer); err == nil {
		key := owner + " " + dns.Type(h.Rrtype).String() + " " + data
		if r.seen[key] && h.Rrtype == dns.TypeSOA && owner == r.name {
			return nil // transfers begin and end with it
		} else if r.seen[key] {
			r.Twice++
			return nil
		}
		r.seen[key] = true
	}
	switch rr := rr.(type) {
	case *dns.SOA:
		if owner != r.name {
			return faultAt(at, "is the SOA record of %s, and this is zone %s", owner, r.name)
		}
		if r.soa != nil {
			return faultAt(at, "is a second SOA record")
		}
		r.soa = rr
		return nil
	case *dns.NS:
		if owner == r.name {
			r.servers = append(r.servers, rr)
			return nil
		}
	}
	r.rest = append(r.rest, placed{at, rr})
	return nil
}

// typeOfSigningState is the private type in which BIND notes at a zone's name how far it has signed.
const typeOfSigningState = 65534

// apex takes what the records of the zone's own name say.
func (r *zoneFileReader) apex(hasBase bool) error {
	z := r.Zone
	var faults []Fault
	if r.soa == nil && !hasBase {
		faults = append(faults, Fault{Path: r.file, Message: "has no SOA record of " + r.name})
	}
	if len(r.servers) == 0 && !hasBase {
		faults = append(faults, Fault{Path: r.file, Message: "has no NS record of " + r.name})
	}
	if len(faults) > 0 {
		return &InvalidError{faults}
	}
	z.Hostmaster, z.TTL, z.NegativeTTL, z.Nameservers = r.base.Hostmaster, r.base.TTL, r.base.NegativeTTL, maps.Clone(r.base.Nameservers)
	if r.soa != nil {
		z.Hostmaster = canonicalName(r.soa.Mbox)
		z.NegativeTTL = r.bounded("negative_ttl", min(r.soa.Minttl, r.soa.Hdr.Ttl), 24*time.Hour) // RFC 2308 section 5
	}
	if len(r.servers) == 0 {
		return nil
	}
	z.TTL, z.Nameservers = r.bounded("ttl", r.servers[0].Hdr.Ttl, maxRecordTTL), map[string][]netip.Addr{}
	for _, server := range r.servers {
		host := canonicalName(server.Ns)
		z.Nameservers[host] = []netip.Addr{}
		if !liesIn(host, r.name) {
			z.Nameservers[host] = slices.Concat(z.Nameservers[host], r.base.Nameservers[host])
		}
	}
	return nil
}

// bounded returns a time in the bounds of a field of a zone.
func (r *zoneFileReader) bounded(field string, seconds uint32, high time.Duration) Duration {
	d := time.Duration(seconds) * time.Second
	within := min(max(d, time.Second), high)
	if within != d {
		r.Notes = append(r.Notes, fmt.Sprintf("%s is %v, not %v as in the file: 1s to %v are taken", field, within, d, high))
	}
	return Duration(within)
}

// records takes what is left: addresses of name servers, and lines.
func (r *zoneFileReader) records() error {
	stale := false
	fresh := map[string]bool{}
	for _, record := range r.rest {
		host := canonicalName(record.rr.Header().Name)
		addrs, isServer := r.Zone.Nameservers[host]
		addr := addressOf(record.rr)
		if isServer && addr.IsValid() && liesIn(host, r.name) {
			if !fresh[host] { // the file counts, not what was stored
				addrs, fresh[host] = nil, true
			}
			r.Zone.Nameservers[host] = append(addrs, addr)
			r.Addresses++
			stale = stale || record.rr.Header().Ttl != seconds(r.Zone.TTL)
			continue
		}
		line := recordLine(r.name, r.Zone.TTL, record.rr, r.buffer)
		if line == "" {
			return faultAt(record.place, "has data of type %v that cannot be written as a line: leave it out", dns.Type(record.rr.Header().Rrtype))
		}
		r.Kept[dns.Type(record.rr.Header().Rrtype).String()]++
		r.lines = append(r.lines, record.place)
		r.Zone.Records = append(r.Zone.Records, line)
	}
	if stale {
		r.Notes = append(r.Notes, fmt.Sprintf("the addresses of name servers get the time to live of the NS records, %v", r.Zone.TTL))
	}
	return nil
}

func seconds(d Duration) uint32 { return uint32(time.Duration(d) / time.Second) }

// addressOf returns the address that an A or AAAA record has; that of others is not valid.
func addressOf(rr dns.RR) netip.Addr {
	var addr netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		addr, _ = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		addr, _ = netip.AddrFromSlice(rr.AAAA.To16())
	}
	return addr
}

// Check tells what is wrong with the zone, as far as that can be told without the rest of a topology.
func (f *ZoneFile) Check() error {
	t := &Topology{Zones: map[string]*Zone{f.name: f.Zone}}
	if faults := append(checkObject(Ref{Zones, f.name}, f.Zone), t.Validate()...); len(faults) > 0 {
		return f.Locate(&InvalidError{faults})
	}
	return nil
}

var recordIndex = regexp.MustCompile(`records\[([0-9]+)\]`)

// Locate gives the faults of the zone's records, in an error of Check or of a store that does not take the zone, the lines of
// the file as paths. Other errors it returns as they are.
func (f *ZoneFile) Locate(err error) error {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	located := &InvalidError{slices.Clone(invalid.Faults)}
	order := make(map[string]int, len(located.Faults))
	for i, fault := range located.Faults {
		if isOf := "zones." + f.name + ".records["; len(fault.Path) <= len(isOf) || fault.Path[:len(isOf)] != isOf {
			continue
		}
		text, message := quotedPrefix(fault.Message)
		inFile := func(s string) string {
			return recordIndex.ReplaceAllStringFunc(s, func(index string) string {
				if n, err := strconv.Atoi(index[len("records[") : len(index)-1]); err == nil && n < len(f.lines) {
					return f.lines[n].String()
				}
				return index
			})
		}
		n, _ := strconv.Atoi(fault.Path[len("zones."+f.name+".records[") : len(fault.Path)-1])
		located.Faults[i] = Fault{Path: inFile(fault.Path[len("zones."+f.name+"."):]), Message: text + inFile(message)}
		order[located.Faults[i].String()] = n + 1
	}
	slices.SortStableFunc(located.Faults, func(a, b Fault) int { return cmp.Compare(order[a.String()], order[b.String()]) })
	return located
}

// quotedPrefix parts a message from the line of a zone that it begins with.
func quotedPrefix(message string) (line, rest string) {
	if prefix, err := strconv.QuotedPrefix(message); err == nil {
		return prefix, message[len(prefix):]
	}
	return "", message
}
