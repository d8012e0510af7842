package dns

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/router"
)

// transferSize is about how many octets a message of a zone transfer has.
const transferSize = 16 << 10

var errKeyless = errors.New("this node has no private keys of it")

// mayTransfer reports whether an asker may have whole zones.
func (sv *serving) mayTransfer(from netip.Addr, t *transaction) bool {
	if t != nil {
		return t.rcode == 0
	}
	for _, p := range sv.settings.Transfer {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// since returns the SOA record that an asker for IXFR has, or nil when it tells none. The error is that the packet cannot be read.
func (q *question) since() (*dns.SOA, error) {
	var m dns.Msg
	if err := m.Unpack(q.packet); err != nil || len(m.Ns) != 1 {
		return nil, err
	}
	soa, _ := m.Ns[0].(*dns.SOA)
	return soa, nil
}

// transferred returns the records of a transfer of the zone that is asked for, or nil when there is none to be had: one SOA record
// where the asker has the zone already, or a newer one (RFC 1995 section 2), all of the zone otherwise. A zone that is without its
// signatures here is not given away: a secondary would keep it as it is, since the serial does not tell, and validators accept it from
// nobody.
func (sv *serving) transferred(q *question, since *dns.SOA, now time.Time) ([]dns.RR, error) {
	z := sv.index.zones[string(q.name())]
	if z == nil {
		return nil, nil
	}
	if z.keyless {
		return nil, errKeyless
	}
	// Numbers are compared by RFC 1982. An asker may be ahead of us: another primary has told it of a change.
	if since != nil && int32(z.soa.Serial-since.Serial) <= 0 {
		return []dns.RR{z.soa}, nil
	}
	z.transfer.Lock()
	defer z.transfer.Unlock()
	if z.content == nil {
		content, err := sv.content(z, now)
		if err != nil {
			return nil, err
		}
		z.content = content
	}
	return z.content, nil
}

// content lists the records of a zone as others serve it, who know no clients: with the default answer of steered names, signed, and
// with a chain of NSEC records instead of proofs on demand. It begins and ends with the SOA record.
func (sv *serving) content(z *zone, now time.Time) ([]dns.RR, error) {
	a := &reply{serving: sv, now: now, do: true}
	calm := &router.View{Table: sv.view.Table, State: router.NewState(sv.view.Table, router.Inputs{Now: now})}
	var records, chain []dns.RR
	a.put(&records, z, []dns.RR{z.soa}, false)
	for _, n := range z.sortedNodes() {
		if cut := z.cutAbove(n.wire); cut != nil && cut != n { // glue, and what a delegation hides (RFC 5936 section 3.5)
			for _, rrtype := range n.types {
				records = append(records, n.sets[rrtype]...)
			}
			continue
		}
		var types []uint16 // with authority
		for _, set := range z.transferredSets(calm, n) {
			rrtype := set[0].Header().Rrtype
			if !n.cut || rrtype == dns.TypeNS || rrtype == dns.TypeDS {
				types = append(types, rrtype)
			}
			switch {
			case rrtype == dns.TypeSOA:
			case n.cut && rrtype != dns.TypeDS:
				records = append(records, set...)
			default:
				a.put(&records, z, set, false)
			}
		}
		if len(types) > 0 {
			chain = append(chain, dnssec.NSEC(n.name, z.name, types, z.negativeTTL()))
		}
	}
	if z.signer != nil {
		for i, rr := range chain { // the last points to the apex
			if i+1 < len(chain) {
				rr.(*dns.NSEC).NextDomain = chain[i+1].Header().Name
			}
			a.put(&records, z, []dns.RR{rr}, false)
		}
	}
	return append(records, z.soa), a.failed
}

// transferredSets lists the record sets of a name.
func (z *zone) transferredSets(calm *router.View, n *node) [][]dns.RR {
	var sets [][]dns.RR
	for _, rrtype := range n.types {
		if set := n.sets[rrtype]; set != nil {
			sets = append(sets, set)
			continue
		}
		if n.explain != nil && rrtype == dns.TypeTXT {
			sets = append(sets, []dns.RR{&dns.TXT{Hdr: z.header(n.name, rrtype, z.soa.Minttl), Txt: []string{"explained by the primary server only"}}})
			continue
		}
		family, _ := familyOf(rrtype)
		nobody := netip.IPv4Unspecified()
		if family == router.IPv6 {
			nobody = netip.IPv6Unspecified()
		}
		d := router.Decide(calm, n.service.id, family, netip.PrefixFrom(nobody, nobody.BitLen()), nil)
		if set := n.steered(calm.Table, rrtype, d.Choices[:d.N]); set != nil {
			sets = append(sets, set)
		}
	}
	return sets
}

// sendTransfer sends records in as many messages as it takes.
func (w *worker) sendTransfer(records []dns.RR, from netip.Addr, over Transport, t *transaction, send func([]byte) error) error {
	w.counts.transfers.Add(1)
	w.server.config.Log.Info("zone transfer", "zone", strings.TrimSuffix(records[0].Header().Name, "."), "serial", records[0].(*dns.SOA).Serial, "records", len(records),
		"to", from, "key", t.keyName())
	m := w.head()
	m.Authoritative, m.Compress = true, true
	if w.q.edns { // in the first message (RFC 5936 section 2.2.5)
		m.Extra = []dns.RR{w.options(&reply{}, over)}
	}
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size < transferSize) {
			size += dns.Len(records[n])
			n++
		}
		m.Answer = appendCopies(nil, records[:n])
		records = records[n:]
		packet, err := w.authenticated(m, t)
		if err != nil {
			return err
		}
		if err := send(packet); err != nil {
			return err
		}
		m.Question, m.Extra = nil, nil // RFC 5936 section 2.2.1
	}
	return nil
}

// noTransfer answers who asked for a transfer and gets none.
func (w *worker) noTransfer(a *reply, over Transport, t *transaction) {
	w.server.config.Log.Debug("zone transfer refused", "zone", presentation(a.wire), "to", a.from, "key", t.keyName(), "over", over)
	switch {
	case over == UDP || over == HTTPS || !w.serving.mayTransfer(a.from, t):
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "no transfer of this zone by this way to this address")
	case w.serving.index.zones[a.wire] == nil: // RFC 5936 section 2.2.1
		a.fail(dns.RcodeNotAuth, dns.ExtendedErrorCodeNotAuthoritative, "")
	default:
		a.fail(dns.RcodeServerFailure, dns.ExtendedErrorCodeOther, "the zone cannot be transferred now")
	}
}

// head is an answer's header and question, in the asker's case, since a signature covers it.
func (w *worker) head() *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.Opcode, m.Response = uint16(w.q.packet[0])<<8|uint16(w.q.packet[1]), int(w.q.opcode), true
	m.RecursionDesired, m.CheckingDisabled = w.q.rd, w.q.cd
	if w.q.asked {
		section := w.q.section()
		m.Question = []dns.Question{{Name: presentation(string(section[:w.q.length])), Qtype: w.q.qtype, Qclass: w.q.class}}
	}
	return m
}

// authenticated packs a message, with a TSIG record if the exchange is authenticated.
func (w *worker) authenticated(m *dns.Msg, t *transaction) ([]byte, error) {
	if t == nil {
		return m.Pack()
	}
	return t.sign(m, w.server.now())
}
