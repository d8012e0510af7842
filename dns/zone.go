package dns

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// index is what the names of all zones stand for: topology and keys, without verdicts and geography. It is made for one topology
// and one set of keys. What it says does not change; the answers that it keeps are made when they are first needed.
type index struct {
	zones    map[string]*zone // by name on the wire, in lower case
	quick    map[string]*node // those of all zones whose answers the fast path may send; likewise
	answers  *answers
	problems []string // why a zone is not signed that should be

	signed int64        // the revision of the public keys
	once   *dnssec.Once // signatures over names that askers have made up, of all zones
}

// zone is one zone.
type zone struct {
	name        string // fully qualified, lower case
	wire        string
	topology    *topology.Zone
	nodes       map[string]*node // by name on the wire
	soa         *dns.SOA
	signer      *dnssec.Signer // nil for a zone that is not signed
	keyless     bool           // it should be signed, and cannot be
	parent      *zone          // that we answer for too; nil for none
	nameservers []dns.RR

	transfer sync.Mutex // of who makes the content
	content  []dns.RR   // for zone transfers, made for the first one
}

// node is a name that exists. Without sets and without a service it is an empty non-terminal.
type node struct {
	zone    *zone
	name    string // fully qualified, lower case
	wire    string
	sets    map[uint16][]dns.RR // static, by type
	service *service            // whose steered name this is; nil for none
	explain *service            // whose explain name this is; nil for none
	cut     bool                // a delegation begins here (RFC 9499 section 7)
	types   []uint16            // that exist here, sorted, without those of DNSSEC

	typed [3]typed         // A, AAAA, HTTPS
	other map[uint16]typed // the other types that exist
	none  typed            // all that do not exist
}

// service is a steered service.
type service struct {
	name     string // fully qualified, lower case
	id       router.ServiceID
	ttl      uint32
	topology *topology.Service
	has      [3]bool // by family: some PoP of the service has an address of it
}

func (x *index) add(z *zone, name string) *node {
	wire := wireName(name)
	n := z.nodes[wire]
	if n == nil {
		n = &node{zone: z, name: name, wire: wire, sets: map[uint16][]dns.RR{}}
		z.nodes[wire] = n
	}
	return n
}

func (n *node) put(rr dns.RR) {
	t := rr.Header().Rrtype
	n.sets[t] = append(n.sets[t], rr)
}

// newIndex collects the names of all zones: apexes, name servers, static records, services, <pop>.<service> for each PoP of a
// service, explain.<service>, and what lies between them. Of an older index for the same names, signatures are taken over.
func newIndex(t *router.Table, keys *dnssec.Keyring, epoch int64, before *index) *index {
	snap := t.Snapshot()
	x := &index{zones: map[string]*zone{}, quick: map[string]*node{}, answers: newAnswers(), signed: snap.Signed}
	if before != nil && before.signed == snap.Signed {
		x.once = before.once
	} else {
		x.once = dnssec.NewOnce() // other keys may have the same tags
	}
	for _, name := range slices.Sorted(maps.Keys(snap.Topology.Zones)) {
		x.addZone(name, snap, epoch)
	}
	for _, z := range x.zones {
		z.parent = x.zoneOf(parent(z.wire))
		x.sign(z, snap, keys, epoch, before)
	}
	for _, z := range x.zones {
		x.addStatic(z)
	}
	for name := range snap.Topology.Services {
		id, _ := t.Service(name)
		x.addService(t, id)
	}
	for _, z := range x.zones {
		x.finish(z)
	}
	x.answers.size(t.Choices())
	return x
}

