package router

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"time"
	"unsafe"

	"github.com/isochrone/isochrone/topology"
)

// ranked is how many choices a class lists in the client's own order. Behind them come the others in the order of the
// first one's PoP: who has lost eight PoPs has no use for a finer one.
const ranked = 8

// scopes is for how many leading candidates a block knows the widest scope; a later candidate has the block's own.
const scopes = 4

// ranking orders one set of candidates by one policy for every block of a table.
type ranking struct {
	key        string // of policy and candidates
	policy     *topology.Policy
	candidates []Choice
	member     []bool            // by Choice: is a candidate
	within     uint32            // µs
	cost       []uint32          // µs that each choice counts as farther away, by Choice; nil for none
	weight     []uint64          // of each choice, by Choice; nil when all are 1
	failover   map[Choice]uint64 // where a choice stands in the failover order
	variants   []*variant        // sets of rules that fit a client; the first is that without rules
	uniform    bool              // every class stands for all candidates
	vip        bool              // a candidate is a VIP
	classes    []class
	briefs     []brief // of the class of each origin
	reach4     reach
	reach6     reach
}

// class is a ranking that blocks share.
type class struct {
	first   [ranked]Choice
	n       uint8 // how many of first are in use
	groups  uint8 // bit i: first[i] begins a group, whose members share clients; set for those not in use
	region  region
	all     bool   // first has all that the variant allows
	variant uint32 // whose other choices come behind first
}

const classBytes = int(unsafe.Sizeof(class{}))

// brief is what most questions need of a class, packed so that they need nothing else.
type brief uint64

const maxClasses = 1 << 24

// brief packs a class and its number.
func (k *class) brief(number uint32) brief {
	return brief(number) | brief(k.first[0])<<24 | brief(k.groups)<<40 | brief(k.region)<<48 | brief(k.n)<<56
}

func (b brief) class() uint32  { return uint32(b) & (maxClasses - 1) }
func (b brief) first() Choice  { return Choice(b >> 24) }
func (b brief) region() region { return region(b>>48) & (regions - 1) }

// alone reports whether there is a first choice which has its clients for itself.
func (b brief) alone() bool { return b>>56 > 0 && b>>41&1 == 1 }

// reach is how wide the scopes of a space's blocks are: the widest prefix whose blocks agree on the first choice, and on the
// first 2, 3 and 4.
type reach struct {
	first []uint8
	more  [][scopes - 1]uint8
}

// scope returns the widest prefix for an answer of which the last considered candidate is known; it is below scopes.
func (r *reach) scope(block, last int) uint8 {
	if last == 0 {
		return r.first[block]
	}
	return r.more[block][last-1]
}

// policyKey is alike for policies and candidates that rank alike.
func policyKey(policy *topology.Policy, candidates []Choice) string {
	text, err := json.Marshal(policy)
	if err != nil {
		panic("router: " + err.Error()) // a policy is text and numbers
	}
	return fmt.Sprint(candidates, string(text))
}

func newRanking(t *Table, policy *topology.Policy, candidates []Choice, choices map[string]Choice) *ranking {
	r := &ranking{policy: policy, candidates: candidates, failover: map[Choice]uint64{}}
	r.member = make([]bool, len(t.pops))
	for _, c := range candidates {
		r.member[c] = true
		r.vip = r.vip || t.IsVIP(c)
	}
	r.within = uint32(time.Duration(policy.Within).Microseconds())
	for i, c := range numbersOf(policy.Failover, choices) {
		r.failover[c] = uint64(i)
	}
	for name, cost := range policy.Costs {
		if c, ok := choices[name]; ok {
			if r.cost == nil {
				r.cost = make([]uint32, len(t.pops))
			}
			r.cost[c] = uint32(time.Duration(cost).Microseconds())
		}
	}
	for name, weight := range policy.Weights {
		if c, ok := choices[name]; ok {
			if r.weight == nil {
				r.weight = slices.Repeat([]uint64{1}, len(t.pops))
			}
			r.weight[c] = uint64(weight)
		}
	}
	return r
}

// candidate is a choice in the order of its key: tier, then µs.
type candidate struct {
	key uint64
	c   Choice
}

// order is what a choice's key is made of, besides its costs.
type order struct {
	*ranking
	salts    []tablePoP
	variant  *variant
	failing  bool   // the failover order comes before costs
	location uint64 // salt of the location, for ties
}

// key returns a choice's key for its round-trip time.
func (o *order) key(c Choice, us uint32) uint64 {
	if o.isVIP(c) {
		return 0 // before all others
	}
	if o.vip {
		us = max(us, 1)
	}
	key := uint64(us)
	if o.cost != nil {
		key += uint64(o.cost[c])
	}
	if o.failing {
		at, listed := o.failover[c]
		if !listed {
			at = uint64(len(o.failover))
		}
		key |= at << 32
	}
	if o.variant.tier != nil {
		key |= uint64(o.variant.tier[c]) << 48
	}
	return key
}

