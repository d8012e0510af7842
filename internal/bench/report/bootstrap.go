package main

import (
	"math/rand/v2"
	"slices"
)

const resamples = 4000

// interval is the bootstrap interval of 95 % of the median: the middle 95 % of the medians of samples drawn with replacement
// (the percentile method). It is the same for the same values.
func interval(values []float64) (low, high float64) {
	random := rand.New(rand.NewPCG(1, uint64(len(values))))
	medians, sample := make([]float64, resamples), make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		medians[i] = median(sample)
	}
	slices.Sort(medians)
	return medians[resamples*25/1000], medians[resamples*975/1000-1]
}
