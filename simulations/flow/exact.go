package flow

import "math"

// These give the same bits on every machine: package math has assembly of its own for some, and compilers may fuse a product with a sum. A
// conversion to float64 keeps them from it (Go specification, "Floating-point operators").

// ln2 in two parts, of which the first has few bits, so that its multiples are exact.
const (
	ln2High = 6.93147180369123816490e-01
	ln2Low  = 1.90821492927058770002e-10
)

// exp returns e to the x, to about 1 in 10^15.
func exp(x float64) float64 {
	switch {
	case x > 709:
		return math.Inf(1)
	case x < -745:
		return 0
	}
	k := math.Floor(float64(x/math.Ln2) + 0.5)
	r := float64(x-float64(k*ln2High)) - float64(k*ln2Low)
	sum := 1.0
	for i := 14; i > 0; i-- { // Taylor's series, by Horner
		sum = 1 + float64(float64(r*sum)/float64(i))
	}
	return math.Ldexp(sum, int(k))
}

// log returns the natural logarithm of a positive number, to about 1 in 10^15.
func log(x float64) float64 {
	if x <= 0 {
		return math.Inf(-1)
	}
	m, e := math.Frexp(x) // m in [0.5, 1)
	if m < math.Sqrt2/2 {
		m, e = m*2, e-1
	}
	z := float64(m-1) / float64(m+1)
	square, sum := float64(z*z), 0.0
	for i := 23; i > 0; i -= 2 { // 2 × the series of artanh
		sum = float64(sum*square) + 1/float64(i)
	}
	return float64(float64(2*z)*sum) + float64(float64(e)*math.Ln2)
}

// pow returns x to the y, for x of 0 or more.
func pow(x, y float64) float64 {
	switch {
	case y == 0:
		return 1
	case x <= 0:
		return 0
	}
	return exp(float64(y * log(x)))
}

// cosTurns returns the cosine of so many turns.
func cosTurns(turns float64) float64 {
	turns = math.Abs(turns - math.Floor(turns+0.5)) // 0..1/2
	sign := 1.0
	if turns > 0.25 {
		turns, sign = 0.5-turns, -1
	}
	x := float64(turns * 2 * math.Pi)
	square, sum := float64(x*x), 1.0
	for i := 20; i > 0; i -= 2 {
		sum = 1 - float64(float64(square*sum)/float64(i*(i-1)))
	}
	return sign * sum
}

// mix is a bijection whose bits all depend on all bits of its argument (David Stafford's variant 13 of the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// draw returns a number in [0, 1) for what is counted by some numbers, such as a seed, an event and a PoP.
func draw(numbers ...uint64) float64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, n := range numbers {
		h = mix(h ^ mix(n+0x9e3779b97f4a7c15))
	}
	return float64(h>>11) / (1 << 53)
}
