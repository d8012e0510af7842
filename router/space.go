package router

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// address is an IPv6 address, or an IPv4 address in the upper 32 bits of hi, so that one code serves both families.
type address struct{ hi, lo uint64 }

func addressOf(a netip.Addr) address {
	if a.Is4() {
		b := a.As4()
		return address{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return address{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (a address) less(b address) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// mask keeps the first bits of the address.
func (a address) mask(bits int) address {
	switch {
	case bits >= 64:
		return address{a.hi, a.lo &^ (^uint64(0) >> (bits - 64))}
	default:
		return address{a.hi &^ (^uint64(0) >> bits), 0}
	}
}

// last returns the last address of the prefix that starts at a.
func (a address) last(bits int) address {
	if bits >= 64 {
		return address{a.hi, a.lo | ^uint64(0)>>(bits-64)}
	}
	return address{a.hi | ^uint64(0)>>bits, ^uint64(0)}
}

// next returns the address after a, and false after the last one.
func (a address) next() (address, bool) {
	if a.lo++; a.lo == 0 {
		a.hi++
	}
	return a, a != address{}
}

// previous returns the address before a, which is not the first one.
func (a address) previous() address {
	if a.lo == 0 {
		a.hi--
	}
	a.lo--
	return a
}

// common returns how many of the first bits of two addresses are the same.
func (a address) common(b address) int {
	if x := a.hi ^ b.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(a.lo^b.lo)
}

// bit tells the bit with the given number, 0 being the highest.
func (a address) bit(i int) bool {
	if i < 64 {
		return a.hi>>(63-i)&1 == 1
	}
	return a.lo>>(127-i)&1 == 1
}

// prefix makes a prefix of its first address.
func (a address) prefix(bits int, v4 bool) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	if v4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), bits)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), bits)
}

// space is the longest-prefix match of one address family: blocks that cover all addresses, in address order. A block is a
// prefix, so its size follows from where the next one starts.
type space struct {
	v4      bool
	starts4 []uint32  // of IPv4 blocks
	starts6 []address // of IPv6 blocks
	origin  []uint32  // of each block: what is known of its addresses
	index   []uint32  // how many blocks start before each chunk of the space, and before its end
	within  []uint16  // of IPv4 blocks: where they start in their chunk
	shift   int       // of IPv6: from an address to its chunk
}

// The IPv4 space has chunks of 2^chunkBits4 addresses, of which the search looks at one only (as in DXR: Zec, Rizzo and
// Mikuc, "DXR: Towards a Billion Routing Lookups per Second in Software", CCR 2012).
const chunkBits4 = 14

func (s *space) blocks() int { return len(s.origin) }

// start returns the first address of a block; of the block behind the last one it is the first address of all.
func (s *space) start(block int) address {
	switch {
	case block == len(s.origin):
		return address{}
	case s.v4:
		return address{hi: uint64(s.starts4[block]) << 32}
	}
	return s.starts6[block]
}

// bits returns the length of a block's prefix.
func (s *space) bits(block int) int {
	if s.v4 {
		var next uint32
		if block+1 < len(s.starts4) {
			next = s.starts4[block+1]
		}
		return bits.LeadingZeros32(next - s.starts4[block] - 1) // the only block of a space has the size 0, for 1<<32
	}
	first, next := s.start(block), s.start(block+1)
	return first.common(next.previous())
}

// find4 returns the block that holds an IPv4 address: the last one that starts at or before it.
func (s *space) find4(a uint32) int {
	chunk, suffix := a>>chunkBits4, uint16(a&(1<<chunkBits4-1))
	low, high := int(s.index[chunk])-1, int(s.index[chunk+1])
	for high-low > 1 {
		middle := int(uint(low+high) >> 1)
		if suffix < s.within[middle] {
			high = middle
		} else {
			low = middle
		}
	}
	return low
}

// find6 returns the block that holds an IPv6 address. The index knows global unicast addresses, 2000::/3.
func (s *space) find6(a address) int {
	low, high := 0, len(s.starts6)
	if a.hi>>61 == 1 {
		chunk := a.hi << 3 >> s.shift
		low, high = int(s.index[chunk])-1, int(s.index[chunk+1])
	}
	for high-low > 1 {
		middle := int(uint(low+high) >> 1)
		if a.less(s.starts6[middle]) {
			high = middle
		} else {
			low = middle
		}
	}
	return low
}

