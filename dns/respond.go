package dns

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// maxUDP is the largest answer over UDP, and what we say that we can receive: what no path fragments (RFC 9715).
const maxUDP = 1232

// responder answers questions by one view.
type responder struct {
	view  *router.View
	index *index
}

// reply is an answer in the making.
type reply struct {
	*dns.Msg
	query *query
	scope uint8          // of the client subnet option, if one is sent back
	ede   *dns.EDNS0_EDE // nil for none
}

// respond answers a packet that came from an address; nil means that it deserves no answer. The result may be too long for
// UDP: see pack. A responder without a view answers SERVFAIL.
func (r responder) respond(packet []byte, from netip.Addr) *reply {
	q, err := parseQuery(packet)
	if errors.Is(err, errIgnore) {
		return nil
	}
	a := &reply{Msg: new(dns.Msg), query: &q}
	a.Id, a.Opcode, a.Response = q.id, q.opcode, true
	a.RecursionDesired, a.CheckingDisabled = q.rd, q.cd
	if q.name != "" {
		a.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: q.class}}
	}
	switch {
	case err != nil:
		a.Rcode = dns.RcodeFormatError
	case q.opcode != dns.OpcodeQuery:
		a.Rcode = dns.RcodeNotImplemented
	case q.edns != nil && q.edns.version != 0:
		a.Rcode = dns.RcodeBadVers
	case r.view == nil:
		a.fail(dns.RcodeServerFailure, dns.ExtendedErrorCodeNotReady, "no topology has been read yet")
	case q.class != dns.ClassINET:
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported, "class IN only")
	case q.qtype == dns.TypeAXFR || q.qtype == dns.TypeIXFR:
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "no zone transfers")
	default:
		r.answer(a, from)
	}
	return a
}

// answer fills in the answer to a question for data.
func (r responder) answer(a *reply, from netip.Addr) {
	name := strings.ToLower(strings.TrimSuffix(a.query.name, "."))
	z := r.index.zone(name)
	if z == nil {
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeNotAuthoritative, "")
		return
	}
	a.Authoritative = true
	o := r.index.names[name]
	switch {
	case o == nil:
		a.Rcode = dns.RcodeNameError
	case a.query.qtype == dns.TypeANY:
		// RFC 8482 section 4.2
		a.Answer = append(a.Answer, &dns.HINFO{Hdr: a.header(dns.TypeHINFO, seconds(z.NegativeTTL)), Cpu: "RFC8482"})
	default:
		r.records(a, z, o, from)
	}
	if len(a.Answer) == 0 && (a.Rcode == dns.RcodeSuccess || a.Rcode == dns.RcodeNameError) {
		negative := z.soa()
		negative.Hdr.Ttl = min(negative.Hdr.Ttl, negative.Minttl) // RFC 2308 section 3
		a.Ns = append(a.Ns, negative)
	}
}

// records fills in the records of a name that exists.
func (r responder) records(a *reply, z *zone, o *owner, from netip.Addr) {
	switch t := a.query.qtype; {
	case t == dns.TypeSOA && o.apex:
		a.Answer = append(a.Answer, z.soa())
		a.Answer[0].Header().Name = a.query.name
	case t == dns.TypeNS && o.apex:
		r.nameservers(a, z)
	case t == dns.TypeA || t == dns.TypeAAAA:
		if o.steered {
			r.steer(a, o.service, from)
			return
		}
		a.Answer = appendAddresses(a.Answer, a.header(t, o.ttl), o.addrs)
	case t == dns.TypeHTTPS && o.steered:
		r.steer(a, o.service, from)
	}
}

func (r responder) nameservers(a *reply, z *zone) {
	for _, host := range z.nameservers {
		a.Answer = append(a.Answer, &dns.NS{Hdr: a.header(dns.TypeNS, seconds(z.TTL)), Ns: host + "."})
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
			h := dns.RR_Header{Name: host + ".", Rrtype: t, Class: dns.ClassINET, Ttl: seconds(z.TTL)}
			a.Extra = appendAddresses(a.Extra, h, z.Nameservers[host])
		}
	}
}

