package topology

import (
	"hash/maphash"
	"iter"
)

// keyShards is a power of two: of 100,000 keys, about as many as this many share one.
const keyShards = 1024

// KeySet is a set of API keys' records by id. It is immutable and safe for concurrent use; a nil one is empty. One that differs by a
// few keys shares nearly all of itself with the other.
type KeySet struct {
	seed   maphash.Seed
	shards [keyShards]map[string]*Key
	count  int
	sum    digest
}

// NewKeySet returns a set of keys.
func NewKeySet(keys map[string]*Key) *KeySet {
	e := keySetEditor{}
	for id, k := range keys {
		e.put(id, k)
	}
	return e.set()
}

// Lookup returns the key of an id, or nil.
func (s *KeySet) Lookup(id string) *Key {
	if s == nil {
		return nil
	}
	return s.shards[s.shard(id)][id]
}

// Len returns how many keys there are.
func (s *KeySet) Len() int {
	if s == nil {
		return 0
	}
	return s.count
}

// Hash returns 64 hexadecimal digits that are the same for sets of the same keys.
func (s *KeySet) Hash() string {
	if s == nil {
		return digest{}.String()
	}
	return s.sum.String()
}

// All yields all keys, in no order.
func (s *KeySet) All() iter.Seq2[string, *Key] {
	return func(yield func(string, *Key) bool) {
		if s == nil {
			return
		}
		for _, shard := range s.shards {
			for id, k := range shard {
				if !yield(id, k) {
					return
				}
			}
		}
	}
}

func (s *KeySet) shard(id string) int { return int(maphash.String(s.seed, id) % keyShards) }

// keySetEditor makes sets that follow one another. Of a set that was given away it copies a shard before the first change of it.
type keySetEditor struct {
	next *KeySet         // in the making; nil before the first
	own  [keyShards]bool // shards that no set has which was given away
	last *KeySet         // given away; nil when next differs from it
}

func (e *keySetEditor) put(id string, k *Key) {
	shard := e.writable(id)
	if before, there := shard[id]; there {
		e.next.sum = e.next.sum.minus(digestOfKey(id, before))
	} else {
		e.next.count++
	}
	shard[id] = k
	e.next.sum = e.next.sum.plus(digestOfKey(id, k))
}

func (e *keySetEditor) remove(id string) {
	k := e.next.Lookup(id)
	if k == nil {
		return
	}
	delete(e.writable(id), id)
	e.next.count--
	e.next.sum = e.next.sum.minus(digestOfKey(id, k))
}

// writable returns the shard of an id, to be changed.
func (e *keySetEditor) writable(id string) map[string]*Key {
	if e.next == nil {
		e.next = &KeySet{seed: maphash.MakeSeed()}
	}
	if e.last != nil { // from which the next one begins to differ
		copied := *e.next
		e.next, e.last = &copied, nil
		clear(e.own[:])
	}
	i := e.next.shard(id)
	if !e.own[i] {
		fresh := make(map[string]*Key, len(e.next.shards[i])+1)
		for id, k := range e.next.shards[i] {
			fresh[id] = k
		}
		e.next.shards[i], e.own[i] = fresh, true
	}
	return e.next.shards[i]
}

// set gives the present set away: the very one of the last call, unless something has changed.
func (e *keySetEditor) set() *KeySet {
	e.last = e.next
	return e.next
}
