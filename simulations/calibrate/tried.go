package calibrate

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// tried are the models that were tried to beat that of router/rtt where it is weak. docs/rtt-model.md says why none was taken.
func tried() []Candidate {
	with := func(name, numbers string, more []float64, ms func(m *Measurements, w way, p Pair, x []float64) float64) Candidate {
		return Candidate{name, numbers, true, func(m *Measurements, use func(Pair) bool) (Fitted, error) {
			return m.alternate(more, use, func(w way, p Pair, x []float64) float64 { return ms(m, w, p, x) })
		}}
	}
	bent := func(ms, unit, exponent float64) float64 { return unit * math.Pow(ms/unit, exponent) }
	return []Candidate{
		with("no landings", "3", nil, func(_ *Measurements, w way, _ Pair, x []float64) float64 { return w.ms(x) - x[3]*w.landings }),
		with("land bent: km^e", "5", []float64{1}, func(_ *Measurements, w way, _ Pair, x []float64) float64 {
			return w.ms(x) + x[1]*(bent(w.land, 10, x[4])-w.land)
		}),
		with("sea bent: km^e", "5", []float64{1}, func(_ *Measurements, w way, _ Pair, x []float64) float64 {
			return w.ms(x) + x[2]*(bent(w.sea, 100, x[4])-w.sea)
		}),
		with("landings bent: n^e", "5", []float64{1}, func(_ *Measurements, w way, _ Pair, x []float64) float64 {
			return w.ms(x) + x[3]*(math.Pow(w.landings, x[4])-w.landings)
		}),
		with("land of North America apart", "5", []float64{1}, func(m *Measurements, w way, p Pair, x []float64) float64 {
			if m.in(p.A, "US", "CA") && m.in(p.B, "US", "CA") {
				return w.ms(x) + x[1]*w.land*(x[4]-1)
			}
			return w.ms(x)
		}),
		with("a constant for India", "5", []float64{1}, func(m *Measurements, w way, p Pair, x []float64) float64 {
			ms := w.ms(x)
			for _, end := range []int{p.A, p.B} {
				if m.in(end, "IN") {
					ms += x[4]
				}
			}
			return ms
		}),
		with("a constant for borders", "5", []float64{1}, func(m *Measurements, w way, p Pair, x []float64) float64 {
			if m.Regions[p.A].Country != m.Regions[p.B].Country {
				return w.ms(x) + x[4]
			}
			return w.ms(x)
		}),
		{"a field over the earth", "4 and 40 shrunk", true, trainField},
	}
}

// in reports whether a region is in one of the countries.
func (m *Measurements) in(region int, countries ...string) bool {
	for _, c := range countries {
		if m.Regions[region].Country == c {
			return true
		}
	}
	return false
}

// The field's numbers: chosen by cross-validation among 1000..4000 km and 0.03..1, where it hardly depends on them.
const (
	fieldKM       = 2000 // over which it changes
	fieldVariance = 0.1  // as a part of that of single pairs
	fieldClip     = 0.1  // of the logarithm of a pair: more is a way that nobody can foresee
)

// trainField multiplies ways by exp(u(a) + u(b)), u a smooth field over the earth: a Gaussian process (Rasmussen and Williams, "Gaussian Processes
// for Machine Learning", 2006) whose covariance falls off by distance, so that places near those measured are corrected as these are.
func trainField(m *Measurements, use func(Pair) bool) (Fitted, error) {
	fitted, err := trainModel(m, use)
	if err != nil {
		return fitted, err
	}
	ways, n := m.ways(fitted.Numbers), len(m.Regions)
	covariance := mat.NewDense(n, n, nil)
	for i := range n {
		for j := range n {
			covariance.Set(i, j, fieldVariance*math.Exp(-kilometres(m.Regions[i], m.Regions[j])/fieldKM))
		}
		covariance.Set(i, i, fieldVariance*1.001) // two regions of one city are two
	}
	constant := func(i int) float64 { return ways[i].rest + fitted.Numbers[0]*ways[i].constant }
	normal, right := mat.NewDense(n, n, nil), mat.NewVecDense(n, nil)
	for i, p := range m.Pairs {
		if !use(p) {
			continue
		}
		ms := fitted.Predicted[i]
		slope := (ms - constant(i)) / (ms + 3) // of the logarithm by the field at an end
		off := max(-fieldClip, min(fieldClip, math.Log((p.MS+3)/(ms+3))))
		for _, a := range []int{p.A, p.B} {
			right.SetVec(a, right.AtVec(a)+slope*off)
			for _, b := range []int{p.A, p.B} {
				normal.Set(a, b, normal.At(a, b)+slope*slope)
			}
		}
	}
	var inverse mat.Dense
	var u mat.VecDense
	if err := inverse.Inverse(covariance); err != nil {
		return fitted, fmt.Errorf("fit the field: %w", err)
	}
	normal.Add(normal, &inverse)
	if err := u.SolveVec(normal, right); err != nil {
		return fitted, fmt.Errorf("fit the field: %w", err)
	}
	for i, p := range m.Pairs {
		fitted.Predicted[i] = constant(i) + (fitted.Predicted[i]-constant(i))*math.Exp(u.AtVec(p.A)+u.AtVec(p.B))
	}
	return fitted, nil
}
