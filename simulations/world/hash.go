package world

import (
	"math"
	"sync"
)

// What hashes are for. Each has numbers of its own, so that one draw tells nothing of another.
const (
	forFactor uint64 = iota + 1
	forNetworkFactor
	forDetour
	forDetourSize
	forAccess
	forLine
	forResolver
	forOrder
	forGeo
	forWrongPlace
	forPerception
	forFar
	forFarPick
	forFlip
	forJitterScale
	forJitter
	forAccessJitter
	forBackbone
)

// mix is the finalizer of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

const golden = 0x9e3779b97f4a7c15

// draw returns 64 random bits for some numbers.
func draw(seed, what uint64, numbers ...uint64) uint64 {
	h := mix(seed + what*golden)
	for _, n := range numbers {
		h = mix(h + golden + n)
	}
	return h
}

// saltOf returns a number for a name (FNV-1a).
func saltOf(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return mix(h)
}

// below reports whether random bits, as a number in 0..1, are below a part.
func below(bits uint64, part float64) bool {
	return bits>>11 < uint64(part*(1<<53))
}

// tableBits is how many of the random bits a table of a distribution is looked up by.
const tableBits = 12

// Fixed-point numbers of factors have so many bits behind the point.
const factorBits = 14

// factorTable returns quantiles of exp(deviation × z), z of the standard normal distribution, as fixed-point numbers.
func factorTable(deviation float64) *[1 << tableBits]uint32 {
	table := new([1 << tableBits]uint32)
	for i, z := range normal() {
		table[i] = uint32(math.Round(math.Exp(deviation*z) * (1 << factorBits)))
	}
	return table
}

// normal returns quantiles of the standard normal distribution.
var normal = sync.OnceValue(func() *[1 << tableBits]float64 {
	table := new([1 << tableBits]float64)
	for i := range table {
		table[i] = math.Sqrt2 * math.Erfinv((float64(2*i+1))/(1<<tableBits)-1)
	}
	return table
})

// exponential returns quantiles of the exponential distribution with mean 1, as fixed-point numbers.
var exponential = sync.OnceValue(func() *[1 << tableBits]int64 {
	table := new([1 << tableBits]int64)
	for i := range table {
		table[i] = int64(math.Round(-math.Log(1-(float64(i)+0.5)/(1<<tableBits)) * (1 << factorBits)))
	}
	return table
})

// at looks a table up by random bits.
func at[T any](table *[1 << tableBits]T, bits uint64) T { return table[bits>>(64-tableBits)] }

// times multiplies with a fixed-point number.
func times(us uint32, factor uint32) uint32 {
	return uint32((uint64(us)*uint64(factor) + 1<<(factorBits-1)) >> factorBits)
}
