package payload

import (
	"bytes"
	"hash/maphash"
)

// fewNames is how many names of an object are compared one by one; more are found by a table.
const fewNames = 12

// add notes the name of a field of the object whose names begin at first. It fails for one that the object has already: parsers differ in
// which of the two values they take (RFC 8259 section 4).
func (s *scanner) add(n name, first, at int) bool {
	if s.counted++; s.counted > maxNames {
		return s.fail(at, "has more than %d fields", maxNames)
	}
	plain := s.plain(n, 0)
	n.hash = maphash.Bytes(seed, plain)
	if len(s.names)-first < fewNames {
		for i := first; i < len(s.names); i++ {
			if s.names[i].hash == n.hash && bytes.Equal(s.plain(s.names[i], 1), plain) {
				return s.twice(n, at)
			}
		}
		s.names = append(s.names, n)
		return true
	}
	table := s.tables.of(first, s.names[first:])
	for _, i := range table.candidates(n.hash) {
		if bytes.Equal(s.plain(s.names[first+int(i)], 1), plain) {
			return s.twice(n, at)
		}
	}
	table.put(n.hash, uint32(len(s.names)-first))
	s.names = append(s.names, n)
	return true
}

func (s *scanner) twice(n name, at int) bool {
	return s.fail(at, "has the field %.40q twice in an object", s.plain(n, 0))
}

// table finds the names of one big object by their hashes, whose seed nobody knows, so that nobody can choose names that collide.
type table struct {
	first   int
	byHash  map[uint64]uint32
	collide map[uint64][]uint32 // further names of a hash, which hardly ever are
}

func (t *table) candidates(hash uint64) []uint32 {
	i, ok := t.byHash[hash]
	if !ok {
		return nil
	}
	return append([]uint32{i}, t.collide[hash]...)
}

func (t *table) put(hash uint64, i uint32) {
	if _, ok := t.byHash[hash]; !ok {
		t.byHash[hash] = i
		return
	}
	if t.collide == nil {
		t.collide = map[uint64][]uint32{}
	}
	t.collide[hash] = append(t.collide[hash], i)
}

// tables are those of the big objects that are open, the innermost last.
type tables []*table

// of returns the table of the object whose names begin at first, and makes it of the names so far.
func (t *tables) of(first int, names []name) *table {
	if n := len(*t); n > 0 && (*t)[n-1].first == first {
		return (*t)[n-1]
	}
	made := &table{first: first, byHash: make(map[uint64]uint32, 4*fewNames)}
	for i, n := range names {
		made.put(n.hash, uint32(i))
	}
	*t = append(*t, made)
	return made
}

// release forgets the table of an object that has ended.
func (t *tables) release(first int) {
	if n := len(*t); n > 0 && (*t)[n-1].first == first {
		*t = (*t)[:n-1]
	}
}

func (t *tables) reset() { *t = (*t)[:0] }
