package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxRecordTTL = 7 * 24 * time.Hour

	// maxSetOctets is what a record set may take in an answer: a message has 65,535 octets, of which header, question, EDNS
	// and signatures need some.
	maxSetOctets = 65_535 - 2_048

	// maxRecordFaults bounds how many faults of a zone's records are told.
	maxRecordFaults = 100
)

// contents is what the lines of a zone say, and what is wrong with them by themselves. It is immutable.
type contents struct {
	zone  string
	ttl   Duration
	lines []string

	rrs     []dns.RR
	nodes   map[string]*node // by canonical name
	targets []target
	faults  []recordFault
}

// node is a name with its record sets, which are few.
type node struct{ sets []recordSet }

// recordSet is the records of one name and type.
type recordSet struct {
	rrtype uint16
	line   int // of the first record
	count  int
	ttl    uint32
	octets int // in an answer that has the question's name in front
}

// target is a host that an NS, MX or SRV record points to.
type target struct {
	rrtype      uint16
	line        int
	owner, host string // canonical
}

// recordFault is what is wrong with a line.
type recordFault struct {
	line    int
	message string
}

func readContents(zone string, ttl Duration, lines []string) *contents {
	x := &contents{zone: zone, ttl: ttl, lines: slices.Clone(lines), nodes: map[string]*node{}}
	r := recordReader{x, make([]byte, 66_000), make(map[string]int, len(lines))}
	for i, line := range lines {
		rr, err := ParseRecord(zone, ttl, line)
		if err != nil {
			x.fault(i, "%v", err)
			continue
		}
		x.rrs = append(x.rrs, rr)
		r.add(i, rr)
	}
	for name, n := range x.nodes {
		x.checkCNAME(name, n)
		x.checkDelegation(name, n)
	}
	for _, t := range x.targets {
		if t.rrtype == dns.TypeNS && liesIn(t.host, t.owner) && !x.nodes[t.host].hasAddress() {
			x.fault(t.line, "needs the addresses of %s (glue), which lies in what is delegated: add an A or AAAA record of it", t.host)
		}
	}
	slices.SortFunc(x.faults, func(a, b recordFault) int { return a.line - b.line })
	return x
}

func (x *contents) fault(line int, format string, args ...any) {
	x.faults = append(x.faults, recordFault{line, fmt.Sprintf(format, args...)})
}

// recordReader takes the records of a zone one by one.
type recordReader struct {
	*contents
	buffer []byte
	seen   map[string]int // line by name, type and data
}

func (r *recordReader) add(line int, rr dns.RR) {
	h := rr.Header()
	name := canonicalName(h.Name)
	if !liesIn(name, r.zone) {
		r.fault(line, "%s does not lie in the zone: want a name below it; a name without a dot at the end is", name)
		return
	}
	if why := refusal(h.Rrtype, name == r.zone); why != "" {
		r.fault(line, "%s", why)
		return
	}
	if time.Duration(h.Ttl)*time.Second > maxRecordTTL {
		r.fault(line, "the time to live of %d s is longer than %d s, seven days", h.Ttl, int(maxRecordTTL.Seconds()))
	}
	data, err := recordData(rr, r.buffer)
	if err != nil {
		r.fault(line, "has data that do not fit a record: %s", strings.TrimPrefix(err.Error(), "dns: "))
		return
	}
	if _, known := dns.TypeToRR[h.Rrtype]; data == "" && known && h.Rrtype != dns.TypeNULL && h.Rrtype != dns.TypeAPL {
		r.fault(line, "has no data")
		return
	}
	key := name + " " + dns.Type(h.Rrtype).String() + " " + data
	if first, twice := r.seen[key]; twice {
		r.fault(line, "is the same as records[%d]", first)
		return
	}
	r.seen[key] = line
	r.place(line, name, h, 12+len(data))
	if host := targetOf(rr); host != "" {
		r.targets = append(r.targets, target{h.Rrtype, line, name, canonicalName(host)})
	}
}

// place puts a record into its set.
func (r *recordReader) place(line int, name string, h *dns.RR_Header, octets int) {
	n := r.nodes[name]
	if n == nil {
		n = &node{}
		r.nodes[name] = n
	}
	set := n.set(h.Rrtype)
	if set == nil {
		n.sets = append(n.sets, recordSet{rrtype: h.Rrtype, line: line, ttl: h.Ttl})
		set = &n.sets[len(n.sets)-1]
	}
	if h.Ttl != set.ttl {
		r.fault(line, "has the time to live %d, and records[%d] of the same name and type has %d: want one for the set (RFC 2181 section 5.2)", h.Ttl, set.line, set.ttl)
	}
	before := set.octets
	set.count++
	if set.octets += octets; set.octets > maxSetOctets && before <= maxSetOctets {
		r.fault(line, "with this one the %v records of %s take more than %d octets, which no message can carry", dns.Type(h.Rrtype), name, maxSetOctets)
	}
}

