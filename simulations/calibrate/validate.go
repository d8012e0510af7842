package calibrate

import (
	"math"
	"slices"
	"sync"
)

// folds is how many parts the regions are divided into.
const folds = 5

// fold returns a region's part: every fifth is in one.
func fold(region int) int { return region % folds }

// Prediction is what is said of a pair by a model that never saw one of its regions.
type Prediction struct {
	Pair
	Predicted float64 // ms
}

// crossValidate trains a candidate without the regions of each fold.
func crossValidate(c Candidate, m *Measurements) ([folds]Fitted, error) {
	var fitted [folds]Fitted
	var errs [folds]error
	var group sync.WaitGroup
	for k := range folds {
		group.Go(func() {
			fitted[k], errs[k] = c.Train(m, func(p Pair) bool { return fold(p.A) != k && fold(p.B) != k })
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return fitted, err
		}
	}
	return fitted, nil
}

// predictions are those of each fold's model of all pairs that touch one of the fold's regions.
func (m *Measurements) predictions(fitted [folds]Fitted) []Prediction {
	var all []Prediction
	for k := range fitted {
		for i, p := range m.Pairs {
			if fold(p.A) == k || fold(p.B) == k {
				all = append(all, Prediction{p, fitted[k].Predicted[i]})
			}
		}
	}
	return all
}

// Errors are by how much predictions are off.
type Errors struct {
	Pairs    int     `json:"pairs"`
	Median   float64 `json:"median_ms"`
	Mean     float64 `json:"mean_ms"`
	P90      float64 `json:"p90_ms"`
	Relative float64 `json:"mean_relative"` // to what was measured
}

func errorsOf(predictions []Prediction) Errors {
	e := Errors{Pairs: len(predictions)}
	if e.Pairs == 0 {
		return e
	}
	var off []float64
	for _, p := range predictions {
		d := math.Abs(p.Predicted - p.MS)
		off = append(off, d)
		e.Mean += d / float64(e.Pairs)
		e.Relative += d / p.MS / float64(e.Pairs)
	}
	slices.Sort(off)
	e.Median, e.P90 = quantile(off, 0.5), quantile(off, 0.9)
	return e
}

// quantile interpolates between sorted values.
func quantile(sorted []float64, at float64) float64 {
	whole, part := math.Modf(at * float64(len(sorted)-1))
	i := int(whole)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + part*(sorted[i+1]-sorted[i])
}

// draws is how many sets of PoPs are tried, and pops how many are in each.
const (
	draws = 2000
	pops  = 10
)

// nearest returns for which part of clients the nearest of ten PoPs is found: sets of ten regions, drawn by hashes, stand for PoPs, and all other
// regions for clients, each predicted by the model that never saw it.
func (m *Measurements) nearest(fitted [folds]Fitted) float64 {
	n := len(m.Regions)
	pair := make([]int, n*n)
	for i, p := range m.Pairs {
		pair[p.A*n+p.B], pair[p.B*n+p.A] = i, i
	}
	right, all := 0, 0
	order, keys := make([]int, n), make([]uint64, n)
	for draw := range uint64(draws) {
		for i := range order {
			order[i], keys[i] = i, mix(draw<<8+uint64(i))
		}
		slices.SortFunc(order, func(a, b int) int {
			if keys[a] < keys[b] {
				return -1
			}
			return 1
		})
		for _, client := range order[pops:] {
			predicted := fitted[fold(client)].Predicted
			best, found := order[0], order[0]
			for _, pop := range order[1:pops] {
				if m.Pairs[pair[client*n+pop]].MS < m.Pairs[pair[client*n+best]].MS {
					best = pop
				}
				if predicted[pair[client*n+pop]] < predicted[pair[client*n+found]] {
					found = pop
				}
			}
			all++
			if m.Pairs[pair[client*n+found]].MS == m.Pairs[pair[client*n+best]].MS {
				right++
			}
		}
	}
	return float64(right) / float64(all)
}

// mix scrambles a number (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x + 0x9e3779b97f4a7c15) ^ x>>30
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
