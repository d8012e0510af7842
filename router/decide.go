package router

import (
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
	NoneAllowed         // operators' decisions leave no PoP: SERVFAIL with an Extended DNS Error
	Empty               // all PoPs are down and the service answers nothing then: NODATA
)

// String returns the outcome in a word.
func (o Outcome) String() string {
	return [...]string{"answered", "no address of the family", "no PoP allowed", "all PoPs down"}[o]
}

// Answer is a decision.
type Answer struct {
	Choices   [MaxAnswers]Choice // the first N are in use, best first
	N         int
	ScopeBits uint8 // for the client's address family: every client in that prefix gets this answer from this view
	Outcome   Outcome
	FailOpen  bool // all candidates are down, and the answer disregards that
}

// Decide chooses the PoPs for a client of a service, by one view: up to the service's number of answers, or up to three for
// Either. The client is known by the prefix that the resolver sent, or by a whole address; its first address counts.
// Negative outcomes are the same for all clients and have scope 0.
//
// With a nil trace it allocates nothing; with one it also says why, in the trace. It may be called concurrently.
func Decide(v *View, id ServiceID, f Family, client netip.Prefix, tr *Trace) Answer {
	t := v.Table
	service := &t.services[id]
	r := service.rankings[f]
	at := t.locate(client.Addr())
	a := Answer{Outcome: NoFamily}
	if r != nil {
		want := service.Steering.Answers
		if f == Either {
			want = httpsAnswers
		}
		a = r.decide(v.State, at, want, service.Steering.WhenAllDown == topology.FailOpen)
	}
	if tr != nil {
		tr.fill(v, service, r, f, client, at, a)
	}
	return a
}

// position is where an address is in a table.
type position struct {
	space *space
	block int
	v4    bool
}

func (t *Table) locate(addr netip.Addr) position {
	addr = addr.Unmap()
	if addr.Is4() {
		return position{t.v4, t.v4.find(addressOf(addr)), true}
	}
	return position{t.v6, t.v6.find(addressOf(addr)), false}
}

// at returns what a ranking knows of the block at a position.
func (r *ranking) at(p position) (class *class, scope *[scopes]uint8) {
	blocks := &r.blocks[1]
	if p.v4 {
		blocks = &r.blocks[0]
	}
	return &r.classes[blocks.class[p.block]], &blocks.scope[p.block]
}

func (r *ranking) decide(s *State, at position, want int, failOpen bool) Answer {
	class, scope := r.at(at)
	a := Answer{}
	last, dying := r.collect(&a, s, class, want, eligible)
	if a.N == 0 && dying && failOpen {
		last, _ = r.collect(&a, s, class, want, dead)
		a.FailOpen = true
	}
	// All blocks in scope[last] agree on the candidates up to the last one that is answered. What comes behind it was
	// either not needed, or is not eligible for anybody.
	switch {
	case a.N > 0 && last < scopes:
		a.ScopeBits = scope[last]
	case a.N > 0:
		a.ScopeBits = at.space.bits[at.block]
	case dying:
		a.Outcome = Empty
	default:
		a.Outcome = NoneAllowed
	}
	return a
}

// collect appends up to want choices whose standing is at most worst, in the class's order. It returns the rank of the last
// one, and whether it passed over one that is dead.
func (r *ranking) collect(a *Answer, s *State, k *class, want int, worst standing) (last int, dying bool) {
	for i, c := range k.first[:k.n] {
		if s.standing[c] <= worst {
			a.Choices[a.N] = c
			a.N++
			if last = i; a.N == want {
				return last, dying
			}
		} else if s.standing[c] == dead {
			dying = true
		}
	}
	for _, c := range r.tails[k.first[0]] {
		if k.lists(c) {
			continue
		}
		if s.standing[c] <= worst {
			a.Choices[a.N] = c
			a.N++
			if last = ranked; a.N == want { // any rank behind the listed ones is alike: it has the block's own scope
				return last, dying
			}
		} else if s.standing[c] == dead {
			dying = true
		}
	}
	return last, dying
}

// lists reports whether c is among the class's own choices.
func (k *class) lists(c Choice) bool {
	for _, other := range k.first[:k.n] {
		if other == c {
			return true
		}
	}
	return false
}
