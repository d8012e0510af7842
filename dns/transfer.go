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

// transferred returns the records of a transfer of the zone that is asked for, or nil when there is none to be had: one SOA record
// where the asker has the zone already (RFC 1995 section 2), all of the zone otherwise. A zone that is without its signatures here is
// not given away: a secondary would keep it as it is, since the serial does not tell, and validators accept it from nobody.
func (sv *serving) transferred(q *question, now time.Time) ([]dns.RR, error) {
	z := sv.index.zones[string(q.name())]
	if z == nil {
		return nil, nil
	}
	if z.keyless {
		return nil, errKeyless
	}
	if q.qtype == dns.TypeIXFR {
		var m dns.Msg
		if err := m.Unpack(q.packet); err != nil {
			return nil, err
		}
		if len(m.Ns) == 1 {
			if soa, ok := m.Ns[0].(*dns.SOA); ok && soa.Serial == z.soa.Serial {
				return []dns.RR{z.soa}, nil
			}
		}
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
	var (
		records []dns.RR
		names   []*node // those with authoritative data
	)
	a.put(&records, z, []dns.RR{z.soa}, false)
	for _, n := range z.sortedNodes() {
		cut := z.cutAbove(n.wire)
		if cut != nil && cut != n { // glue
			for _, set := range n.sets {
				records = append(records, set...)
			}
			continue
		}
		if len(n.types) > 0 {
			names = append(names, n)
		}
		for _, set := range z.transferredSets(calm, n) {
			rrtype := set[0].Header().Rrtype
			switch {
			case rrtype == dns.TypeSOA:
			case n.cut && rrtype != dns.TypeDS:
				records = append(records, set...)
			default:
				a.put(&records, z, set, false)
			}
		}
	}
	if z.signer != nil {
		for i, n := range names {
			types := n.nsec(n.name, 0).TypeBitMap
			a.put(&records, z, []dns.RR{dnssec.NSEC(n.name, names[(i+1)%len(names)].name, types, z.negativeTTL())}, false)
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
		if n.explain != nil {
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
func (w *worker) sendTransfer(records []dns.RR, t *transaction, send func([]byte) error) error {
	w.counts.transfers.Add(1)
	w.server.config.Log.Info("zone transfer", "zone", strings.TrimSuffix(records[0].Header().Name, "."), "serial", records[0].(*dns.SOA).Serial, "records", len(records))
	m := w.head()
	m.Authoritative, m.Compress = true, true
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
		m.Question = nil // RFC 5936 section 2.2.1
	}
	return nil
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
