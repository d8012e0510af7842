package packet

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// draw is a source of chance that is counted, not consumed: a number is a function of the seed, of what it is for, and of when. So it does not
// matter who asks first, and runs of one seed are equal.
type draw uint64

// What a number is for.
const (
	forLoss draw = iota + 1
	forJitter
	forReorder
	forMore // loss that a fault adds
	forClient
	forFarm
	forNext
	forFresh
	forBackoff
	forStart
)

// with returns a source for something.
func (d draw) with(what uint64) draw { return draw(mix(uint64(d) ^ mix(what+0x9e3779b97f4a7c15))) }

// of returns a source for packets from one address to another at a time.
func (d draw) of(from, to netip.Addr, at time.Time) draw {
	a, b := from.As16(), to.As16()
	d = d.with(binary.BigEndian.Uint64(a[8:])).with(binary.BigEndian.Uint64(b[8:]))
	return d.with(binary.BigEndian.Uint64(a[:8]) ^ mix(binary.BigEndian.Uint64(b[:8]))).with(uint64(at.UnixNano()))
}

// uniform returns a number in 0..1, below 1.
func (d draw) uniform() float64 { return float64(mix(uint64(d))>>11) / (1 << 53) }

// exponential returns a number whose mean is 1.
func (d draw) exponential() float64 { return -math.Log(1 - d.uniform()) }

// below returns a time from 0 to below a bound.
func (d draw) below(bound time.Duration) time.Duration {
	return time.Duration(d.uniform() * float64(bound))
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
