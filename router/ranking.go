package router

import (
	"cmp"
	"slices"

	"github.com/isochrone/isochrone/router/rtt"
)

// ranked is how many choices a class lists in the client's own order. Behind them come the others in the order of the
// first one's PoP: who has lost eight PoPs has no use for a finer one.
const ranked = 8

// scopes is for how many leading candidates a block knows the widest scope; a later candidate has the block's own.
const scopes = 4

// ranking orders one set of candidates for every block of a table.
type ranking struct {
	candidates []Choice
	classes    []class
	tails      map[Choice][]Choice // by a class's first choice: all candidates in the order of that PoP
	blocks     [2]rankedBlocks     // of IPv4 and IPv6
}

// class is a ranking that blocks share.
type class struct {
	first [ranked]Choice
	n     uint8 // how many of first are in use
}

type rankedBlocks struct {
	class []uint32
	scope [][scopes]uint8 // of each block: the widest prefix whose blocks agree on the first j+1 choices
}

// unknown is the place number of clients whose place is not known.
const unknown = 0

// costs are the predicted round-trip times between the table's places and PoPs, in milliseconds.
type costs struct {
	byPlace [][]float32 // [place][choice]; of the unknown place: the mean over the world's nodes
}

func newCosts(model *rtt.Model, pops []tablePoP, places []*Place) *costs {
	c := &costs{byPlace: make([][]float32, len(places))}
	for i := range c.byPlace {
		c.byPlace[i] = make([]float32, len(pops))
	}
	targets := make([]*rtt.Target, len(pops))
	for choice, pop := range pops {
		targets[choice] = model.To(pop.Location)
		c.byPlace[unknown][choice] = float32(meanRTT(targets[choice]))
	}
	for number, place := range places {
		if place == nil {
			continue
		}
		from := model.From(place.Location)
		for choice, to := range targets {
			c.byPlace[number][choice] = float32(to.From(&from))
		}
	}
	return c
}

// meanRTT is the predicted round-trip time to a target in milliseconds, averaged over the world's nodes.
func meanRTT(to *rtt.Target) float64 {
	var sum, weight float64
	for _, metro := range rtt.Metros() {
		sum += metro.Weight * to.Milliseconds(metro.Location)
		weight += metro.Weight
	}
	return sum / weight
}

// rank orders the candidates for every block: by predicted round-trip time, where the place is known; else by the
// failover order, and behind it by the mean over the world's nodes.
func rank(t *Table, costs *costs, candidates, failover []Choice) *ranking {
	r := &ranking{candidates: candidates, tails: map[Choice][]Choice{}}
	numbers := map[class]uint32{}
	ofPlace := make([]uint32, len(t.places))
	order := make([]Choice, len(candidates))
	for place := range t.places {
		copy(order, candidates)
		cost := costs.byPlace[place]
		slices.SortFunc(order, func(a, b Choice) int {
			if place == unknown {
				if o := cmp.Compare(standsAt(failover, a), standsAt(failover, b)); o != 0 {
					return o
				}
			}
			return cmp.Or(cmp.Compare(cost[a], cost[b]), cmp.Compare(a, b))
		})
		k := class{n: uint8(min(len(order), ranked))}
		copy(k.first[:k.n], order)
		number, known := numbers[k]
		if !known {
			number = uint32(len(r.classes))
			numbers[k] = number
			r.classes = append(r.classes, k)
			r.addTail(t, order[0])
		}
		ofPlace[place] = number
	}
	r.blocks[0] = r.assign(t.v4, ofPlace)
	r.blocks[1] = r.assign(t.v6, ofPlace)
	return r
}

// standsAt returns where c stands in the list, or the list's length.
func standsAt(list []Choice, c Choice) int {
	if i := slices.Index(list, c); i >= 0 {
		return i
	}
	return len(list)
}

// addTail orders all candidates by the predicted round-trip time from the PoP of the first choice.
func (r *ranking) addTail(t *Table, first Choice) {
	if len(r.candidates) <= ranked || r.tails[first] != nil {
		return
	}
	from := t.model.To(t.pops[first].Location)
	tail := slices.Clone(r.candidates)
	slices.SortFunc(tail, func(a, b Choice) int {
		return cmp.Or(
			cmp.Compare(from.Milliseconds(t.pops[a].Location), from.Milliseconds(t.pops[b].Location)),
			cmp.Compare(a, b))
	})
	r.tails[first] = tail
}

// assign gives each block of a space its class, and its scopes.
func (r *ranking) assign(s *space, ofPlace []uint32) rankedBlocks {
	b := rankedBlocks{class: make([]uint32, len(s.starts)), scope: make([][scopes]uint8, len(s.starts))}
	for i, place := range s.place {
		b.class[i] = ofPlace[place]
	}
	for j := range scopes {
		same := r.agreeing(j + 1)
		for from := 0; from < len(b.class); {
			to := from + 1
			for to < len(b.class) && same[b.class[to]] == same[b.class[from]] {
				to++
			}
			widen(s, b.scope, j, from, to)
			from = to
		}
	}
	return b
}

// agreeing numbers the classes so that those which agree on their first n choices have one number.
func (r *ranking) agreeing(n int) []uint32 {
	numbers := map[[scopes]Choice]uint32{}
	same := make([]uint32, len(r.classes))
	for i, k := range r.classes {
		var lead [scopes]Choice
		copy(lead[:n], k.first[:])
		number, known := numbers[lead]
		if !known {
			number = uint32(len(numbers))
			numbers[lead] = number
		}
		same[i] = number
	}
	return same
}

// widen sets scope[j] of the blocks from..to-1, which agree: for each the widest prefix that holds it and lies among them.
func widen(s *space, scope [][scopes]uint8, j, from, to int) {
	first, last := s.starts[from], s.starts[to-1].last(int(s.bits[to-1]))
	for i := from; i < to; i++ {
		bits := int(s.bits[i])
		for bits > 0 {
			start := s.starts[i].mask(bits - 1)
			if start.less(first) || last.less(start.last(bits-1)) {
				break
			}
			bits--
		}
		scope[i][j] = uint8(bits)
	}
}
