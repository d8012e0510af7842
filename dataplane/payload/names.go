package payload

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

const (
	fewNames = 16      // of an object are compared one by one; more have a hash table
	maxNames = 1 << 16 // of one object
	inArena  = 1 << 31 // of name.from
)

// name is a field's name in an object that is open.
type name struct {
	sum      uint64
	from, to uint32 // in the body, or in the arena
}

// opened is where the names, the table and the arena of an object begin.
type opened struct{ names, slots, arena int }

func (s *scanner) nameText(n name) []byte {
	if n.from&inArena != 0 {
		return s.arena[n.from&^inArena : n.to]
	}
	return s.body[n.from:n.to]
}

// add adds a name to the innermost object, and reports whether it is new. Hashes have a random seed, so nobody can choose names that collide.
func (s *scanner) add(o *opened, n name, text []byte) bool {
	known := s.names[o.names:]
	if len(known) < fewNames {
		n.sum = summary(text)
		for i := range known {
			if known[i].sum == n.sum && bytes.Equal(s.nameText(known[i]), text) {
				return false
			}
		}
		s.names = append(s.names, n)
		return true
	}
	if len(known) >= maxNames {
		s.fail(int(n.from&^inArena), "an object has more than 65536 fields")
		return false
	}
	if len(known) == fewNames {
		for i := range known {
			known[i].sum = maphash.Bytes(s.seed, s.nameText(known[i]))
		}
	}
	// The tables of inner objects are gone, so this one is the last and can grow.
	if size := len(s.slots) - o.slots; 2*(len(known)+1) > size {
		size = max(4*fewNames, 2*size)
		s.slots = append(s.slots[:o.slots], make([]uint32, size)...)
		for i := range known {
			*s.slot(o, known, known[i].sum, nil) = uint32(i + 1)
		}
	}
	n.sum = maphash.Bytes(s.seed, text)
	slot := s.slot(o, known, n.sum, text)
	if *slot != 0 {
		return false
	}
	*slot = uint32(len(known) + 1)
	s.names = append(s.names, n)
	return true
}

// slot returns the slot of a name, or the free one where it would be. Without a text it is a free one.
func (s *scanner) slot(o *opened, known []name, sum uint64, text []byte) *uint32 {
	table := s.slots[o.slots:]
	for i := sum; ; i++ {
		slot := &table[i&uint64(len(table)-1)]
		if *slot == 0 {
			return slot
		}
		if n := known[*slot-1]; text != nil && n.sum == sum && bytes.Equal(s.nameText(n), text) {
			return slot
		}
	}
}

// summary tells most names apart: by length, beginning and end.
func summary(text []byte) uint64 {
	n := len(text)
	if n >= 8 {
		return binary.LittleEndian.Uint64(text) ^ binary.LittleEndian.Uint64(text[n-8:])*0x9e3779b97f4a7c15 ^ uint64(n)<<56
	}
	sum := uint64(n)
	for _, c := range text {
		sum = sum<<8 | uint64(c)
	}
	return sum
}
