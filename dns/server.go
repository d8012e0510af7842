package dns

import (
	"encoding/hex"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
)

// Server answers DNS questions. It is safe for concurrent use.
type Server struct {
	config  Config
	began   time.Time
	serving atomic.Pointer[serving]
	workers sync.Pool     // of *worker, for goroutines
	renewed chan struct{} // index or table have been
	changed chan struct{} // index or settings have, for who notifies secondaries
	known   chan *job     // for the full path: questions for names that exist …
	others  chan *job     // … and all others, of which there may be a flood

	connections connections
	http3       addresses // that HTTP/3 is served at

	mu       sync.Mutex // of those who renew what is served
	settings Settings
	popNames []string // by counter; PoPs keep their counter for good
	popsSeen map[string]uint16
	shards   []*counts
	common   *counts // of goroutines
	swaps    swaps
}

// serving is all that answers are made of. It is immutable, but for the answers that its index keeps.
type serving struct {
	view       *router.View // nil before the first
	index      *index       // likewise
	epoch      int64        // of the signatures: see epochLength
	popCounter []uint16     // by router.Choice
	settings   Settings
	jar        cookieJar
	limiter    *limiter // nil for none
}

// New returns a server, which answers SERVFAIL until it has a view.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{config: c, began: c.Now(), common: new(counts), popsSeen: map[string]uint16{}, renewed: make(chan struct{}, 1), changed: make(chan struct{}, 1), known: make(chan *job, maxQueue), others: make(chan *job, maxQueue)}
	s.shards = []*counts{s.common}
	s.workers.New = func() any { return s.newWorker(s.common) }
	s.serving.Store(&serving{jar: newCookieJar(nil)})
	return s
}

func (s *Server) now() time.Time { return s.config.Now() }

func (s *Server) newWorker(c *counts) *worker { return &worker{server: s, counts: c, q: new(inquiry)} }

// newShard returns counts of their own for a thread.
func (s *Server) newShard() *counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := new(counts)
	s.shards = append(s.shards, c)
	return c
}

// Publish takes a new view. Questions are answered from it when Publish returns.
func (s *Server) Publish(view *router.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew(view, false)
}

// Configure takes new settings. They are in force when it returns.
func (s *Server) Configure(c Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rekeyed := !s.settings.Keys.Equal(c.Keys)
	s.settings = c
	s.renew(s.serving.Load().view, rekeyed)
	wake(s.changed) // other secondaries may be told
}

// wake tells whoever waits for a channel of one place, unless it has been told already.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// renew replaces what is served. The index, with its answers, is made anew only when what it is made of has changed. Rekeyed says that
// the private keys are others than before.
func (s *Server) renew(view *router.View, rekeyed bool) {
	old, began := s.serving.Load(), s.now()
	next := *old
	next.view = view
	if view != nil && (old.view == nil || old.view.Table.Snapshot().Signed != view.Table.Snapshot().Signed) {
		rekeyed = s.readKeys() || rekeyed
	}
	next.settings = s.settings
	if !slices.Equal(old.settings.Cookies, s.settings.Cookies) {
		next.jar = newCookieJar(s.settings.Cookies)
	}
	if !old.settings.RateLimit.sameAs(s.settings.RateLimit) {
		next.limiter = newLimiter(s.settings.RateLimit)
	}
	next.epoch = s.now().Unix() / epochLength
	if view != nil && (old.index == nil || rekeyed || next.epoch != old.epoch || !sameNames(view.Table, old.view.Table)) {
		next.index = newIndex(view.Table, s.settings.Keys, next.epoch, old.index)
		next.popCounter = s.countersOf(view.Table)
		for _, problem := range next.index.problems {
			s.config.Log.Error("a zone is not signed as it should be", "problem", problem)
		}
		if old.index != nil {
			next.headStart(began)
		}
	}
	s.serving.Store(&next)
	retabled := view != nil && (old.view == nil || !view.Table.DecidesAs(old.view.Table))
	if next.index != old.index {
		wake(s.changed)
	}
	if next.index != old.index || retabled { // by another table, clients may get other tuples of choices
		wake(s.renewed)
	}
	now := s.now()
	s.swaps.n++
	s.swaps.took += now.Sub(began)
	s.swaps.view = now
	if retabled {
		s.swaps.table = now
	}
}

