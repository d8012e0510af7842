package dns

import (
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
)

// The store of answers. An answer is packed once, by the full path, and sent by the fast path as often as it is asked for. What
// does not depend on the client has a slot beside its name; what does has one for each choice, or for each tuple of choices.
// Everything is written at most once between two versions of the index, and never changed.

// packed is an answer as it stands behind the question section: records, without OPT. It is for one name and type, so that its
// pointers (RFC 1035 section 4.1.4) fit whenever that name is asked for, in whatever case.
type packed struct {
	records []byte
	counts  [6]byte // ANCOUNT, NSCOUNT and ARCOUNT, without OPT
	pop     uint16  // the counter of the PoP that is answered first; noPoP for none
	key     tupleKey
}

// slot has an answer with and without signatures.
type slot [2]atomic.Pointer[packed]

func signedIndex(do bool) int {
	if do {
		return 1
	}
	return 0
}

// typed is what a name answers for one type.
type typed struct {
	kind   typedKind
	rrtype uint16
	family router.Family // of a steered one
	id     uint32        // of a steered one, in tuples
	static *slot
}

type typedKind uint8

const (
	byFullPath typedKind = iota // the fast path leaves it alone
	static
	steered
)

// prepare gives a name its slots.
func (n *node) prepare(a *answers) {
	n.other = map[uint16]typed{}
	n.none = typed{kind: static, static: new(slot)}
	for i, rrtype := range familyTypes {
		n.typed[i] = typed{kind: static, rrtype: rrtype, static: n.none.static}
	}
	for _, rrtype := range n.types {
		t := typed{kind: static, rrtype: rrtype, static: new(slot)}
		family, ok := familyOf(rrtype)
		if n.explain != nil && rrtype == dns.TypeTXT {
			t.kind = byFullPath
		}
		if n.service != nil && ok {
			t = typed{kind: steered, rrtype: rrtype, family: family, id: a.steered, static: new(slot)}
			a.steered++
		}
		if ok {
			n.typed[family] = t
		} else {
			n.other[rrtype] = t
		}
	}
	if n.sets[dns.TypeCNAME] != nil { // whatever is asked for, the answer is elsewhere
		n.typed, n.none, n.other = [3]typed{}, typed{}, map[uint16]typed{}
	}
	if n.wire == n.zone.wire && n.zone.parent != nil {
		n.other[dns.TypeDS] = typed{} // which the parent answers
	}
	if n.wire == n.zone.wire {
		n.other[dns.TypeNS] = typed{} // has glue, which may have to be left out
	}
}

// isSpecial reports whether a type stands in questions only, or is one of DNSSEC that each name has in a way of its own.
func isSpecial(rrtype uint16) bool {
	switch {
	case rrtype == dns.TypeRRSIG, rrtype == dns.TypeNSEC, rrtype == typeOPT, rrtype >= typeNXNAME && rrtype <= dns.TypeANY:
		return true
	}
	return false
}

// typeNXNAME is the type that tells, in a bitmap, that a name does not exist (RFC 9824 section 2).
const typeNXNAME = 128

func familyOf(rrtype uint16) (router.Family, bool) {
	switch rrtype {
	case dns.TypeA:
		return router.IPv4, true
	case dns.TypeAAAA:
		return router.IPv6, true
	case dns.TypeHTTPS:
		return router.Either, true
	}
	return 0, false
}

// of returns what the name answers for a type.
func (n *node) of(rrtype uint16) typed {
	if isSpecial(rrtype) {
		return typed{}
	}
	if family, ok := familyOf(rrtype); ok {
		return n.typed[family]
	}
	if len(n.other) > 0 {
		if t, ok := n.other[rrtype]; ok {
			return t
		}
	}
	return n.none
}

// answers keeps the answers of several choices, and those of one.
type answers struct {
	steered uint32 // how many names and types are steered
	choices int    // how many choices there are
	singles []slot // by steered id and choice
	tuples  tuples
}

func newAnswers() *answers { return &answers{} }

// size makes room for the answers of one choice, when all names are known.
func (a *answers) size(choices int) {
	a.choices = choices
	a.singles = make([]slot, int(a.steered)*choices)
}

// find returns the answer of choices, or nil when it has not been made yet.
func (a *answers) find(id uint32, choices []router.Choice, do bool) *packed {
	if len(choices) == 1 {
		return a.singles[int(id)*a.choices+int(choices[0])][signedIndex(do)].Load()
	}
	return a.tuples.find(keyOf(id, choices, do))
}

// keep keeps the answer of choices, unless there is one already or there are too many.
func (a *answers) keep(id uint32, choices []router.Choice, do bool, p *packed) {
	if len(choices) == 1 {
		a.singles[int(id)*a.choices+int(choices[0])][signedIndex(do)].CompareAndSwap(nil, p)
		return
	}
	p.key = keyOf(id, choices, do)
	a.tuples.keep(p)
}

// tupleKey is a steered name and type with choices, and whether it is signed.
type tupleKey struct{ what, choices uint64 }

func keyOf(id uint32, choices []router.Choice, do bool) tupleKey {
	k := tupleKey{what: uint64(id)<<8 | uint64(len(choices))<<1 | uint64(signedIndex(do))}
	for i, c := range choices {
		k.choices |= uint64(c) << (16 * i)
	}
	return k
}

func (k tupleKey) hash() uint64 {
	x := (k.choices ^ k.what<<40 ^ k.what) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

// maxTuples bounds how many answers of several choices are kept; others are made each time.
const maxTuples = 1 << 18

// tuples is a hash table with open addressing that is read without a lock. The zero value is empty.
type tuples struct {
	table atomic.Pointer[[]atomic.Pointer[packed]] // a power of two, at most half full

	mu sync.Mutex // of writers
	n  int
}

func (t *tuples) find(k tupleKey) *packed {
	table := t.table.Load()
	if table == nil {
		return nil
	}
	mask := uint64(len(*table) - 1)
	for i := k.hash() & mask; ; i = (i + 1) & mask {
		p := (*table)[i].Load()
		if p == nil || p.key == k {
			return p
		}
	}
}

// len returns how many answers there are.
func (t *tuples) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

func (t *tuples) keep(p *packed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n >= maxTuples || t.find(p.key) != nil {
		return
	}
	table := t.table.Load()
	if table == nil || 2*(t.n+1) > len(*table) {
		size := 64
		if table != nil {
			size = 2 * len(*table)
		}
		grown := make([]atomic.Pointer[packed], size)
		if table != nil {
			for i := range *table {
				if old := (*table)[i].Load(); old != nil {
					place(grown, old)
				}
			}
		}
		table = &grown
	}
	place(*table, p)
	t.n++
	t.table.Store(table)
}

func place(table []atomic.Pointer[packed], p *packed) {
	mask := uint64(len(table) - 1)
	i := p.key.hash() & mask
	for table[i].Load() != nil {
		i = (i + 1) & mask
	}
	table[i].Store(p)
}
