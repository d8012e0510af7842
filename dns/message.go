package dns

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
)

// message is an answer before it is packed.
type message struct {
	dns.Msg
	rcode       int // all 12 bits
	opt         *dns.OPT
	padding     bool
	transaction *transaction // nil for none
}

// message makes the answer of the full path.
func (w *worker) message(kind form, from netip.Addr, over Transport, t *transaction) *message {
	q, sv := w.q, w.serving
	m := &message{Msg: *w.head(), transaction: t}
	m.Compress = true
	a := &reply{serving: sv, now: time.Unix(int64(w.unix), 0), from: from, qtype: q.qtype, do: q.edns && q.do, co: q.co}
	if q.asked {
		a.wire = string(q.name())
		if t == nil {
			m.Question[0].Name = presentation(a.wire) // the asker's case comes back when it is packed
		}
	}
	a.subnet = q.clientSubnet()
	if t != nil && t.rcode != 0 {
		a.rcode = dns.RcodeNotAuth // RFC 8945 section 5.2
		w.server.config.Log.Debug("TSIG refused", "from", from, "key", t.keyName(), "error", dns.RcodeToString[int(t.rcode)])
	} else {
		w.decide(a, kind, over, t)
	}
	if a.failed != nil {
		w.counts.failures.Add(1)
		w.server.config.Log.Error("an answer cannot be signed", "name", presentation(a.wire), "error", a.failed)
		*a = reply{serving: sv, scope: a.scope}
		a.fail(dns.RcodeServerFailure, dns.ExtendedErrorCodeOther, "a signature cannot be made")
	}
	m.rcode, m.Authoritative = a.rcode, a.aa
	m.Answer, m.Ns, m.Extra = a.answer, a.ns, a.extra
	if q.edns { // a FORMERR without it would say that we know no EDNS (RFC 6891 section 7)
		m.opt = w.options(a, over)
		m.padding = q.padding && (over == TLS || over == HTTPS)
	}
	w.count(a)
	return m
}

// decide chooses what is answered at all.
func (w *worker) decide(a *reply, kind form, over Transport, t *transaction) {
	q, sv := w.q, w.serving
	switch {
	case q.opcode != dns.OpcodeQuery:
		a.rcode = dns.RcodeNotImplemented
	case kind == malformed:
		a.rcode = dns.RcodeFormatError
	case q.edns && q.version != 0:
		a.rcode = dns.RcodeBadVers
	case !q.asked: // who wants a cookie has got it, and learns whether the old one was good (RFC 7873 section 5.4)
		if len(q.cookie) > clientCookieSize && w.cookieState != validCookie {
			a.rcode = dns.RcodeBadCookie
		}
	case q.class == dns.ClassCHAOS:
		sv.chaos(a)
	case q.class != dns.ClassINET:
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported, "class IN only")
	case q.qtype == typeOPT || q.qtype == typeTSIG || q.qtype == dns.TypeTKEY:
		a.rcode = dns.RcodeFormatError
	case q.qtype == typeNXNAME: // RFC 9824 section 3.5
		a.fail(dns.RcodeFormatError, dns.ExtendedErrorCodeInvalidQueryType, "")
	case q.qtype == dns.TypeMAILA || q.qtype == dns.TypeMAILB:
		a.rcode = dns.RcodeNotImplemented
	case sv.view == nil:
		a.fail(dns.RcodeServerFailure, dns.ExtendedErrorCodeNotReady, "no topology has been read yet")
	case q.qtype == dns.TypeAXFR || q.qtype == dns.TypeIXFR:
		w.noTransfer(a, over, t)
	default:
		a.resolve(a.wire, 0)
		if kind == usual {
			w.learn(a)
		}
	}
}

