package world

import "sync"

// What one path varies by: P95 less P50 over a month of one-minute samples, in µs, by the path's median: its median over paths, and the
// deviation of its logarithm, from its 90 % point. docs/rtt-model.md has the measurement.
var jitterBands = [...]struct {
	below, median uint32
	factors       int
}{{50_000, 3000, 0}, {120_000, 3000, 1}, {200_000, 4500, 2}, {1 << 31, 7000, 3}}

// Jitter returns by how much a sample of the round-trip time between a network and a PoP differs from its median, in µs: exponential above a
// floor, on the path and on the access line. It is 0 in worlds without jitter. The number of the sample is any, such as that of a moment.
func (w *World) Jitter(network, pop int, sample uint64) int32 {
	if j := w.Spec.Network.Jitter; j != nil && !*j {
		return 0
	}
	n := &w.Networks[network]
	way := w.way(network, int(n.Provider), pop)
	salt := draw(w.Seed, forJitter, uint64(network), w.popSalts[pop])
	varies := int64(jitterScale(way, draw(salt, forJitterScale))) * centred(draw(salt, forJitter, sample))
	if n.Line != Datacentre {
		varies += int64(lineJitter[n.Line]) * centred(draw(salt, forAccessJitter, sample))
	}
	return int32(max(varies>>factorBits, -int64(way+n.AccessUS)/2))
}

// PathJitter returns the same for a path between sites with a median in µs, such as from a PoP to a cluster; path is any number that is its own.
func (w *World) PathJitter(us uint32, path, sample uint64) int32 {
	if j := w.Spec.Network.Jitter; j != nil && !*j {
		return 0
	}
	salt := draw(w.Seed, forJitter, path)
	varies := int64(jitterScale(us, draw(salt, forJitterScale))) * centred(draw(salt, forJitter, sample))
	return int32(max(varies>>factorBits, -int64(us)/2))
}

// jitterScale returns the mean of the exponential distribution of a path in µs.
func jitterScale(us uint32, random uint64) uint32 {
	for _, band := range jitterBands {
		if us < band.below {
			// P95 less P50 of an exponential distribution is its mean times ln 20 less ln 2, which is ln 10.
			return times(band.median, at(&jitterFactors()[band.factors], random)) * 10_000 / 23_026
		}
	}
	panic("world: a round-trip time of half an hour")
}

// centred draws from an exponential distribution with mean 1, less its median, as a fixed-point number.
func centred(random uint64) int64 {
	const ln2 = 11_357 // in fixed point
	return at(exponential(), random) - ln2
}

// jitterFactors are the spreads of what paths vary by, for each band: ln of its 90 % point over its median, by the 90 % point of the standard
// normal distribution.
var jitterFactors = sync.OnceValue(func() *[4][1 << tableBits]uint32 {
	var tables [4][1 << tableBits]uint32
	for i, deviation := range []float64{0.2245, 0.6611, 0.6974, 0.7370} {
		tables[i] = *factorTable(deviation)
	}
	return &tables
})
