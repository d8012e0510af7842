package dns

import (
	"encoding/binary"
	"net/netip"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// The fast path: an answer that has been packed before, behind the question as it stands in the packet.

// maxUDP is the largest answer over UDP, and what we say that we can receive: what no path fragments (RFC 9715).
const maxUDP = 1232

// minUDP is what everybody can receive over UDP (RFC 1035 section 4.2.1).
const minUDP = 512

const optSize = 11 // of an OPT record without options

// worker is what answers questions one at a time: a thread of the UDP sockets, or for a moment a goroutine.
type worker struct {
	server  *Server
	serving *serving
	q       *inquiry // the present one
	counts  *counts
	limited uint32 // answers over the rate limit

	// The time of a batch of questions.
	monotonic int64  // nanoseconds since the server's start
	unix      uint32 // seconds

	cookie      [clientCookieSize + serverCookieSize]byte // to send back
	cookieState cookieState
	sums        sums
}

type cookieState uint8

const (
	noCookie     cookieState = iota
	clientCookie             // without a valid server cookie
	validCookie
)

// sums are counted in a batch, and added to the counts behind it.
type sums struct {
	questions                 [transports]uint32
	quick, truncated, limited uint32
	qtypes                    [countedTypes]uint32
}

// tick begins a batch: it takes the time and the present view.
func (w *worker) tick() {
	now := w.server.now()
	w.monotonic, w.unix = int64(now.Sub(w.server.began)), uint32(now.Unix())
	w.serving = w.server.serving.Load()
}

// readCookie checks the cookie of a question, and makes the one to send back.
func (w *worker) readCookie(from netip.Addr) {
	w.cookieState = noCookie
	option := w.q.cookie
	if option == nil {
		return
	}
	jar := &w.serving.jar
	valid, fresh := jar.check(option, from, w.unix)
	jar.reply(&w.cookie, option, from, w.unix, fresh)
	if w.cookieState = clientCookie; valid {
		w.cookieState = validCookie
	}
}

// The results of quick, besides the length of an answer.
const (
	silent = 0  // nothing is to be sent
	fuller = -1 // it is for the full path, and nothing has been written
)

// bufferSize is the room that a question and its answer of the fast path have.
const bufferSize = 2048

// inquiry is a question with what the fast path finds for it.
type inquiry struct {
	question
	kind     form
	node     *node // nil for a name that the fast path does not know
	typed    typed // of the node
	client   netip.Prefix
	bySubnet bool // the client is that of the option
	decision router.Answer
}

// quick answers a packet in place: the answer begins where the packet does, and may use the whole buffer. It
// returns the answer's length, silent or fuller. For the full path, w.q has been read.
func (w *worker) quick(buffer []byte, n int, from netip.Addr, over Transport) int {
	if q := w.q; q.hear(w.serving, buffer[:n], from) {
		q.decision = router.Decide(w.serving.view, q.node.service.id, q.typed.family, q.client, nil)
	}
	return w.reply(buffer, from, over)
}

// hear reads a packet, and reports whether its answer is for the router to decide.
func (q *inquiry) hear(sv *serving, packet []byte, from netip.Addr) (undecided bool) {
	q.node, q.typed = nil, typed{}
	if q.kind = q.parse(packet); q.kind != usual || sv.view == nil {
		return false
	}
	if q.node = sv.index.quick[string(q.name())]; q.node == nil {
		return false
	}
	if q.typed = q.node.of(q.qtype); q.typed.kind != steered {
		return false
	}
	q.client, q.bySubnet = q.question.client(from, q.node.service.topology.Steering.ECS == topology.UseECS)
	return true
}

// reply answers what w.q has heard, as quick does.
func (w *worker) reply(buffer []byte, from netip.Addr, over Transport) int {
	w.sums.questions[over]++
	if w.q.kind == ignored {
		w.counts.ignored.Add(1)
		return silent
	}
	w.readCookie(from)
	if l := w.serving.limiter; l != nil && over == UDP && w.cookieState != validCookie {
		switch l.allow(from, w.monotonic, &w.limited) {
		case slips:
			w.sums.limited++
			if !w.q.asked || w.q.opcode != 0 {
				return silent
			}
			return w.finish(buffer, nil, 0, true)
		case drops:
			w.sums.limited++
			return silent
		}
	}
	limit := bufferSize
	if over == UDP {
		limit = udpLimit(&w.q.question)
	}
	return w.packed(buffer, limit)
}

// udpLimit is how long an answer over UDP may be.
func udpLimit(q *question) int {
	if !q.edns {
		return minUDP
	}
	return int(min(max(q.size, minUDP), maxUDP))
}

// packed answers a question that has been decided, if its answer is packed already and not longer than the limit.
func (w *worker) packed(buffer []byte, limit int) int {
	q := w.q
	var (
		p     *packed
		scope uint8
	)
	switch t := &q.typed; t.kind {
	case static:
		p = t.static[signedIndex(q.do)].Load()
	case steered:
		d := &q.decision
		switch {
		case d.N > 0:
			p = w.serving.index.answers.find(t.id, d.Choices[:d.N], q.do)
		case d.Outcome == router.NoneAllowed:
			return fuller
		default:
			p = t.static[signedIndex(q.do)].Load()
		}
		if q.bySubnet {
			scope = d.ScopeBits
		}
	}
	if p == nil {
		return fuller
	}
	length := headerSize + q.length + 4 + len(p.records)
	if q.edns {
		length += optSize
		if q.hasSubnet {
			length += 4 + q.subnet.length
		}
		if w.cookieState != noCookie {
			length += 4 + len(w.cookie)
		}
	}
	if length > limit || length > cap(buffer) {
		return fuller
	}
	w.sums.quick++
	w.sums.qtypes[countedType(q.qtype)]++
	if p.pop != noPoP {
		w.counts.pops[p.pop].Add(1)
		w.counts.scope(&q.question, scope)
	}
	return w.finish(buffer, p, scope, false)
}

// finish writes an answer over the packet that it answers: header, the question as it was asked, the records, OPT. Without records it
// is an empty one, truncated or not.
func (w *worker) finish(buffer []byte, p *packed, scope uint8, truncated bool) int {
	q := w.q
	buffer = buffer[:cap(buffer)]
	flags := [2]byte{0x84, 0} // QR and AA
	if q.rd {
		flags[0] |= 1
	}
	if q.cd {
		flags[1] |= 0x10
	}
	if truncated {
		flags[0] = flags[0]&^4 | 2
		w.sums.truncated++
	}
	buffer[2], buffer[3] = flags[0], flags[1]
	at := headerSize + q.length + 4
	additional := uint16(0)
	if p != nil {
		copy(buffer[6:], p.counts[:])
		additional = binary.BigEndian.Uint16(p.counts[4:])
		at += copy(buffer[at:], p.records)
	} else {
		clear(buffer[6:12])
	}
	if q.edns {
		binary.BigEndian.PutUint16(buffer[10:], additional+1)
		opt := buffer[at : at+optSize]
		opt[0], opt[1], opt[2] = 0, 0, typeOPT
		binary.BigEndian.PutUint16(opt[3:], maxUDP)
		opt[5], opt[6], opt[7], opt[8] = 0, 0, 0, 0
		if q.do {
			opt[7] = flagDO >> 8
		}
		end := at + optSize
		if q.hasSubnet {
			end = appendOption(buffer, end, optionSubnet, q.subnet.reply(scope))
		}
		if w.cookieState != noCookie {
			end = appendOption(buffer, end, optionCookie, w.cookie[:])
		}
		binary.BigEndian.PutUint16(opt[9:], uint16(end-at-optSize))
		at = end
	}
	return at
}

func appendOption(buffer []byte, at int, code uint16, option []byte) int {
	binary.BigEndian.PutUint16(buffer[at:], code)
	binary.BigEndian.PutUint16(buffer[at+2:], uint16(len(option)))
	return at + 4 + copy(buffer[at+4:], option)
}