// readKeys reads the private keys again, and reports whether they are others than before.
func (s *Server) readKeys() bool {
	if s.settings.ReadKeys == nil {
		return false
	}
	keys, err := s.settings.ReadKeys()
	if err != nil {
		s.config.Log.Error("the private keys of zones cannot be read, those that were read before stay in use", "error", err)
		return false
	}
	if s.settings.Keys.Equal(keys) {
		return false
	}
	s.settings.Keys = keys
	return true
}

// check renews the present view when an epoch has ended, and reads the private keys again while some are missing. Nobody can publish
// another view meanwhile, which would be lost.
func (s *Server) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	sv := s.serving.Load()
	if sv.index == nil {
		return
	}
	found := len(sv.index.problems) > 0 && s.readKeys()
	if found || s.now().Unix()/epochLength != sv.epoch {
		s.renew(sv.view, found)
	}
}

// sameNames reports whether two tables have the same zones, services, PoPs and keys.
func sameNames(a, b *router.Table) bool {
	x, y := a.Snapshot(), b.Snapshot()
	return x.Topology == y.Topology && x.Signed == y.Signed && x.Good == y.Good
}

// countersOf returns the counter of each PoP of a table.
func (s *Server) countersOf(t *router.Table) []uint16 {
	counters := make([]uint16, t.PoPs())
	for c := range counters {
		name, _ := t.PoP(router.Choice(c))
		counter, known := s.popsSeen[name]
		switch {
		case known:
		case len(s.popNames) < maxPoPs-1:
			counter = uint16(len(s.popNames))
			s.popNames, s.popsSeen[name] = append(s.popNames, name), counter
		default:
			counter = maxPoPs - 1
		}
		counters[c] = counter
	}
	return counters
}

// Problems tells what is wrong with what is served, such as private keys that are missing. It is empty when all is well.
func (s *Server) Problems() []string {
	sv := s.serving.Load()
	switch {
	case sv.view == nil:
		return []string{"no topology has been read yet"}
	case sv.index == nil:
		return nil
	}
	return sv.index.problems
}

// Answer returns the packet that answers a packet from an address, or nil when it deserves none. Over UDP it is truncated to what
// the asker can receive. It never panics. Of an answer of several messages it returns the first one.
func (s *Server) Answer(packet []byte, from netip.Addr, over Transport) (answer []byte) {
	_ = s.exchange(packet, netip.AddrPortFrom(from, 0), over, func(message []byte) error {
		if answer == nil {
			answer = message
		}
		return nil
	})
	return answer
}

// full answers the packet that w.q was read from by the full path, with the serving and the time of w. It may be called for the same
// packet again, and never panics. The error is that of send.
func (w *worker) full(from netip.Addr, over Transport, send func([]byte) error) error {
	defer func() {
		if p := recover(); p != nil {
			w.counts.panics.Add(1)
			w.server.config.Log.Error("panic while answering a question", "panic", p, "question", hex.EncodeToString(w.q.packet), "stack", string(debug.Stack()))
		}
	}()
	kind := w.q.parse(w.q.packet)
	if kind == ignored {
		return nil
	}
	w.readCookie(from)
	var t *transaction
	if w.q.tsig && kind != malformed {
		var err error
		if t, err = authenticate(w.q.packet, w.serving.settings.TSIG); err != nil {
			kind = malformed
		}
	}
	var since *dns.SOA
	if w.q.asked && w.q.qtype == dns.TypeIXFR && kind != malformed {
		var err error
		if since, err = w.q.since(); err != nil {
			kind = malformed
		}
	}
	if records := w.transfer(kind, since, from, over, t); records != nil {
		return w.sendTransfer(records, over, t, send)
	}
	if packet := w.pack(w.message(kind, from, over, t), over); packet != nil {
		return send(packet)
	}
	return nil
}