func (x *index) addZone(name string, snap *topology.Snapshot, epoch int64) {
	z := &zone{name: name + ".", wire: wireName(name + "."), topology: snap.Topology.Zones[name], nodes: map[string]*node{}}
	hosts := slices.Sorted(maps.Keys(z.topology.Nameservers))
	z.soa = &dns.SOA{
		Hdr: z.header(z.name, dns.TypeSOA, seconds(z.topology.TTL)),
		Ns:  hosts[0] + ".", Mbox: z.topology.Hostmaster + ".", Serial: serial(snap, epoch),
		Refresh: 3600, Retry: 600, Expire: secondaryLife, Minttl: seconds(z.topology.NegativeTTL),
	}
	for _, host := range hosts {
		z.nameservers = append(z.nameservers, &dns.NS{Hdr: z.header(z.name, dns.TypeNS, seconds(z.topology.TTL)), Ns: host + "."})
	}
	x.zones[z.wire] = z
}

// epochLength is how often, in seconds, signatures are renewed: those that would otherwise be due before the next time. It divides
// the life of a signature (dnssec.Options) by eight.
const epochLength = int64(dnssec.DefaultValidity / time.Second / 8)

// secondaryLife is for how long, in seconds, a secondary serves a zone without hearing of us. What it has transferred is signed for
// as long at least: then it falls silent, and others are asked, rather than serve signatures that have expired (RFC 6781 section 4.4.1).
const secondaryLife = uint32(dnssec.DefaultValidity / time.Second / 2)

// timeOf returns when an epoch begins.
func timeOf(epoch int64) time.Time { return time.Unix(epoch*epochLength, 0) }

// serial moves with the topology and with the keys, whose revisions are of one store, and with the signatures. A node that began later
// may have a higher one for the same content, and none has a higher one for an older content.
func serial(snap *topology.Snapshot, epoch int64) uint32 {
	return uint32(max(snap.Good, snap.Signed)) + uint32(epoch)
}

func (z *zone) header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// sign gives a zone its signer. When active keys are missing on this node, that is a problem to tell of, and the zone is signed with
// what there is: other keys of the zone, else the keys that were in use before. Without any it is served unsigned: those who validate
// will not accept it, and all others get answers.
func (x *index) sign(z *zone, snap *topology.Snapshot, keys *dnssec.Keyring, epoch int64, before *index) {
	name := strings.TrimSuffix(z.name, ".")
	signing := snap.Signing[name]
	if signing == nil || len(signing.Keys) == 0 {
		return
	}
	options := dnssec.Options{TTL: seconds(z.topology.TTL), Once: x.once}
	if before != nil && before.zones[z.wire] != nil {
		options.Inherit = before.zones[z.wire].signer
	}
	signer, err := dnssec.NewSigner(name, signing, keys, options)
	if err != nil {
		x.problems = append(x.problems, err.Error())
	}
	if signer == nil {
		signer = options.Inherit
	}
	if z.signer, z.keyless = signer, signer == nil; signer != nil {
		signer.Drop(timeOf(epoch + 1))
	}
}

// addStatic adds the apex, the static records, the addresses of name servers, and the delegation from our own parent zone.
func (x *index) addStatic(z *zone) {
	apex := x.add(z, z.name)
	apex.put(z.soa)
	apex.sets[dns.TypeNS] = z.nameservers
	for _, rr := range z.topology.Parsed(strings.TrimSuffix(z.name, ".")) {
		rr = dns.Copy(rr)
		rr.Header().Name = strings.ToLower(rr.Header().Name)
		x.add(z, rr.Header().Name).put(rr)
	}
	for host, addrs := range z.topology.Nameservers {
		if x.zoneOf(wireName(host+".")) == z {
			x.addAddresses(x.add(z, host+"."), addrs, seconds(z.topology.TTL))
		}
	}
	if z.signer != nil {
		for _, records := range [][]dns.RR{z.signer.DNSKEY(), z.signer.CDS(), z.signer.CDNSKEY()} {
			for _, rr := range records {
				apex.put(rr)
			}
		}
	}
	if z.parent != nil {
		x.delegate(z.parent, z)
	}
}

