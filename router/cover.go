package router

import (
	"net/netip"
	"slices"
)

// cuts are the prefixes that rules of a topology name. A client's cut is the longest one that holds it.
type cuts struct {
	prefixes []netip.Prefix // in address order, the wider one first; the first stands for none
}

// newCuts collects the prefixes of all rules.
func newCuts(rankings []*ranking) *cuts {
	c := &cuts{}
	for _, r := range rankings {
		for _, rule := range r.policy.Rules {
			c.prefixes = append(c.prefixes, rule.Prefixes...)
		}
	}
	slices.SortFunc(c.prefixes, netip.Prefix.Compare)
	c.prefixes = slices.Insert(slices.Compact(c.prefixes), 0, netip.Prefix{})
	return c
}

// cover divides the address spaces into blocks of one origin: the atlas's, divided further by the prefixes of the RTT map
// and of rules.
func (t *Table) cover() {
	t.cuts = newCuts(t.rankings)
	t.v4, t.v6 = t.atlas.v4, t.atlas.v6
	if t.rttMap.Len() == 0 && len(t.cuts.prefixes) == 1 {
		return
	}
	for place := range t.atlas.places {
		t.origins = append(t.origins, origin{place: uint32(place), measured: noPrefix})
	}
	t.v4, t.v6 = t.refine(t.atlas.v4), t.refine(t.atlas.v6)
}

// segments divide an address space: each goes on until the next one starts.
type segment struct {
	start  address
	number int32 // of the longest prefix that holds these addresses, or noPrefix
}

// segmentsOf flattens prefixes that may lie in each other. They come in address order, the wider one first.
func segmentsOf(count int, prefix func(int) netip.Prefix, v4 bool) []segment {
	segments := []segment{{number: noPrefix}}
	type open struct {
		last   address
		number int32
	}
	var around []open // that hold the present address, the innermost last
	begin := func(at address, number int32) {
		if last := &segments[len(segments)-1]; last.start == at {
			last.number = number
			return
		}
		segments = append(segments, segment{at, number})
	}
	closeBefore := func(at address, all bool) {
		for len(around) > 0 && (all || around[len(around)-1].last.less(at)) {
			ended := around[len(around)-1]
			around = around[:len(around)-1]
			next, more := ended.last.next()
			if !more {
				continue
			}
			outer := int32(noPrefix)
			if len(around) > 0 {
				outer = around[len(around)-1].number
			}
			begin(next, outer)
		}
	}
	for i := range count {
		p := prefix(i)
		if !p.IsValid() || p.Addr().Is4() != v4 {
			continue
		}
		start := addressOf(p.Addr())
		closeBefore(start, false)
		begin(start, int32(i))
		around = append(around, open{start.last(p.Bits()), int32(i)})
	}
	closeBefore(address{}, true)
	return segments
}

// refine divides the blocks of a space of the atlas by the map's prefixes and by cuts.
func (t *Table) refine(s *space) *space {
	measured := segmentsOf(t.rttMap.Len(), t.rttMap.Prefix, s.v4)
	cut := segmentsOf(len(t.cuts.prefixes), func(i int) netip.Prefix { return t.cuts.prefixes[i] }, s.v4)
	latest := map[origin]uint32{} // of origins with a cut, which are few
	return s.divide([][]segment{measured, cut}, func(place uint32, numbers []int32) uint32 {
		return t.number(origin{place, numbers[0], uint32(max(numbers[1], 0))}, latest)
	})
}

// divide returns a space whose blocks are those of s, divided where segments begin. Number makes the origin of a block of the
// one that it had and the numbers of the segments that it lies in.
func (s *space) divide(layers [][]segment, number func(origin uint32, numbers []int32) uint32) *space {
	b, numbers := spaceBuilder{v4: s.v4}, make([]int32, len(layers))
	for block := range s.blocks() {
		last := s.start(block).last(s.bits(block))
		for !b.full && !last.less(b.free) {
			to := last
			for i, segments := range layers {
				for len(segments) > 1 && !b.free.less(segments[1].start) {
					segments = segments[1:]
				}
				if layers[i], numbers[i] = segments, segments[0].number; len(segments) > 1 && !to.less(segments[1].start) {
					to = segments[1].start.previous()
				}
			}
			b.cover(to, number(s.origin[block], numbers))
		}
	}
	return b.finish()
}

// number returns the number of an origin. One that was measured has a new one for each run of its blocks, since hardly two
// prefixes were measured alike.
func (t *Table) number(o origin, known map[origin]uint32) uint32 {
	if o.measured == noPrefix && o.cut == 0 {
		return o.place
	}
	if n := len(t.origins) - 1; t.origins[n] == o {
		return uint32(n)
	}
	if number, ok := known[o]; ok {
		return number
	}
	t.origins = append(t.origins, o)
	if o.measured == noPrefix {
		known[o] = uint32(len(t.origins) - 1)
	}
	return uint32(len(t.origins) - 1)
}
