package router

import (
	"encoding/binary"
	"net/netip"
	"sort"
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

// bit tells the bit with the given number, 0 being the highest.
func (a address) bit(i int) bool {
	if i < 64 {
		return a.hi>>(63-i)&1 == 1
	}
	return a.lo>>(127-i)&1 == 1
}

// space is the longest-prefix match of one address family: blocks that cover all addresses, in address order.
// An IPv4 address stands in the upper 32 bits, so its blocks have 0 to 32 bits.
type space struct {
	starts []address
	bits   []uint8  // of each block's prefix
	place  []uint32 // index in the table's places of each block; 0 is the unknown place
	index  []uint32 // for each value of an address's first 16 bits, the block that holds the first such address
}

const indexBits = 16

// find returns the number of the block that holds a.
func (s *space) find(a address) int {
	top := a.hi >> (64 - indexBits)
	low, high := int(s.index[top]), len(s.starts)
	if int(top)+1 < len(s.index) {
		high = int(s.index[top+1]) + 1
	}
	// The block is the last one that starts at or before a; the one at low does.
	for high-low > 1 {
		middle := int(uint(low+high) >> 1)
		if a.less(s.starts[middle]) {
			high = middle
		} else {
			low = middle
		}
	}
	return low
}

// prefix returns the prefix of a block, in the family of an address of this space.
func (s *space) prefix(block int, v4 bool) netip.Prefix {
	a, bits := s.starts[block], int(s.bits[block])
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	if v4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), bits)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), bits)
}

// spaceBuilder makes a space of networks that come in address order. What lies between them is of unknown place.
type spaceBuilder struct {
	space
	v4   bool
	free address // the first address that no block covers yet
	full bool
}

// add appends a network, and reports whether it follows those before it without an overlap.
func (b *spaceBuilder) add(network netip.Prefix, place uint32) bool {
	start, bits := addressOf(network.Addr()), network.Bits()
	if b.full || start.less(b.free) {
		return false
	}
	b.fill(start)
	b.push(start, bits, place)
	return true
}

// fill covers all addresses from the first free one up to, but not including, end with blocks of unknown place.
func (b *spaceBuilder) fill(end address) {
	for !b.full && b.free.less(end) {
		// The widest prefix that starts here and ends before end.
		bits := b.length()
		for bits > 0 && b.free.mask(bits-1) == b.free && b.free.last(bits-1).less(end) {
			bits--
		}
		b.push(b.free, bits, 0)
	}
}

func (b *spaceBuilder) length() int {
	if b.v4 {
		return 32
	}
	return 128
}

// push appends a block and joins it with its sibling, as often as both are of one place.
func (b *spaceBuilder) push(start address, bits int, place uint32) {
	next, more := start.last(bits).next()
	b.free, b.full = next, !more
	for n := len(b.starts); n > 0 && bits > 0; n = len(b.starts) {
		if int(b.bits[n-1]) != bits || b.place[n-1] != place || !start.bit(bits-1) || b.starts[n-1] != start.mask(bits-1) {
			break
		}
		bits, start = bits-1, b.starts[n-1]
		b.starts, b.bits, b.place = b.starts[:n-1], b.bits[:n-1], b.place[:n-1]
	}
	b.starts = append(b.starts, start)
	b.bits = append(b.bits, uint8(bits))
	b.place = append(b.place, place)
}

// finish covers what is left and makes the index.
func (b *spaceBuilder) finish() *space {
	end := address{}.last(0)
	if !b.full {
		b.fill(end)
		if !b.full && !end.less(b.free) { // fill stops before end itself
			b.push(b.free, b.length(), 0)
		}
	}
	s := b.space
	s.index = make([]uint32, 1<<indexBits)
	for top := range s.index {
		first := address{hi: uint64(top) << (64 - indexBits)}
		s.index[top] = uint32(sort.Search(len(s.starts), func(i int) bool { return first.less(s.starts[i]) }) - 1)
	}
	return &s
}
