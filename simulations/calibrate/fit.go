package calibrate

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/optimize"

	"github.com/isochrone/isochrone/router/rtt"
)

// Candidate is a model whose numbers are fitted.
type Candidate struct {
	Name    string
	Numbers string // how many are fitted, in words
	Tried   bool   // it was tried, and not taken
	// Train fits the numbers to the pairs that are used, and returns what it predicts of all pairs, in ms.
	Train func(m *Measurements, use func(Pair) bool) (Fitted, error)
}

// Fitted is a model with its numbers.
type Fitted struct {
	Numbers   []float64
	Predicted []float64 // of each pair of the measurements, in ms
}

// fibreMS is light in fibre, per km of round trip.
const fibreMS = 2 / 204.19

// begins are where fits of the model begin: the loss has several minima.
var begins = [][]float64{{5, 1.7, 1.2, 2.5}, {4, 1.6, 1.2, 3}, {6, 1.8, 1.1, 2}}

// Candidates are the models that are compared: first two simple ones, then that of router/rtt, then what was tried to beat it.
func Candidates() []Candidate {
	byKM := func(begin []float64, ms func(x []float64, km float64) float64) func(*Measurements, func(Pair) bool) (Fitted, error) {
		return func(m *Measurements, use func(Pair) bool) (Fitted, error) {
			return m.minimize(begin, use, m.each(func(i int, x []float64) float64 { return ms(x, m.kilometres[i]) }))
		}
	}
	all := []Candidate{
		{"fibre light time × factor", "1", false, byKM([]float64{1.5}, func(x []float64, km float64) float64 { return x[0] * fibreMS * km })},
		{"constant and ms/km", "2", false, byKM([]float64{5, 0.015}, func(x []float64, km float64) float64 { return x[0] + x[1]*km })},
		{"land and sea (router/rtt)", "4", false, trainModel},
	}
	return append(all, tried()...)
}

// trainModel fits the model of router/rtt.
func trainModel(m *Measurements, use func(Pair) bool) (Fitted, error) {
	near, err := m.alternate(nil, use, func(w way, _ Pair, x []float64) float64 { return w.ms(x) })
	if err != nil {
		return near, err
	}
	return m.minimize(near.Numbers, use, m.predict)
}

// way is what a pair's way is made of, each with the number that it is multiplied by left out.
type way struct {
	constant float64 // 1, or less in one metro
	rest     float64 // ms, of the constant that no number belongs to
	land     float64 // ms of light time
	sea      float64 // ms of light time
	landings float64 // links by sea
}

// ms prices a way by the numbers base, land factor, sea factor and landing.
func (w way) ms(x []float64) float64 {
	return w.rest + x[0]*w.constant + x[1]*w.land + x[2]*w.sea + x[3]*w.landings
}

// ways returns what the cheapest ways are made of, with some numbers: how the prediction changes with each number.
func (m *Measurements) ways(x []float64) []way {
	const step = 1e-5 // so small that no other way becomes the cheapest
	at := m.predict(x)
	ways := make([]way, len(m.Pairs))
	for n := range x[:4] {
		changed := append([]float64(nil), x...)
		changed[n] += step
		for i, ms := range m.predict(changed) {
			w := &ways[i]
			*[]*float64{&w.constant, &w.land, &w.sea, &w.landings}[n] = (ms - at[i]) / step
		}
	}
	for i := range ways {
		ways[i].rest = at[i] - ways[i].ms(x)
	}
	return ways
}

// predict predicts by the model of router/rtt with some numbers.
func (m *Measurements) predict(x []float64) []float64 {
	model := rtt.Default().With(rtt.Numbers{BaseMS: x[0], LandFactor: x[1], SeaFactor: x[2], LandingMS: x[3]})
	sources, targets := make([]rtt.Source, len(m.Regions)), make([]*rtt.Target, len(m.Regions))
	for i, r := range m.Regions {
		sources[i], targets[i] = model.From(r.Location), model.To(r.Location)
	}
	predicted := make([]float64, len(m.Pairs))
	for i, p := range m.Pairs {
		predicted[i] = targets[p.B].From(&sources[p.A])
	}
	return predicted
}

// alternate fits the model's four numbers, and more if some are given: with the ways as they are, then finds the ways with these numbers, and so
// on until nothing is gained. Of several beginnings the best is taken.
func (m *Measurements) alternate(more []float64, use func(Pair) bool, ms func(w way, p Pair, x []float64) float64) (Fitted, error) {
	var fitted Fitted
	best := math.Inf(1)
	for _, x := range begins {
		x = append(append([]float64(nil), x...), more...)
		before := math.Inf(1)
		for ways := m.ways(x[:4]); ; {
			next, err := m.minimize(x, use, m.each(func(i int, x []float64) float64 { return ms(ways[i], m.Pairs[i], x) }))
			if err != nil {
				return fitted, err
			}
			x, ways = next.Numbers, m.ways(next.Numbers[:4])
			for i := range next.Predicted {
				next.Predicted[i] = ms(ways[i], m.Pairs[i], x)
			}
			loss := m.loss(next.Predicted, m.used(use))
			if loss < best {
				best, fitted = loss, next
			}
			if loss > before-1e-6 {
				break
			}
			before = loss
		}
	}
	return fitted, nil
}

// used returns the numbers of the pairs that are used.
func (m *Measurements) used(use func(Pair) bool) []int {
	var used []int
	for i, p := range m.Pairs {
		if use(p) {
			used = append(used, i)
		}
	}
	return used
}

// loss is the mean of |log((predicted + 3) / (measured + 3))| over some pairs.
func (m *Measurements) loss(predicted []float64, used []int) float64 {
	sum := 0.0
	for _, i := range used {
		sum += math.Abs(math.Log(max(predicted[i], 0)+3) - m.logs[i])
	}
	return sum / float64(len(used))
}

// each predicts pair by pair.
func (m *Measurements) each(ms func(pair int, x []float64) float64) func(x []float64) []float64 {
	predicted := make([]float64, len(m.Pairs))
	return func(x []float64) []float64 {
		for i := range predicted {
			predicted[i] = ms(i, x)
		}
		return predicted
	}
}

// minimize finds the numbers with the least loss (Nelder and Mead, "A simplex method for function minimization", 1965).
func (m *Measurements) minimize(begin []float64, use func(Pair) bool, predict func(x []float64) []float64) (Fitted, error) {
	used := m.used(use)
	problem := optimize.Problem{Func: func(x []float64) float64 {
		for i := range x {
			if x[i] < 0 {
				return math.Inf(1) // nothing is faster for being longer
			}
		}
		return m.loss(predict(x), used)
	}}
	for range 2 { // a simplex that has become flat begins anew
		settings := &optimize.Settings{Converger: &optimize.FunctionConverge{Absolute: 1e-6, Iterations: 30}, MajorIterations: 500}
		result, err := optimize.Minimize(problem, begin, settings, &optimize.NelderMead{SimplexSize: 0.05})
		if err != nil {
			return Fitted{}, fmt.Errorf("fit: %w", err)
		}
		begin = result.X
	}
	return Fitted{begin, slices.Clone(predict(begin))}, nil
}
