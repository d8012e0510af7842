package dns

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// The full path: it can answer everything, by building a message of package miekg/dns.

// maxHops bounds how many CNAME records of ours an answer follows.
const maxHops = 8

// reply is an answer in the making.
type reply struct {
	serving *serving
	now     time.Time
	wire    string // the name that is asked for, in lower case, on the wire
	qtype   uint16
	do      bool // signatures are wanted
	co      bool // and NXDOMAIN is, for a name that does not exist (RFC 9824 section 6)
	from    netip.Addr
	subnet  netip.Prefix // of the client; invalid for none, or one that says nothing

	rcode  int
	aa     bool
	answer []dns.RR
	ns     []dns.RR
	extra  []dns.RR
	scope  uint8 // of the client subnet
	ede    *dns.EDNS0_EDE

	decision router.Answer // of a steered name

	failed error // a signature that could not be made
}

// fail sets an error code with an Extended DNS Error (RFC 8914).
func (a *reply) fail(rcode int, code uint16, text string) {
	a.rcode, a.ede = rcode, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text}
}

// put appends a record set to a section, with its signatures where they are wanted. Once is for names that askers make up.
func (a *reply) put(section *[]dns.RR, z *zone, rrs []dns.RR, once bool) {
	*section = appendCopies(*section, rrs)
	if !a.do || z.signer == nil || len(rrs) == 0 {
		return
	}
	sign := z.signer.Sign
	if once {
		sign = z.signer.SignOnce
	}
	signatures, err := sign(rrs, a.now)
	if err != nil {
		a.failed = err
		return
	}
	*section = append(*section, signatures...)
}

// appendCopies appends copies of records that others may pack at the same time: packing writes into a record.
func appendCopies(section, rrs []dns.RR) []dns.RR {
	for _, rr := range rrs {
		section = append(section, dns.Copy(rr))
	}
	return section
}

// resolve fills in the answer for a name; the first is the one that was asked for, later ones are where CNAME records point.
func (a *reply) resolve(wire string, hops int) {
	x := a.serving.index
	z := x.zoneOf(wire)
	if z == nil {
		if hops == 0 {
			a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeNotAuthoritative, "")
		}
		return
	}
	if a.qtype == dns.TypeDS && wire == z.wire && z.parent != nil {
		z = z.parent // DS stands on the parent's side (RFC 4035 section 3.1.4.1)
	}
	if cut := z.cutAbove(wire); cut != nil && !(a.qtype == dns.TypeDS && cut.wire == wire) {
		if hops == 0 {
			a.refer(z, cut)
		}
		return
	}
	a.aa = true
	n, name, once := z.nodes[wire], "", false
	if n == nil {
		if n = a.serving.challenges.find(wire, a.now); n == nil {
			n = z.wildcard(wire)
		}
		if n == nil {
			a.nonexistent(z, wire)
			return
		}
		name, once = presentation(wire), true
	} else {
		name = n.name
	}
	a.records(n, name, once, hops)
}

// wildcard returns the wildcard that a name which does not exist is answered from (RFC 4592 section 3.3.1), or nil.
func (z *zone) wildcard(wire string) *node {
	for encloser := parent(wire); ; encloser = parent(encloser) {
		if z.nodes[encloser] != nil || encloser == z.wire {
			return z.nodes["\x01*"+encloser]
		}
	}
}