// set returns the set of a type, or nil. A node that is nil has none.
func (n *node) set(rrtype uint16) *recordSet {
	if n != nil {
		for i := range n.sets {
			if n.sets[i].rrtype == rrtype {
				return &n.sets[i]
			}
		}
	}
	return nil
}

func (n *node) hasAddress() bool { return n.set(dns.TypeA) != nil || n.set(dns.TypeAAAA) != nil }

// targetOf returns the host that an NS, MX or SRV record points to; that of other records is empty, and so is the root's, which
// stands for none (RFC 7505, RFC 2782).
func targetOf(rr dns.RR) string {
	host := ""
	switch rr := rr.(type) {
	case *dns.NS:
		host = rr.Ns
	case *dns.MX:
		host = rr.Mx
	case *dns.SRV:
		host = rr.Target
	}
	if host == "." {
		return ""
	}
	return host
}

// refusal says why no record of a type may stand in a zone, or nothing.
func refusal(rrtype uint16, apex bool) string {
	name := dns.Type(rrtype).String()
	switch {
	case rrtype == dns.TypeSOA:
		return "the server makes the SOA record: set hostmaster, ttl and negative_ttl"
	case rrtype == dns.TypeNS && apex:
		return "the server makes the zone's own NS records: set nameservers"
	case rrtype == dns.TypeDS && apex:
		return "the DS records of a zone stand in the zone above it"
	case rrtype == dns.TypeCNAME && apex:
		return "the zone's own name has SOA and NS records, and so no CNAME (RFC 1034 section 3.6.2)"
	case isOfSigner(rrtype):
		return "the server makes " + name + " records when it signs the zone"
	case rrtype == dns.TypeZONEMD:
		return "a ZONEMD record is about one serial, which the server chooses"
	case rrtype == dns.TypeDNAME:
		return "DNAME is not supported: write a CNAME for each name, or a wildcard CNAME"
	case rrtype == dns.TypeKEY || rrtype == dns.TypeSIG || rrtype == dns.TypeNXT:
		return name + " is obsolete (RFC 3755)"
	case rrtype == dns.TypeOPT || rrtype >= 128 && rrtype <= 255 || rrtype == 0 || rrtype == 65535:
		return name + " is not a type of data, but of messages (RFC 6895 section 3.1)"
	}
	return ""
}

// isOfSigner reports whether records of a type are made by who signs the zone.
func isOfSigner(rrtype uint16) bool {
	switch rrtype {
	case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY:
		return true
	}
	return false
}

// checkCNAME checks that an alias stands alone.
func (x *contents) checkCNAME(name string, n *node) {
	set := n.set(dns.TypeCNAME)
	if set == nil {
		return
	}
	if set.count > 1 {
		x.fault(set.line, "%s has %d CNAME records: want one", name, set.count)
	}
	for _, other := range n.sets {
		if other.rrtype != dns.TypeCNAME {
			x.fault(set.line, "a CNAME stands alone at its name, and records[%d] is there too (RFC 1034 section 3.6.2)", other.line)
		}
	}
}

// checkDelegation checks that at and below a delegation there is nothing but what is needed to find the servers.
func (x *contents) checkDelegation(name string, n *node) {
	ns := n.set(dns.TypeNS)
	if ns != nil && (name == "*" || strings.HasPrefix(name, "*.")) {
		x.fault(ns.line, "a wildcard cannot be delegated (RFC 4592 section 4.2)")
	}
	cut := x.cutAbove(name)
	for _, set := range n.sets {
		address := set.rrtype == dns.TypeA || set.rrtype == dns.TypeAAAA
		switch {
		case cut != "" && !address:
			x.fault(set.line, "lies below the delegation of %s, where only addresses of name servers can stand", cut)
		case ns != nil && address && !x.isServer(name):
			x.fault(set.line, "%s is delegated, and no name server: its addresses stand in the zone that it is delegated to", name)
		case ns != nil && !address && set.rrtype != dns.TypeNS && set.rrtype != dns.TypeDS && set.rrtype != dns.TypeCNAME:
			x.fault(set.line, "%s is delegated: only NS, DS and addresses of name servers can stand there", name)
		}
	}
}

// cutAbove returns the topmost name above a name that the zone delegates, or nothing.
func (x *contents) cutAbove(name string) string {
	cut := ""
	for name != x.zone {
		above, ok := parentName(name)
		if !ok || above == x.zone {
			break
		}
		if x.nodes[above].set(dns.TypeNS) != nil {
			cut = above
		}
		name = above
	}
	return cut
}

// isServer reports whether a name that is delegated is one of its own name servers.
func (x *contents) isServer(name string) bool {
	return slices.ContainsFunc(x.targets, func(t target) bool { return t.rrtype == dns.TypeNS && t.owner == name && t.host == name })
}
