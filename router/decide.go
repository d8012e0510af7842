package router

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/isochrone/isochrone/topology"
)

// MaxAnswers is the largest number of choices in one answer.
const MaxAnswers = 4

// httpsAnswers is how many PoPs an HTTPS record set names, in rank order.
const httpsAnswers = 3

// View is what a question is decided on: one table with one state. It is immutable; a server holds the current one behind
// one atomic pointer (see Live).
type View struct {
	Table *Table
	State *State
}

// Outcome says what kind of answer a decision is.
type Outcome uint8

// The outcomes.
const (
	Answered    Outcome = iota
	NoFamily            // no PoP of the service has an address of the family, for nobody: NODATA
	NoneAllowed         // rules and operators' decisions leave this client no PoP: SERVFAIL with an Extended DNS Error
	Empty               // all PoPs are down and the service answers nothing then: NODATA
)

// String returns the outcome in a word.
func (o Outcome) String() string {
	return [...]string{"answered", "no address of the family", "no PoP allowed", "all PoPs down"}[o]
}

// Fallback says what an answer had to disregard.
type Fallback uint8

// The fallbacks.
const (
	NoFallback  Fallback = iota
	BeyondShare          // only PoPs whose share this client is not among are well
	Panic                // too few PoPs of the service are well, so verdicts do not count
	FailOpen             // all PoPs that this client may be sent to are down, and the service answers them all the same
	FromPool             // likewise, and the service answers a pool
)

// String returns the fallback in a word; none is empty.
func (f Fallback) String() string {
	return [...]string{"", "beyond share", "panic", "fail open", "pool"}[f]
}

// Answer is a decision.
type Answer struct {
	Choices   [MaxAnswers]Choice // the first N are in use, best first
	N         int
	ScopeBits uint8 // for the client's address family: every client in that prefix gets this answer from this view
	Outcome   Outcome
	Fallback  Fallback
}

// Decide chooses the PoPs for a client of a service, by one view: up to the service's number of answers, or up to three for
// Either. The client is known by the prefix that the resolver sent, or by a whole address; its first address counts.
//
// With a nil trace it allocates nothing; with one it also says why, in the trace. It may be called concurrently.
func Decide(v *View, id ServiceID, f Family, client netip.Prefix, tr *Trace) Answer {
	if tr == nil {
		if a, ok := v.quick(id, f, client.Addr()); ok {
			return a
		}
	}
	q := question{table: v.Table, state: v.State, service: &v.Table.services[id]}
	a := q.decide(id, f, client.Addr())
	if tr != nil {
		tr.fill(v, &q, f, client, a)
	}
	return a
}

// quick decides what nearly all questions are: of one IPv4 client, whose first choice is well and has its clients for itself,
// and is all that is wanted. It comes to what question.decide would, without the room that others need.
func (v *View) quick(id ServiceID, f Family, client netip.Addr) (a Answer, ok bool) {
	if !client.Is4() || !v.isQuick(id, f) {
		return a, false
	}
	addr := client.As4()
	return v.quickAt(id, f, v.Table.v4.find4(binary.BigEndian.Uint32(addr[:])))
}

// isQuick reports whether quickAt may decide for a service.
func (v *View) isQuick(id ServiceID, f Family) bool {
	service := &v.Table.services[id]
	return service.rankings[f] != nil && service.Steering.Answers == 1 && f != Either && v.State.services[id].canary == 0
}

// quickAt decides for a client in an IPv4 block.
func (v *View) quickAt(id ServiceID, f Family, block int) (a Answer, ok bool) {
	t, r := v.Table, v.Table.services[id].rankings[f]
	b := r.briefs[t.v4.origin[block]]
	if !b.alone() || v.State.standing[b.region()][b.first()] > reserved {
		return a, false
	}
	a.Choices[0], a.N, a.ScopeBits = b.first(), 1, r.reach4.first[block]
	return a, true
}

// question is a decision in the making.
type question struct {
	table   *Table
	state   *State
	service *tableService
	ranking *ranking
	addr    address
	v4      bool
	block   int
	class   *class

	bucket bucket // of the client, once it is asked for
	cut    bool   // the answer depends on the bucket
	depth  int    // the rank of the last choice that the answer depends on besides those considered
}