// records fills in what a name answers. Name is the owner's, which is not the node's for a wildcard.
func (a *reply) records(n *node, name string, once bool, hops int) {
	if set := n.sets[a.qtype]; set != nil {
		a.put(&a.answer, n.zone, owned(set, name, once), once)
		if a.qtype == dns.TypeNS {
			a.glue(n.zone, set)
		}
		return
	}
	if set := n.sets[dns.TypeCNAME]; set != nil && !(n.zone.signer != nil && besideCNAME(a.qtype)) {
		if a.has(name, dns.TypeCNAME) { // the chain is a loop, and all of it is in the answer
			return
		}
		a.put(&a.answer, n.zone, owned(set, name, once), once)
		if hops < maxHops && a.qtype != dns.TypeANY { // ANY is content with the CNAME record (RFC 8482 section 4.2)
			a.resolve(wireName(set[0].(*dns.CNAME).Target), hops+1)
		}
		return
	}
	family, ok := familyOf(a.qtype)
	switch {
	case n.service != nil && ok && n.service.has[family]:
		a.steer(n, family)
	case n.explain != nil && a.qtype == dns.TypeTXT:
		a.explain(n)
	case a.qtype == dns.TypeANY: // RFC 8482 section 4.2
		a.put(&a.answer, n.zone, []dns.RR{&dns.HINFO{Hdr: n.zone.header(name, dns.TypeHINFO, n.zone.soa.Minttl), Cpu: "RFC8482"}}, once)
	case a.qtype == dns.TypeNSEC && n.zone.signer != nil:
		a.put(&a.answer, n.zone, []dns.RR{n.nsec(name, 0)}, once)
	case a.qtype == dns.TypeRRSIG && n.zone.signer != nil: // those of one record set, in the spirit of RFC 8482
		if signatures, err := n.zone.signer.SignOnce([]dns.RR{n.nsec(name, 0)}, a.now); err == nil {
			a.answer = append(a.answer, signatures...)
		}
	default:
		a.nodata(n, name, 0, once)
	}
}

// besideCNAME reports whether a type may stand beside a CNAME record (RFC 4034 sections 3 and 4).
func besideCNAME(rrtype uint16) bool { return rrtype == dns.TypeNSEC || rrtype == dns.TypeRRSIG }

// has reports whether the answer has a record of a name already.
func (a *reply) has(name string, rrtype uint16) bool {
	return slices.ContainsFunc(a.answer, func(rr dns.RR) bool { return rr.Header().Rrtype == rrtype && rr.Header().Name == name })
}

// owned returns a record set with another owner, for a wildcard.
func owned(set []dns.RR, name string, copied bool) []dns.RR {
	if !copied {
		return set
	}
	records := make([]dns.RR, len(set))
	for i, rr := range set {
		records[i] = dns.Copy(rr)
		records[i].Header().Name = name
	}
	return records
}

// nsec returns the record that tells all types of a name, but one (RFC 9824 section 3.2). Its time to live is that of negative answers
// (RFC 9077).
func (n *node) nsec(name string, but uint16) *dns.NSEC {
	types := n.types
	if n.cut { // what else stands here is glue
		types = []uint16{dns.TypeNS}
		if n.sets[dns.TypeDS] != nil {
			types = []uint16{dns.TypeNS, dns.TypeDS}
		}
	}
	var listed []uint16
	for _, t := range types {
		if t != but {
			listed = append(listed, t)
		}
	}
	return dnssec.Matching(name, listed, n.zone.negativeTTL())
}

// negativeTTL is how long it may be remembered that something does not exist (RFC 2308 section 5).
func (z *zone) negativeTTL() uint32 { return min(z.soa.Hdr.Ttl, z.soa.Minttl) }

// deny appends the SOA record of a negative answer, and a signed one's proof.
func (a *reply) deny(z *zone, proof *dns.NSEC, once bool) {
	soa := *z.soa
	soa.Hdr.Ttl = z.negativeTTL()
	a.put(&a.ns, z, []dns.RR{&soa}, false)
	if a.do && z.signer != nil {
		a.put(&a.ns, z, []dns.RR{proof}, once)
	}
}

// nodata answers that a name has nothing of the type. But is a type that the name has, and that cannot be had now.
func (a *reply) nodata(n *node, name string, but uint16, once bool) {
	a.deny(n.zone, n.nsec(name, but), once)
}

// nonexistent answers that there is no such name.
func (a *reply) nonexistent(z *zone, wire string) {
	signed := a.do && z.signer != nil
	if !signed || a.co {
		a.rcode = dns.RcodeNameError
	}
	a.deny(z, dnssec.Nonexistent(presentation(wire), z.negativeTTL()), true)
}

