package dnssec

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// shards is how many parts a cache has, each with a lock of its own, so that many can store at the same time.
const shards = 16

type hash = [sha256.Size]byte

// cache has the signatures of record sets. Without a limit it grows until what is due is dropped. With one, each of its
// shards has two generations of so many record sets: when the newer one is full, it takes the place of the older, which is
// forgotten. What is asked for again is taken over.
type cache struct {
	limit  int // record sets in a generation of a shard; 0 for none
	shards [shards]shard
}

type shard struct {
	lock         sync.RWMutex
	newer, older map[hash][]*dns.RRSIG
}

func newCache(limit int) *cache {
	c := &cache{limit: limit / shards}
	for i := range c.shards {
		c.shards[i].newer = map[hash][]*dns.RRSIG{}
	}
	return c
}

func (c *cache) shard(h hash) *shard { return &c.shards[h[0]%shards] }

// find returns the signatures of a record set, which are not to be changed.
func (c *cache) find(h hash) []*dns.RRSIG {
	s := c.shard(h)
	s.lock.RLock()
	found, isNew := s.newer[h]
	if !isNew {
		found = s.older[h]
	}
	s.lock.RUnlock()
	if isNew || found == nil {
		return found
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.store(h, found, c.limit)
}

// merge stores signatures of a record set, but for keys of which a signature that usable accepts is there already, and returns
// what is stored then.
func (c *cache) merge(h hash, made []*dns.RRSIG, usable func(*dns.RRSIG) bool) []*dns.RRSIG {
	s := c.shard(h)
	s.lock.Lock()
	defer s.lock.Unlock()
	there, ok := s.newer[h]
	if !ok {
		there = s.older[h]
	}
	var all []*dns.RRSIG
	for _, signature := range there {
		if usable(signature) {
			all = append(all, signature)
		}
	}
	for _, signature := range made {
		if signatureOf(all, signature.KeyTag, signature.Algorithm) == nil {
			all = append(all, signature)
		}
	}
	delete(s.newer, h)
	return s.store(h, all, c.limit)
}

// store puts signatures into the newer generation, unless there are some, and returns those that are there then.
func (s *shard) store(h hash, signatures []*dns.RRSIG, limit int) []*dns.RRSIG {
	if there, ok := s.newer[h]; ok {
		return there
	}
	if limit > 0 && len(s.newer) >= limit {
		s.newer, s.older = map[hash][]*dns.RRSIG{}, s.newer
	}
	s.newer[h] = signatures
	delete(s.older, h)
	return signatures
}

// each calls do for every record set, or for those alone that have been asked for since the older ones were adopted, until it returns
// false.
func (c *cache) each(newer bool, do func(hash, []*dns.RRSIG) bool) {
	for i := range c.shards {
		if !c.shards[i].each(newer, do) {
			return
		}
	}
}

func (s *shard) each(newer bool, do func(hash, []*dns.RRSIG) bool) bool {
	s.lock.RLock()
	defer s.lock.RUnlock()
	generations := []map[hash][]*dns.RRSIG{s.newer, s.older}
	if newer {
		generations = generations[:1]
	}
	for _, generation := range generations {
		for h, signatures := range generation {
			if !do(h, signatures) {
				return false
			}
		}
	}
	return true
}

// adopt puts signatures into the older generation.
func (c *cache) adopt(h hash, signatures []*dns.RRSIG) {
	s := c.shard(h)
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.older == nil {
		s.older = map[hash][]*dns.RRSIG{}
	}
	s.older[h] = signatures
}

// drop forgets the record sets one of whose signatures is due, and returns how many they were.
func (c *cache) drop(due func(*dns.RRSIG) bool) int {
	dropped := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.lock.Lock()
		for _, generation := range []map[hash][]*dns.RRSIG{s.older, s.newer} {
			for h, signatures := range generation {
				if anyOf(signatures, due) {
					delete(generation, h)
					dropped++
				}
			}
		}
		s.lock.Unlock()
	}
	return dropped
}

func anyOf(signatures []*dns.RRSIG, is func(*dns.RRSIG) bool) bool {
	for _, signature := range signatures {
		if is(signature) {
			return true
		}
	}
	return false
}

// signatureOf returns the signature that a key has made, or nil.
func signatureOf(signatures []*dns.RRSIG, tag uint16, algorithm uint8) *dns.RRSIG {
	for _, signature := range signatures {
		if signature.KeyTag == tag && signature.Algorithm == algorithm {
			return signature
		}
	}
	return nil
}

// moment reads a time of a signature: seconds modulo 2^32, nearest to now (RFC 4034 section 3.1.5).
func moment(seconds uint32, now time.Time) time.Time {
	return now.Add(time.Duration(int32(seconds-uint32(now.Unix()))) * time.Second).Truncate(time.Second)
}