func (q *question) decide(id ServiceID, f Family, client netip.Addr) Answer {
	if client.Is4() || client.Is4In6() {
		b := client.As4()
		q.v4, q.addr.hi = true, uint64(binary.BigEndian.Uint32(b[:]))<<32
	} else {
		q.addr = addressOf(client)
	}
	q.ranking = q.service.rankings[f]
	state := &q.state.services[id]
	if state.canary > 0 && q.service.canary[f] != nil {
		if !state.splits || q.draw(q.service.salt) < state.canary {
			q.ranking = q.service.canary[f]
		}
		q.cut = state.splits
	}
	if q.ranking == nil {
		return Answer{Outcome: NoFamily}
	}
	var b brief
	if q.v4 {
		q.block = q.table.v4.find4(uint32(q.addr.hi >> 32))
		b = q.ranking.briefs[q.table.v4.origin[q.block]]
	} else {
		q.block = q.table.v6.find6(q.addr)
		b = q.ranking.briefs[q.table.v6.origin[q.block]]
	}
	want := q.service.Steering.Answers
	if f == Either {
		want = httpsAnswers
	}
	q.class = &q.ranking.classes[b.class()]
	// Nearly always the first choice is well, has its clients for itself, and is all that is wanted.
	standings := q.state.standing[b.region()]
	if want == 1 && b.alone() && standings[b.first()] <= reserved {
		return Answer{Choices: [MaxAnswers]Choice{b.first()}, N: 1, ScopeBits: q.scope(0)}
	}
	if end := q.class.groupEnd(0); want == 1 && end > 1 && !state.panics[b.region()] {
		if c, ok := q.winner(standings, end); ok {
			return Answer{Choices: [MaxAnswers]Choice{c}, N: 1, ScopeBits: q.scope(end - 1)}
		}
	}
	return q.consider(standings, state, want)
}

// groupEnd returns the end of the group that begins at a rank.
func (k *class) groupEnd(begin int) int {
	return min(begin+1+bits.TrailingZeros8(k.groups>>(begin+1)|1<<7), int(k.n))
}

// winner returns the member of the first group whom this client's bucket is drawn by, if all members are either well or
// none at all.
func (q *question) winner(standings []standing, end int) (winner Choice, ok bool) {
	var lowest uint64
	well := 0
	for _, c := range q.class.first[:end&(2*ranked-1)] {
		switch standings[c] {
		case eligible:
			if s := score(q.draw(q.table.group[c]), q.ranking.weight, c); well == 0 || s < lowest {
				winner, lowest = c, s
			}
			well++
		case reserved, shared:
			return 0, false
		}
	}
	q.cut = q.cut || well > 1
	return winner, well > 0
}

// scope returns the widest prefix that gets the answer whose last considered candidate is known.
func (q *question) scope(last int) uint8 {
	last = max(last, q.depth)
	space, reach, split := q.table.v6, &q.ranking.reach6, uint8(splitBits6)
	if q.v4 {
		space, reach, split = q.table.v4, &q.ranking.reach4, splitBits4
	}
	var bits uint8
	if last < scopes {
		bits = reach.scope(q.block, last)
	} else {
		bits = uint8(space.bits(q.block))
	}
	if q.cut {
		return max(bits, split)
	}
	return bits
}