// refer answers with a delegation (RFC 1034 section 4.3.2).
func (a *reply) refer(z *zone, cut *node) {
	a.ns = appendCopies(a.ns, cut.sets[dns.TypeNS]) // not ours to sign
	if a.do && z.signer != nil {
		if ds := cut.sets[dns.TypeDS]; ds != nil {
			a.put(&a.ns, z, ds, false)
		} else {
			a.put(&a.ns, z, []dns.RR{cut.nsec(cut.name, 0)}, false)
		}
	}
	a.glue(z, cut.sets[dns.TypeNS])
}

// glue appends the addresses of name servers that lie in the zone (RFC 9471).
func (a *reply) glue(z *zone, servers []dns.RR) {
	for _, rr := range servers {
		host := z.nodes[wireName(rr.(*dns.NS).Ns)]
		if host == nil {
			continue
		}
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
			if z.cutAbove(host.wire) != nil {
				a.extra = appendCopies(a.extra, host.sets[t])
			} else {
				a.put(&a.extra, z, host.sets[t], false)
			}
		}
	}
}

// steer fills in the records that the router chooses for the client.
func (a *reply) steer(n *node, family router.Family) {
	client, bySubnet := a.client(n.service)
	a.decision = router.Decide(a.serving.view, n.service.id, family, client, nil)
	if bySubnet {
		a.scope = a.decision.ScopeBits
	}
	if a.decision.Outcome == router.NoneAllowed {
		a.aa = false
		a.answer = nil
		a.fail(dns.RcodeServerFailure, dns.ExtendedErrorCodeProhibited, "rules and operators leave this client no PoP of the service")
		return
	}
	a.chosen(n, a.decision.Choices[:a.decision.N])
}

// client is whom a service's answer is chosen for.
func (a *reply) client(s *service) (client netip.Prefix, bySubnet bool) {
	if a.subnet.IsValid() && s.topology.Steering.ECS == topology.UseECS {
		return a.subnet, true
	}
	return netip.PrefixFrom(a.from, a.from.BitLen()), false
}

// chosen fills in the records of choices; none is an answer without records.
func (a *reply) chosen(n *node, choices []router.Choice) {
	if len(choices) == 0 {
		a.nodata(n, n.name, a.qtype, false)
		return
	}
	once := len(choices) > 1 && a.serving.index.answers.tuples.len() >= maxTuples // no longer kept for good
	a.put(&a.answer, n.zone, n.steered(a.serving.view.Table, a.qtype, choices), once)
}

// make packs the answer of a name for a type, and for choices if it is steered; none stands for one that cannot be had now.
func (sv *serving) make(n *node, t typed, choices []router.Choice, do bool, now time.Time) (*packed, error) {
	a := &reply{serving: sv, now: now, wire: n.wire, qtype: t.rrtype, do: do}
	if t.kind == steered {
		a.chosen(n, choices)
	} else {
		a.records(n, n.name, false, 0)
	}
	if a.failed != nil {
		return nil, a.failed
	}
	m := &dns.Msg{
		Question: []dns.Question{{Name: n.name, Qtype: t.rrtype, Qclass: dns.ClassINET}},
		Answer:   a.answer, Ns: a.ns, Extra: a.extra, Compress: true,
	}
	octets, err := m.Pack()
	if err != nil {
		return nil, err
	}
	p := &packed{records: octets[headerSize+len(n.wire)+4:], counts: [6]byte(octets[6:]), pop: noPoP}
	if len(choices) > 0 {
		p.pop = sv.popCounter[choices[0]]
	}
	return p, nil
}

// learn makes the answer that the fast path lacked for a question, if it is one that the fast path may send, and keeps it.
func (sv *serving) learn(n *node, t typed, choices []router.Choice, do bool, now time.Time) error {
	kept := t.static
	if t.kind == steered && len(choices) > 0 {
		if sv.index.answers.find(t.id, choices, do) != nil {
			return nil
		}
		kept = nil
	} else if kept[signedIndex(do)].Load() != nil {
		return nil
	}
	p, err := sv.make(n, t, choices, do, now)
	if err != nil {
		return err
	}
	if kept != nil {
		kept[signedIndex(do)].CompareAndSwap(nil, p)
	} else {
		sv.index.answers.keep(t.id, choices, do, p)
	}
	return nil
}