// delegate makes the records by which a parent zone of ours points to a zone of ours, as far as they are not among its own.
func (x *index) delegate(parent, z *zone) {
	cut := x.add(parent, z.name)
	if cut.sets[dns.TypeNS] == nil {
		cut.sets[dns.TypeNS] = z.nameservers
		for host, addrs := range z.topology.Nameservers {
			if host := host + "."; dns.IsSubDomain(z.name, host) {
				x.addAddresses(x.add(parent, host), addrs, seconds(z.topology.TTL))
			}
		}
	}
	if cut.sets[dns.TypeDS] == nil && z.signer != nil {
		for _, ds := range z.signer.DS() {
			cut.put(ds)
		}
	}
}

func (x *index) addAddresses(n *node, addrs []netip.Addr, ttl uint32) {
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if n.sets[rrtype] == nil {
			if rrs := addressRecords(nil, n.zone.header(n.name, rrtype, ttl), addrs); rrs != nil {
				n.sets[rrtype] = rrs
			}
		}
	}
}

func (x *index) addService(t *router.Table, id router.ServiceID) {
	name, declared := t.ServiceByID(id)
	s := &service{name: strings.ToLower(name) + ".", id: id, ttl: seconds(declared.Steering.TTL), topology: declared}
	z := x.zoneOf(wireName(s.name))
	if z == nil {
		return // validation requires one
	}
	x.add(z, s.name).service = s
	x.add(z, "explain."+s.name).explain = s
	for _, c := range t.Candidates(id) {
		pop, p := t.PoP(c)
		x.addAddresses(x.add(z, pop+"."+s.name), p.Addresses, s.ttl)
		for _, a := range p.Addresses {
			s.note(a)
		}
	}
	for _, policy := range declared.Steering.Policies() {
		if policy.Anycast != nil {
			for _, a := range policy.Anycast.VIPs {
				s.note(a)
			}
		}
	}
}

// note notes that some choice of a service has an address.
func (s *service) note(a netip.Addr) {
	s.has[router.Either] = true
	if a.Is4() {
		s.has[router.IPv4] = true
	} else {
		s.has[router.IPv6] = true
	}
}

// finish adds the empty non-terminals (RFC 4592 section 2.2.2), finds the cuts, and lists the types of each name.
func (x *index) finish(z *zone) {
	for _, n := range slices.Collect(maps.Values(z.nodes)) {
		for name := n.wire; name != z.wire; {
			name = parent(name)
			if z.nodes[name] != nil {
				break
			}
			x.add(z, presentation(name))
		}
	}
	for _, n := range z.nodes {
		n.cut = n.sets[dns.TypeNS] != nil && n.wire != z.wire
	}
	for _, n := range z.nodes {
		n.types = slices.Sorted(maps.Keys(n.sets))
		if n.service != nil {
			for f, rrtype := range familyTypes {
				if n.service.has[f] {
					n.types = append(n.types, rrtype)
				}
			}
		}
		if n.explain != nil {
			n.types = append(n.types, dns.TypeTXT)
		}
		slices.Sort(n.types)
		if z.cutAbove(n.wire) == nil {
			n.prepare(x.answers)
			x.quick[n.wire] = n
		}
	}
}

// cutAbove returns the delegation that a name lies in or at, the one nearest to the apex, or nil.
func (z *zone) cutAbove(wire string) *node {
	var cut *node
	for name := wire; name != z.wire; name = parent(name) {
		if n := z.nodes[name]; n != nil && n.cut {
			cut = n
		}
	}
	return cut
}

// zoneOf returns the closest zone that a name on the wire lies in, or nil.
func (x *index) zoneOf(wire string) *zone {
	for ; wire != ""; wire = parent(wire) {
		if z := x.zones[wire]; z != nil {
			return z
		}
	}
	return nil
}

// The types that are steered, by family.
var familyTypes = [...]uint16{router.IPv4: dns.TypeA, router.IPv6: dns.TypeAAAA, router.Either: dns.TypeHTTPS}