// learn keeps the answer for the fast path, which has lacked it.
func (w *worker) learn(a *reply) {
	n := w.serving.index.quick[a.wire]
	if n == nil || a.failed != nil {
		return
	}
	t := n.of(w.q.qtype)
	var choices []router.Choice
	switch t.kind {
	case byFullPath:
		return
	case steered:
		if a.decision.Outcome == router.NoneAllowed {
			return
		}
		choices = a.decision.Choices[:a.decision.N]
	}
	if err := w.serving.learn(n, t, choices, a.do, a.now); err != nil {
		a.failed = err
	}
}

// options makes the OPT record of an answer. The order of the options is that of the fast path.
func (w *worker) options(a *reply, over Transport) *dns.OPT {
	q := w.q
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(maxUDP)
	opt.SetDo(q.do)
	if q.co && q.do {
		opt.Hdr.Ttl |= flagCO
	}
	if q.hasSubnet && a.rcode != dns.RcodeBadVers {
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: optionSubnet, Data: slices.Clone(q.subnet.reply(a.scope))})
	}
	if w.cookieState != noCookie {
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: optionCookie, Data: slices.Clone(w.cookie[:])})
	}
	if name := w.serving.settings.NSID; q.nsid && name != "" {
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: optionNSID, Data: []byte(name)})
	}
	if a.ede != nil {
		opt.Option = append(opt.Option, a.ede)
	}
	return opt
}

// count counts an answer of the full path.
func (w *worker) count(a *reply) {
	c := w.counts
	c.rcodes[min(a.rcode, len(c.rcodes)-1)].Add(1)
	c.cookies[w.cookieState].Add(1)
	if w.q.asked {
		c.qtypes[countedType(w.q.qtype)].Add(1)
	}
	if a.decision.N > 0 {
		c.pops[a.serving.popCounter[a.decision.Choices[0]]].Add(1)
		c.scope(&w.q.question, a.scope)
	}
}

// paddingBlock is what answers over encrypted transports are padded to, if the asker has padded (RFC 8467 section 4.1).
const paddingBlock = 468

// pack returns the packet to send: over UDP an empty, truncated one instead of what the asker cannot receive.
func (w *worker) pack(m *message, over Transport) []byte {
	limit := dns.MaxMsgSize
	if over == UDP {
		limit = udpLimit(&w.q.question)
	}
	packet := w.packMessage(m)
	if len(packet) > limit && m.Authoritative && len(m.Extra) > 0 { // the asker can do without (RFC 2181 section 9)
		m.Extra = nil
		packet = w.packMessage(m)
	}
	if len(packet) > limit || packet == nil {
		if packet == nil {
			m.rcode = dns.RcodeServerFailure
		} else {
			m.Truncated = true
			w.counts.truncated.Add(1)
		}
		m.Authoritative = false
		m.Answer, m.Ns, m.Extra = nil, nil, nil
		packet = w.packMessage(m)
	}
	return packet
}

// packMessage packs a message, with its OPT record and the question as it was asked. It returns nil for what cannot be packed.
func (w *worker) packMessage(m *message) []byte {
	message := m.Msg
	message.Rcode = m.rcode // its upper bits go into the OPT record
	if m.opt != nil {
		message.Extra = append(slices.Clip(message.Extra), m.opt)
	}
	t := m.transaction
	if t != nil { // a message that is packed again is signed as if it were the first
		again := *t
		t = &again
	}
	packet, err := w.authenticated(&message, t)
	if err != nil {
		w.counts.failures.Add(1)
		w.server.config.Log.Error("an answer cannot be packed", "question", hex.EncodeToString(w.q.packet), "error", err)
		return nil
	}
	if m.transaction != nil {
		return packet // signed as it is
	}
	if m.padding {
		const head = 4 // of the option
		opt := *m.opt
		opt.Option = append(slices.Clip(opt.Option), &dns.EDNS0_PADDING{Padding: make([]byte, (paddingBlock-(len(packet)+head)%paddingBlock)%paddingBlock)})
		message.Extra[len(message.Extra)-1] = &opt
		if padded, err := message.Pack(); err == nil {
			packet = padded
		}
	}
	copy(packet[headerSize:], w.q.section()) // in the asker's case
	return packet
}