// find returns the block that holds an address.
func (s *space) find(a address) int {
	if s.v4 {
		return s.find4(uint32(a.hi >> 32))
	}
	return s.find6(a)
}

// prefix returns the prefix of a block.
func (s *space) prefix(block int) netip.Prefix { return s.start(block).prefix(s.bits(block), s.v4) }

// spaceBuilder makes a space of networks that come in address order. What lies between them has the origin 0.
type spaceBuilder struct {
	v4     bool
	starts []address
	bits   []uint8
	origin []uint32
	free   address // the first address that no block covers yet
	full   bool
}

// add appends a network, and reports whether it follows those before it without an overlap.
func (b *spaceBuilder) add(network netip.Prefix, origin uint32) bool {
	start, bits := addressOf(network.Addr()), network.Bits()
	if b.full || start.less(b.free) {
		return false
	}
	if b.free.less(start) {
		b.cover(start.previous(), 0)
	}
	b.push(start, bits, origin)
	return true
}

// cover appends blocks for all addresses from the first free one up to and including the last one given.
func (b *spaceBuilder) cover(last address, origin uint32) {
	length := b.length()
	for !b.full && !last.less(b.free) {
		// The widest prefix that starts here and does not go beyond.
		bits := length
		for bits > 0 && b.free.mask(bits-1) == b.free && !last.less(b.free.last(bits-1)) {
			bits--
		}
		b.push(b.free, bits, origin)
	}
}

func (b *spaceBuilder) length() int {
	if b.v4 {
		return 32
	}
	return 128
}

// push appends a block and joins it with its sibling, as often as both are of one origin.
func (b *spaceBuilder) push(start address, bits int, origin uint32) {
	next, more := start.last(bits).next()
	b.free, b.full = next, !more
	for n := len(b.starts); n > 0 && bits > 0; n = len(b.starts) {
		if int(b.bits[n-1]) != bits || b.origin[n-1] != origin || !start.bit(bits-1) || b.starts[n-1] != start.mask(bits-1) {
			break
		}
		bits, start = bits-1, b.starts[n-1]
		b.starts, b.bits, b.origin = b.starts[:n-1], b.bits[:n-1], b.origin[:n-1]
	}
	b.starts = append(b.starts, start)
	b.bits = append(b.bits, uint8(bits))
	b.origin = append(b.origin, origin)
}

// The index of IPv6 has about as many entries as there are blocks, within these bounds.
const minIndexBits, maxIndexBits = 8, 20

// finish covers what is left and makes the index.
func (b *spaceBuilder) finish() *space {
	b.cover(address{^uint64(0), ^uint64(0)}, 0)
	s := &space{v4: b.v4, origin: b.origin}
	var chunks int
	var begin func(chunk int) address
	if b.v4 {
		chunks = 1 << (32 - chunkBits4)
		begin = func(chunk int) address { return address{hi: uint64(chunk) << (32 + chunkBits4)} }
		s.starts4, s.within = make([]uint32, len(b.starts)), make([]uint16, len(b.starts))
		for i, start := range b.starts {
			s.starts4[i] = uint32(start.hi >> 32)
			s.within[i] = uint16(s.starts4[i] & (1<<chunkBits4 - 1))
		}
	} else {
		indexBits := min(max(bits.Len(uint(len(b.starts))), minIndexBits), maxIndexBits)
		chunks, s.shift = 1<<indexBits, 64-indexBits
		begin = func(chunk int) address { return address{hi: 1<<61 + uint64(chunk)<<(61-indexBits)} }
		s.starts6 = b.starts
	}
	s.index = make([]uint32, chunks+1)
	before := 0
	for chunk := range s.index {
		if b.v4 && chunk == chunks {
			before = len(b.starts)
		}
		for before < len(b.starts) && b.starts[before].less(begin(chunk)) {
			before++
		}
		s.index[chunk] = uint32(before)
	}
	return s
}
