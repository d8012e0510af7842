package router

import "math/bits"

// Clients are split among PoPs by bucket: by a hash of the client's address cut to splitBits4 or splitBits6, never at random
// for a question. So a cached answer is right for all whom its scope covers, and a client stays where it is.
const (
	splitBits4 = 20
	splitBits6 = 40
)

// bucket is the hash of a client's split cell.
type bucket uint64

func bucketOf(a address, v4 bool) bucket {
	if v4 {
		return bucket(mix(a.hi >> (64 - splitBits4) << 1))
	}
	return bucket(mix(a.hi>>(64-splitBits6)<<1 | 1))
}

// What hashes of one bucket are made for; they must not depend on each other.
const (
	forShare uint64 = iota + 1
	forGroup
	forCanary
)

// draw returns a number that is alike for all clients of a bucket, and independent of the draws by other salts.
func (b bucket) draw(s salt) uint64 { return mix(uint64(b) ^ uint64(s)) }

// salt is what makes the draws of a name for one purpose.
type salt uint64

func saltFor(name, purpose uint64) salt { return salt(mix(name + purpose)) }

// mix is a bijection whose bits all depend on all bits of its argument (David Stafford's variant 13 of the finalizer of
// MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// saltOf hashes a name (FNV-1a), so that draws outlive the numbering of a table.
func saltOf(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return mix(h)
}

// score ranks the members of a group for a bucket: the lowest score wins. The chance to win is in proportion to the weight,
// and who is lost loses its own buckets only (weighted rendezvous: Schindelhauer and Schomaker, "Weighted Distributed Hash
// Tables", SPAA 2005). It is -log2 of a number drawn from (0, 1], in units of 2^-32, divided by the weight, in whole numbers so
// that all machines agree. Where all weigh alike, the draw itself does.
func score(draw uint64, weights []uint64, c Choice) uint64 {
	if weights == nil {
		return ^draw
	}
	return negLog2(draw) / weights[c]
}

// negLog2 returns -log2((x+1)/2^64) in units of 2^-32, to within 2^-20 of it.
func negLog2(x uint64) uint64 {
	if x++; x == 0 {
		return 0
	}
	zeros := bits.LeadingZeros64(x)
	mantissa := x << zeros                        // in [2^63, 2^64)
	i := mantissa << 1 >> (64 - logBits)          // its first bits after the leading one
	rest := mantissa << (1 + logBits) >> (32 + 1) // what lies between two entries, in units of 2^-31
	low, high := logTable[i], logTable[i+1]       // log2 of the entries
	log := low + (high-low)*rest>>31              // linear in between
	return uint64(zeros+1)<<32 - log
}

// logTable has log2(1 + i/2^logBits) in units of 2^-32.
const logBits = 9

var logTable = makeLogTable()

// makeLogTable computes by squaring, with whole numbers: one bit of the logarithm for each squaring.
func makeLogTable() (table [1<<logBits + 1]uint64) {
	for i := range table {
		x, log := uint64(1)<<62+uint64(i)<<(62-logBits), uint64(0) // x is in [1, 2], in units of 2^-62
		for range 32 {
			high, low := bits.Mul64(x, x)
			x = high<<2 | low>>62 // x² in units of 2^-62
			log <<= 1
			if x >= 1<<63 {
				log |= 1
				x >>= 1
			}
		}
		table[i] = log
	}
	table[1<<logBits] = 1 << 32
	return table
}
