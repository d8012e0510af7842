package router

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestNegLog2(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 100_000 {
		x := random.Uint64() >> (i % 64)
		got := float64(negLog2(x)) / (1 << 32)
		want := 64 - math.Log2(float64(x)+1)
		if math.Abs(got-want) > 1e-6 {
			t.Fatalf("negLog2(%d): got %v, want %v", x, got, want)
		}
	}
	if got := negLog2(math.MaxUint64); got != 0 {
		t.Errorf("of the largest: got %d", got)
	}
}

// Buckets come to the members of a group in proportion to their weights, and only the lost one's buckets move.
func TestScoreSharesByWeight(t *testing.T) {
	names, weights := []string{"a", "b", "c", "d"}, []uint64{1, 2, 3, 10}
	winner := func(b bucket, without int) int {
		best := -1
		var lowest uint64
		for i, name := range names {
			if s := score(b.draw(saltFor(saltOf(name), forGroup)), weights, Choice(i)); i != without && (best < 0 || s < lowest) {
				best, lowest = i, s
			}
		}
		return best
	}
	const buckets = 400_000
	var won [4]int
	for cell := range uint64(buckets) {
		b := bucketOf(address{hi: cell << 44}, true)
		first := winner(b, -1)
		won[first]++
		for lost := range names {
			if got := winner(b, lost); lost != first && got != first {
				t.Fatalf("cell %d moves from %s to %s when %s is lost", cell, names[first], names[got], names[lost])
			}
		}
	}
	for i, n := range won {
		want := float64(weights[i]) / 16 * buckets
		if math.Abs(float64(n)-want) > 4*math.Sqrt(want) {
			t.Errorf("%s of weight %d won %d, want about %.0f", names[i], weights[i], n, want)
		}
	}
}
