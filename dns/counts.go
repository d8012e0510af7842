package dns

import (
	"sync/atomic"

	"github.com/miekg/dns"
)

// counts are totals since the start. Each thread of the UDP sockets has its own, and one is for all else; they are added up on
// reading.
type counts struct {
	questions [transports]atomic.Uint64
	quick     atomic.Uint64 // answered by the fast path
	ignored   atomic.Uint64 // no questions
	limited   atomic.Uint64 // over the rate limit
	truncated atomic.Uint64
	dropped   atomic.Uint64 // because the full path's queue was full
	unsent    atomic.Uint64 // by an error of the socket
	panics    atomic.Uint64
	failures  atomic.Uint64 // answers that could not be packed or signed
	transfers atomic.Uint64
	cookies   [3]atomic.Uint64  // by cookieState, of the full path
	rcodes    [24]atomic.Uint64 // the last is for all others
	qtypes    [countedTypes]atomic.Uint64
	pops      [maxPoPs]atomic.Uint64 // steered answers, by the counter of the PoP that is named first
	scopes4   [33]atomic.Uint64      // of steered answers to questions with a client subnet
	scopes6   [129]atomic.Uint64
}

// maxPoPs is for how many PoPs steered answers are counted one by one. Those beyond share the counter noPoP-1.
const (
	maxPoPs = 4096
	noPoP   = maxPoPs
)

// The types that are counted one by one; the last counter is for all others.
var countedTypeNames = [...]string{"A", "AAAA", "HTTPS", "TXT", "NS", "SOA", "MX", "CNAME", "DS", "DNSKEY", "ANY", "AXFR", "other"}

const countedTypes = len(countedTypeNames)

func countedType(rrtype uint16) int {
	switch rrtype {
	case dns.TypeA:
		return 0
	case dns.TypeAAAA:
		return 1
	case dns.TypeHTTPS:
		return 2
	case dns.TypeTXT:
		return 3
	case dns.TypeNS:
		return 4
	case dns.TypeSOA:
		return 5
	case dns.TypeMX:
		return 6
	case dns.TypeCNAME:
		return 7
	case dns.TypeDS:
		return 8
	case dns.TypeDNSKEY:
		return 9
	case dns.TypeANY:
		return 10
	case dns.TypeAXFR:
		return 11
	}
	return countedTypes - 1
}

// scope counts the scope of a steered answer.
func (c *counts) scope(q *question, bits uint8) {
	switch {
	case !q.hasSubnet || !q.subnet.prefix.IsValid():
	case q.subnet.prefix.Addr().Is4():
		c.scopes4[min(bits, 32)].Add(1)
	default:
		c.scopes6[min(bits, 128)].Add(1)
	}
}

// flush adds what a batch has counted.
func (w *worker) flush() {
	s, c := &w.sums, w.counts
	for i, n := range s.questions {
		if n > 0 {
			c.questions[i].Add(uint64(n))
		}
	}
	c.quick.Add(uint64(s.quick))
	c.rcodes[dns.RcodeSuccess].Add(uint64(s.quick))
	if s.limited > 0 {
		c.limited.Add(uint64(s.limited))
	}
	if s.truncated > 0 {
		c.truncated.Add(uint64(s.truncated))
	}
	for i, n := range s.qtypes {
		if n > 0 {
			c.qtypes[i].Add(uint64(n))
		}
	}
	*s = sums{}
}