// consider goes through the candidates in order, with ever fewer scruples.
func (q *question) consider(standings []standing, state *serviceState, want int) Answer {
	var a Answer
	worst := shared
	if state.panics[q.class.region] {
		worst = dead
	}
	last, passed := q.collect(&a, standings, want, worst, true)
	if a.N > 0 {
		for _, c := range a.Choices[:a.N] {
			if standings[c] == dead {
				a.Fallback = Panic
			}
		}
		if a.N < want && !q.ranking.uniform {
			last = ranked // somebody else's rules may allow more
		}
		a.ScopeBits = q.scope(last)
		return a
	}
	if passed.shared {
		a.Fallback = BeyondShare
		last, _ = q.collect(&a, standings, want, worst, false)
	} else if passed.dead {
		switch q.service.Steering.WhenAllDown {
		case topology.FailOpen:
			a.Fallback = FailOpen
			last, _ = q.collect(&a, standings, want, dead, false)
		case topology.FailEmpty:
		default:
			a.Fallback, last = FromPool, ranked
			q.fromPool(&a, standings, want)
		}
	}
	switch {
	case a.N > 0 && q.ranking.uniform && a.Fallback != FromPool:
		a.ScopeBits = q.scope(last) // nobody else has candidates that this client lacks
	case a.N > 0:
		a.ScopeBits = q.scope(ranked)
	case state.down && q.service.Steering.WhenAllDown == topology.FailEmpty:
		a = Answer{Outcome: Empty}
	case q.ranking.uniform && !passed.dead && !q.canaryDiffers():
		a = Answer{Outcome: NoneAllowed} // for everybody
	default:
		a = Answer{Outcome: NoneAllowed, ScopeBits: q.scope(ranked)}
	}
	return a
}

// canaryDiffers reports whether clients of the canary, or the others, may be answered what this client may not, such as a VIP.
func (q *question) canaryDiffers() bool {
	return q.service.canaryDiffers && q.cut
}

// passed tells what kinds of candidates were not taken.
type passed struct{ shared, dead bool }

// collect appends up to want choices whose standing is at most worst, in the client's order, and returns the rank of the last
// one that was considered: all ranks that no class lists are alike. Unless it is told otherwise, it leaves out choices whose
// share the client is not among.
func (q *question) collect(a *Answer, standings []standing, want int, worst standing, byShare bool) (last int, over passed) {
	k := q.class
	for i := 0; i < int(k.n); {
		end := k.groupEnd(i)
		var members [ranked]Choice
		n := 0
		for _, c := range k.first[i:end] {
			if q.takes(c, standings[c], worst, byShare, &over) {
				members[n] = c
				n++
			}
		}
		if n > 1 {
			q.split(members[:n])
		}
		for _, c := range members[:n] {
			a.Choices[a.N] = c
			if a.N++; a.N == want {
				return end - 1, over
			}
		}
		last, i = end-1, end
	}
	if k.all || k.n == 0 {
		return last, over
	}
	v := q.ranking.variants[k.variant]
	for _, c := range q.table.near[q.table.anchor(k)] {
		if !q.ranking.member[c] || !v.allows(c) || k.lists(c) {
			continue
		}
		last = ranked
		if q.takes(c, standings[c], worst, byShare, &over) {
			a.Choices[a.N] = c
			if a.N++; a.N == want {
				return last, over
			}
		}
	}
	return last, over
}

// takes reports whether a choice may be answered to this client.
func (q *question) takes(c Choice, s, worst standing, byShare bool, over *passed) bool {
	switch {
	case s > worst:
		over.dead = over.dead || s == dead
		return false
	case s != shared && s != reserved || !byShare:
		return true
	}
	share, _ := q.share(c)
	if share == ^uint64(0) {
		return true
	}
	if share > 0 {
		q.cut = true
		if q.draw(q.table.share[c]) < share {
			return true
		}
	}
	over.shared = true
	return false
}

// split orders choices that share clients for this client's bucket.
func (q *question) split(members []Choice) {
	q.cut = true
	var scores [ranked]uint64
	for i, c := range members {
		s := score(q.draw(q.table.group[c]), q.ranking.weight, c)
		j := i
		for ; j > 0 && s < scores[j-1]; j-- {
			scores[j], members[j] = scores[j-1], members[j-1]
		}
		scores[j], members[j] = s, c
	}
}

func (q *question) draw(s salt) uint64 {
	if q.bucket == 0 {
		q.bucket = bucketOf(q.addr, q.v4)
	}
	return q.bucket.draw(s)
}

// fromPool answers the service's pool in its order, without those that operators have barred.
func (q *question) fromPool(a *Answer, standings []standing, want int) {
	for _, c := range q.service.pool {
		if a.N < want && standings[c] != barred && q.ranking.member[c] {
			a.Choices[a.N] = c
			a.N++
		}
	}
}