// steer fills in the records that the router chooses for the client.
func (r responder) steer(a *reply, id router.ServiceID, from netip.Addr) {
	t := r.view.Table
	name, service := t.ServiceByID(id)
	client := netip.PrefixFrom(from, from.BitLen())
	bySubnet := false
	if e := a.query.edns; e != nil && e.subnet != nil && e.subnet.prefix.IsValid() && e.subnet.prefix.Bits() > 0 && service.Steering.ECS == topology.UseECS {
		client, bySubnet = e.subnet.prefix, true
	}
	family := map[uint16]router.Family{dns.TypeA: router.IPv4, dns.TypeAAAA: router.IPv6, dns.TypeHTTPS: router.Either}[a.query.qtype]
	decision := router.Decide(r.view, id, family, client, nil)
	if bySubnet {
		a.scope = decision.ScopeBits
	}
	if decision.Outcome == router.NoneAllowed {
		a.Authoritative = false
		a.fail(dns.RcodeServerFailure, dns.ExtendedErrorCodeProhibited, "rules and operators leave this client no PoP of the service")
		return
	}
	header := a.header(a.query.qtype, seconds(service.Steering.TTL))
	for rank, c := range decision.Choices[:decision.N] {
		pop, p := t.PoP(c)
		if family == router.Either {
			a.Answer = append(a.Answer, https(header, rank+1, pop+"."+name+".", p.Addresses, p.Port))
		} else {
			a.Answer = appendAddresses(a.Answer, header, p.Addresses)
		}
	}
}

// https makes a record in ServiceMode (RFC 9460 section 2.4.3) for a PoP.
func https(h dns.RR_Header, priority int, target string, addrs []netip.Addr, port uint16) dns.RR {
	record := &dns.HTTPS{SVCB: dns.SVCB{Hdr: h, Priority: uint16(priority), Target: target}}
	record.Value = append(record.Value, &dns.SVCBAlpn{Alpn: []string{"h3", "h2"}})
	if port != 443 {
		record.Value = append(record.Value, &dns.SVCBPort{Port: port})
	}
	var v4 dns.SVCBIPv4Hint
	var v6 dns.SVCBIPv6Hint
	for _, a := range addrs {
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

// appendAddresses appends the addresses that are of the header's type, A or AAAA.
func appendAddresses(records []dns.RR, h dns.RR_Header, addrs []netip.Addr) []dns.RR {
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

// soa is the zone's SOA record. Its timers are for secondaries, of which there are none yet.
func (z *zone) soa() *dns.SOA {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: z.name + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: seconds(z.TTL)},
		Ns:  z.nameservers[0] + ".", Mbox: z.Hostmaster + ".", Serial: z.serial,
		Refresh: 3600, Retry: 600, Expire: 1209600, Minttl: seconds(z.NegativeTTL),
	}
}

// header is that of a record of the name that was asked for, in the asker's case.
func (a *reply) header(rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: a.query.name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// fail sets an error code with an Extended DNS Error (RFC 8914).
func (a *reply) fail(rcode int, code uint16, text string) {
	a.Rcode, a.ede = rcode, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text}
}

// pack returns the packet to send: over UDP truncated to what the asker can receive.
func (a *reply) pack(udp bool) ([]byte, error) {
	limit := dns.MaxMsgSize
	if e := a.query.edns; e != nil {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(maxUDP)
		opt.SetDo(e.do)
		if e.subnet != nil && a.Rcode != dns.RcodeBadVers {
			opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: e.subnet.reply(a.scope)})
		}
		if a.ede != nil {
			opt.Option = append(opt.Option, a.ede)
		}
		a.Extra = append(a.Extra, opt)
		if udp {
			limit = int(min(max(e.size, dns.MinMsgSize), maxUDP))
		}
	} else if udp {
		limit = dns.MinMsgSize
	}
	a.Compress = true
	a.Truncate(limit)
	return a.Pack()
}
