package dns

import (
	"encoding/hex"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Server answers DNS questions. It is safe for concurrent use.
type Server struct {
	config        Config
	began         time.Time
	serving       atomic.Pointer[serving]
	workers       sync.Pool     // of *worker, for goroutines
	renewed       chan struct{} // index or table have been
	changed       chan struct{} // index or settings have, for who notifies secondaries
	prepared      chan struct{}
	firstPrepared sync.Once // closes prepared

	known  chan *job // for the full path: questions for names that exist …
	others chan *job // … and all others, of which there may be a flood

	connections connections
	http3       addresses // that HTTP/3 is served at

	mu       sync.Mutex // of those who renew what is served
	settings Settings
	unread   string   // why the private keys could not be read last; empty for nothing
	ahead    *ahead   // nil for none
	popNames []string // by counter; PoPs keep their counter for good
	popsSeen map[string]uint16
	shards   []*counts
	common   *counts // of goroutines
	swaps    swaps
}

// New returns a server, which answers SERVFAIL until it has a view.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{config: c, began: c.Now(), common: new(counts), popsSeen: map[string]uint16{}, prepared: make(chan struct{}), renewed: make(chan struct{}, 1), changed: make(chan struct{}, 1), known: make(chan *job, maxQueue), others: make(chan *job, maxQueue)}
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

// Prepared returns a channel that is closed once the server runs and has made the answers of its first view ahead, as far as it makes
// any: a server that takes over from another one at full speed waits for that.
func (s *Server) Prepared() <-chan struct{} { return s.prepared }

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

// exchange answers a packet that came from an address. Send is called once for each message of the answer, in order: not at all
// for what deserves none, more than once for a zone transfer. The message is valid only during the call; an error that send
// returns ends the exchange and is returned.
func (s *Server) exchange(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
	w := s.workers.Get().(*worker)
	defer s.workers.Put(w)
	w.tick()
	buffer := make([]byte, max(len(packet), bufferSize))
	n := w.quick(buffer, copy(buffer, packet), from.Addr().Unmap(), over)
	w.flush() // first, so that who has an answer finds it counted
	switch n {
	case fuller:
		return w.full(from.Addr().Unmap(), over, send)
	case silent:
		return nil
	default:
		return send(buffer[:n])
	}
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
		return w.sendTransfer(records, from, over, t, send)
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