// transfer returns the records of the zone transfer that is asked for, if it is one that is given.
func (w *worker) transfer(kind form, since *dns.SOA, from netip.Addr, over Transport, t *transaction) []dns.RR {
	q, sv := w.q, w.serving
	transfer := kind == unusual || kind == usual
	transfer = transfer && q.opcode == dns.OpcodeQuery && q.asked && q.class == dns.ClassINET && sv.index != nil && over != HTTPS
	if !transfer || q.qtype != dns.TypeAXFR && q.qtype != dns.TypeIXFR || !sv.mayTransfer(from, t) {
		return nil
	}
	records, err := sv.transferred(&q.question, since, w.server.now())
	if err != nil {
		w.counts.failures.Add(1)
		w.server.config.Log.Error("a zone cannot be transferred", "zone", presentation(string(q.name())), "error", err)
		return nil
	}
	if over == UDP { // whoever sees that there is a newer version comes by TCP (RFC 1995 section 2)
		if q.qtype == dns.TypeAXFR || records == nil {
			return nil
		}
		return records[:1]
	}
	return records
}

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
	sv, q := w.serving, w.q
	n := sv.index.quick[a.wire]
	if n == nil || a.failed != nil {
		return
	}
	t := n.of(q.qtype)
	var choices []router.Choice
	switch t.kind {
	case byFullPath:
		return
	case steered:
		client, _ := a.client(n.service)
		d := router.Decide(sv.view, n.service.id, t.family, client, nil)
		if d.Outcome == router.NoneAllowed {
			return
		}
		choices = d.Choices[:d.N]
	}
	if err := sv.learn(n, t, choices, a.do, a.now); err != nil {
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
	if len(a.answer) == 0 || a.serving.view == nil {
		return
	}
	if n := a.serving.index.quick[a.wire]; n != nil && n.service != nil {
		if t := n.of(w.q.qtype); t.kind == steered {
			client, _ := a.client(n.service)
			if d := router.Decide(a.serving.view, n.service.id, t.family, client, nil); d.N > 0 {
				c.pops[a.serving.popCounter[d.Choices[0]]].Add(1)
				c.scope(&w.q.question, a.scope)
			}
		}
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

// chaos answers the questions about the server itself, as far as it has been told what to say.
func (sv *serving) chaos(a *reply) {
	text := ""
	switch name := presentation(a.wire); name {
	case "version.bind.", "version.server.":
		text = sv.settings.Version
	case "hostname.bind.", "id.server.": // RFC 4892
		text = sv.settings.NSID
	}
	if text == "" || a.qtype != dns.TypeTXT && a.qtype != dns.TypeANY {
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "")
		return
	}
	a.aa = true
	a.answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: presentation(a.wire), Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}, Txt: textStrings(text)}}
}

// exchange answers a packet that came from an address. Send is called once for each message of the answer, in order: not at all
// for what deserves none, more than once for a zone transfer. The message is valid only during the call; an error that send
// returns ends the exchange and is returned.
func (s *Server) exchange(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
	w := s.workers.Get().(*worker)
	defer s.workers.Put(w)
	w.tick()
	defer w.flush()
	return w.exchange(packet, from.Addr().Unmap(), over, send)
}

func (w *worker) exchange(packet []byte, from netip.Addr, over Transport, send func([]byte) error) error {
	buffer := make([]byte, max(len(packet), bufferSize))
	switch n := w.quick(buffer, copy(buffer, packet), from, over); n {
	case fuller:
		return w.full(from, over, send)
	case silent:
		return nil
	default:
		return send(buffer[:n])
	}
}

// Stats returns totals since the start: questions by transport, answers by code, and what went wrong.
func (s *Server) Stats() map[string]uint64 {
	s.mu.Lock()
	shards := s.shards
	s.mu.Unlock()
	stats := map[string]uint64{}
	for _, c := range shards {
		for t := range c.questions {
			stats[Transport(t).String()] += c.questions[t].Load()
		}
		stats["ignored"] += c.ignored.Load()
		stats["panics"] += c.panics.Load()
		for code := range c.rcodes {
			if n := c.rcodes[code].Load(); n > 0 {
				stats["rcode_"+dns.RcodeToString[code]] += n
			}
		}
	}
	return stats
}