// isVIP reports whether a choice is a VIP, which comes before all PoPs and shares its clients with none.
func (o *order) isVIP(c Choice) bool { return o.salts[c].vip != nil }

// before reports whether a comes before b. Between equals the location decides, so that each comes first somewhere.
func (o *order) before(a, b candidate) bool {
	if a.key != b.key {
		return a.key < b.key
	}
	x, y := mix(o.salts[a.c].salt^o.location), mix(o.salts[b.c].salt^o.location)
	return x < y || x == y && a.c < b.c
}

// insert puts a candidate where it belongs in an ordered list, which keeps its capacity at most.
func (o *order) insert(list []candidate, x candidate) []candidate {
	if len(list) == cap(list) {
		if !o.before(x, list[len(list)-1]) {
			return list
		}
		list = list[:len(list)-1]
	}
	i := len(list)
	list = append(list, x)
	for ; i > 0 && o.before(x, list[i-1]); i-- {
		list[i] = list[i-1]
	}
	list[i] = x
	return list
}

// top lists the candidates that the variant allows in their order, as many as list has room for.
func (o *order) top(us []uint32, list []candidate) []candidate {
	list = list[:0]
	worst := ^uint64(0) // of a list that is full
	simple := o.cost == nil && !o.failing && o.variant.tier == nil && !o.vip
	for _, c := range o.candidates {
		key := uint64(us[c])
		if !simple {
			key = o.key(c, us[c])
		}
		if key > worst || !o.variant.allows(c) {
			continue
		}
		if list = o.insert(list, candidate{key, c}); len(list) == cap(list) {
			worst = list[len(list)-1].key
		}
	}
	return list
}

// class makes the class of an ordered list.
func (o *order) class(list []candidate, number uint32, at region) class {
	k := class{n: uint8(min(len(list), ranked)), groups: 0xff, region: at, variant: number, all: o.variant.count <= ranked}
	var group uint64 // key of the present group's first member
	for i, x := range list[:k.n] {
		k.first[i] = x.c
		if i > 0 && x.key>>32 == group>>32 && x.key-group <= uint64(o.within) && !o.isVIP(list[i-1].c) {
			k.groups &^= 1 << i
			continue
		}
		group = x.key
	}
	return k
}

// agree returns on how many leading choices two classes agree, with the groups that these are in: scopes for all that matter.
func agree(a, b *class) int {
	if a.region != b.region {
		return 0
	}
	level := bits.TrailingZeros64(a.leading()^b.leading()) / 16
	if n := int(min(a.n, b.n)); level >= n && a.n == b.n {
		level = scopes
	} else {
		level = min(level, n)
	}
	// Whether a choice is the last one of its group must be alike too, which the bit behind it tells.
	if same := bits.TrailingZeros8(a.groups ^ b.groups); same < 8 {
		level = min(level, same-1)
	}
	return min(level, scopes)
}

// leading packs the first four choices, the first one in the lowest bits.
func (k *class) leading() uint64 {
	return uint64(k.first[0]) | uint64(k.first[1])<<16 | uint64(k.first[2])<<32 | uint64(k.first[3])<<48
}

// lists reports whether c is among the class's own choices.
func (k *class) lists(c Choice) bool { return slices.Contains(k.first[:k.n], c) }

// reach finds the scopes of a space's blocks.
func (r *ranking) reach(s *space) reach {
	n := s.blocks()
	found := reach{make([]uint8, n), make([][scopes - 1]uint8, n)}
	levels := make([]uint8, n) // on how many choices a block agrees with the one before it
	var (
		since [scopes]address // where the run of blocks that agree on j+1 choices begins
		class uint32
	)
	for i := range n {
		number, start := r.briefs[s.origin[i]].class(), s.start(i)
		level := scopes
		if i == 0 {
			level = 0
		} else if number != class {
			level = agree(&r.classes[class], &r.classes[number])
		}
		class, levels[i] = number, uint8(level)
		for j := range scopes {
			if level <= j {
				since[j] = start
			}
			if since[j] != (address{}) {
				found.narrow(i, j, start.common(since[j].previous())+1)
			}
		}
	}
	var until [scopes]address // where the run ends: the first address behind it, which is 0 behind the last block
	for i := n - 1; i >= 0; i-- {
		if i < n-1 {
			for j := int(levels[i+1]); j < scopes; j++ {
				until[j] = s.start(i + 1)
			}
		}
		start := s.start(i)
		for j := range scopes {
			if until[j] != (address{}) {
				found.narrow(i, j, start.common(until[j])+1)
			}
		}
	}
	return found
}

// narrow makes the scope for j+1 choices at least so many bits long.
func (r *reach) narrow(block, j, bits int) {
	if j == 0 {
		r.first[block] = max(r.first[block], uint8(bits))
		return
	}
	at := &r.more[block][j-1]
	*at = max(*at, uint8(bits))
}