// wireName returns a fully qualified name as it stands on the wire, in lower case. What is no name, which validation lets nobody
// write, is the empty string.
func wireName(name string) string {
	var octets [longestName]byte
	n, err := dns.PackDomainName(name, octets[:], 0, nil, false)
	if err != nil {
		return ""
	}
	lower(&octets, octets[:n]) // here, where no letter hides in an escape such as \065
	return string(octets[:n])
}

// presentation returns a name on the wire in presentation form, fully qualified.
func presentation(wire string) string {
	name, _, err := dns.UnpackDomainName([]byte(wire), 0)
	if err != nil {
		return "."
	}
	return name
}

// parent returns a name on the wire without its first label; the root has the empty string for one.
func parent(wire string) string {
	if wire == "" || wire[0] == 0 {
		return ""
	}
	return wire[1+int(wire[0]):]
}

func seconds(d topology.Duration) uint32 { return uint32(int64(d) / 1e9) }

// addressRecords appends a record for each address that is of the header's type, A or AAAA.
func addressRecords(records []dns.RR, h dns.RR_Header, addrs []netip.Addr) []dns.RR {
	for _, addr := range addrs {
		switch {
		case h.Rrtype == dns.TypeA && addr.Is4():
			records = append(records, &dns.A{Hdr: h, A: addr.AsSlice()})
		case h.Rrtype == dns.TypeAAAA && addr.Is6():
			records = append(records, &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()})
		}
	}
	return records
}

// httpsRecord makes a record in ServiceMode (RFC 9460 section 2.4.3) for a PoP.
func httpsRecord(h dns.RR_Header, priority int, target string, p *topology.PoP) dns.RR {
	record := &dns.HTTPS{SVCB: dns.SVCB{Hdr: h, Priority: uint16(priority), Target: target}}
	record.Value = append(record.Value, &dns.SVCBAlpn{Alpn: []string{"h3", "h2"}})
	if p.Port != 443 {
		record.Value = append(record.Value, &dns.SVCBPort{Port: p.Port})
	}
	var v4 dns.SVCBIPv4Hint
	var v6 dns.SVCBIPv6Hint
	for _, a := range p.Addresses {
		if a.Is4() {
			v4.Hint = append(v4.Hint, a.AsSlice())
		} else {
			v6.Hint = append(v6.Hint, a.AsSlice())
		}
	}
	if v4.Hint != nil {
		record.Value = append(record.Value, &v4)
	}
	if v6.Hint != nil {
		record.Value = append(record.Value, &v6)
	}
	return record
}

// steered returns the records that a steered name answers for choices, best first.
func (n *node) steered(t *router.Table, rrtype uint16, choices []router.Choice) []dns.RR {
	var records []dns.RR
	header := n.zone.header(n.name, rrtype, n.service.ttl)
	for rank, c := range choices {
		pop, p := t.PoP(c)
		if rrtype == dns.TypeHTTPS {
			target := pop + "." + n.name
			if t.IsVIP(c) {
				target = "." // the name itself, whose addresses they are (RFC 9460 section 2.5.2)
			}
			records = append(records, httpsRecord(header, rank+1, target, p))
		} else {
			records = addressRecords(records, header, p.Addresses)
		}
	}
	return records
}

// sortedNodes returns the zone's names in canonical order (RFC 4034 section 6.1).
func (z *zone) sortedNodes() []*node {
	return slices.SortedFunc(maps.Values(z.nodes), func(a, b *node) int { return compareNames(a.wire, b.wire) })
}

// compareNames compares two names on the wire, in lower case, in canonical order.
func compareNames(a, b string) int {
	return slices.CompareFunc(labels(a), labels(b), func(x, y string) int { return cmp.Compare(x, y) })
}

// labels returns the labels of a name on the wire, the highest first.
func labels(wire string) []string {
	var found []string
	for ; wire != "" && wire[0] != 0; wire = parent(wire) {
		found = append(found, wire[1:1+wire[0]])
	}
	slices.Reverse(found)
	return found
}
