package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
)

// The answers of a limiter.
type permission uint8

const (
	passes permission = iota
	slips             // send it truncated, so that who is no forger asks again by TCP
	drops
)

// limiter bounds how many answers a client prefix gets: a bucket of one second's worth that leaks at the allowed rate, known by
// when it will be empty (the generic cell rate algorithm, ITU-T I.371). The buckets are a table of fixed size in sets of four;
// a new prefix takes the bucket that is empty for the longest time. It is safe for concurrent use and takes no lock.
type limiter struct {
	buckets []atomic.Uint64 // tag of the prefix in the upper bits, below it the time, in ticks
	seed    uint64
	ticks   uint64 // for one answer
	burst   uint64
	slip    uint32
	exempt  []netip.Prefix
}

const (
	limiterSets   = 1 << 16
	limiterWays   = 4
	tickBits      = 4 // a tick is 16 ns
	timeBits      = 52
	timeMask      = 1<<timeBits - 1
	ticksInSecond = 1e9 / (1 << tickBits)
)

// newLimiter returns nil for no limit.
func newLimiter(c RateLimit) *limiter {
	if c.PerSecond <= 0 {
		return nil
	}
	l := &limiter{
		buckets: make([]atomic.Uint64, limiterSets*limiterWays), seed: rand.Uint64(),
		ticks: max(1, ticksInSecond/uint64(c.PerSecond)), burst: ticksInSecond, slip: uint32(max(0, c.Slip)),
	}
	for _, p := range c.Exempt {
		l.exempt = append(l.exempt, p.Masked())
	}
	return l
}

// sameAs reports whether another configuration would make no difference.
func (c RateLimit) sameAs(d RateLimit) bool {
	return c.PerSecond == d.PerSecond && c.Slip == d.Slip && slices.Equal(c.Exempt, d.Exempt)
}

// allow counts one answer to a client at a time, in nanoseconds since any fixed moment. Limited is the caller's count of answers
// over the limit.
func (l *limiter) allow(from netip.Addr, nanoseconds int64, limited *uint32) permission {
	for _, p := range l.exempt {
		if p.Contains(from) {
			return passes
		}
	}
	if l.take(l.hash(from), uint64(nanoseconds)>>tickBits&timeMask) {
		return passes
	}
	if *limited++; l.slip > 0 && *limited%l.slip == 0 {
		return slips
	}
	return drops
}

// hash is keyed, so that nobody can choose addresses that share a bucket.
func (l *limiter) hash(from netip.Addr) uint64 {
	var prefix uint64
	if from.Is4() {
		a := from.As4()
		prefix = uint64(binary.BigEndian.Uint32(a[:])) >> 8
	} else {
		a := from.As16()
		prefix = binary.BigEndian.Uint64(a[:])>>8 | 1<<63
	}
	x := (prefix ^ l.seed) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// take puts one answer into the bucket of a prefix, and reports whether it still fits. Times are compared as ages, since they begin
// anew after two years: how long ago the latest moment was that a bucket may become empty at.
func (l *limiter) take(hash, now uint64) bool {
	set := hash % limiterSets * limiterWays
	tag := hash >> timeBits << timeBits
	latest := 2 * l.burst // from now: a clock that another thread has read since may be a little ahead
	for {
		// The bucket of the prefix, else the one that is empty the longest.
		var (
			bucket     *atomic.Uint64
			value, age uint64
			known      bool
		)
		for i := range uint64(limiterWays) {
			b := &l.buckets[set+i]
			v := b.Load()
			a := (now + latest - v) & timeMask
			if known = v&^timeMask == tag && v != 0; known || bucket == nil || a > age {
				bucket, value, age = b, v, a
			}
			if known {
				break
			}
		}
		level := l.ticks // in the bucket with this answer
		if known && age < latest {
			level += latest - age
		}
		if level > l.burst {
			return false
		}
		if bucket.CompareAndSwap(value, tag|(now+level)&timeMask) {
			return true
		}
	}
}
