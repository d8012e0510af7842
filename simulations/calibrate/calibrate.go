package calibrate

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/isochrone/isochrone/router/rtt"
)

// Report is how good models are.
type Report struct {
	Regions int         `json:"regions"`
	Pairs   int         `json:"pairs"`
	Folds   int         `json:"folds"`
	Models  []Row       `json:"models"`
	Numbers rtt.Numbers `json:"numbers"` // of the model of router/rtt, fitted to all pairs
	InUse   rtt.Numbers `json:"in_use"`  // those that router/rtt has
	Fit     Errors      `json:"fit"`     // of the fitted numbers, on the pairs that they were fitted to
	Weak    []Weak      `json:"weak"`    // where the model of router/rtt errs most
}

// Row is one model, cross-validated.
type Row struct {
	Model   string    `json:"model"`
	Numbers string    `json:"numbers"`
	Fitted  []float64 `json:"fitted"` // to all pairs
	All     Errors    `json:"all"`
	Short   Errors    `json:"below_50_ms"`
	Nearest float64   `json:"nearest_of_10"` // part of clients whose nearest PoP is found
}

// Weak is a region with what predictions of its pairs are off.
type Weak struct {
	Region string  `json:"region"`
	Mean   float64 `json:"mean_ms"`
	Signed float64 `json:"signed_ms"` // below 0 where the model says too little
}

// shortMS bounds the pairs that decide which PoP is the nearest.
const shortMS = 50

// Run calibrates: the two simple models and that of router/rtt, and if wanted those that were tried to beat it.
func Run(tried bool) (*Report, error) {
	m := Load()
	r := &Report{Regions: len(m.Regions), Pairs: len(m.Pairs), Folds: folds, InUse: rtt.Default().Numbers()}
	for i, c := range Candidates() {
		if c.Tried && !tried {
			continue
		}
		fitted, err := crossValidate(c, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		whole, err := c.Train(m, func(Pair) bool { return true })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		predictions := m.predictions(fitted)
		short := slices.DeleteFunc(slices.Clone(predictions), func(p Prediction) bool { return p.MS >= shortMS })
		r.Models = append(r.Models, Row{c.Name, c.Numbers, whole.Numbers, errorsOf(predictions), errorsOf(short), m.nearest(fitted)})
		if i == ours {
			r.Numbers = rtt.Numbers{BaseMS: whole.Numbers[0], LandFactor: whole.Numbers[1], SeaFactor: whole.Numbers[2], LandingMS: whole.Numbers[3]}
			r.describe(m, whole, predictions)
		}
	}
	return r, nil
}

// ours is the number of the candidate that is router/rtt's.
const ours = 2

// describe tells how the model fits what it was fitted to, and where it is weak.
func (r *Report) describe(m *Measurements, whole Fitted, predictions []Prediction) {
	var seen []Prediction
	for i, p := range m.Pairs {
		seen = append(seen, Prediction{p, whole.Predicted[i]})
	}
	r.Fit = errorsOf(seen)
	r.Weak = make([]Weak, len(m.Regions))
	count := make([]float64, len(m.Regions))
	for _, p := range predictions {
		for _, end := range []int{p.A, p.B} {
			r.Weak[end].Mean += math.Abs(p.Predicted - p.MS)
			r.Weak[end].Signed += p.Predicted - p.MS
			count[end]++
		}
	}
	for i := range r.Weak {
		w := &r.Weak[i]
		w.Region, w.Mean, w.Signed = m.Regions[i].Name, w.Mean/count[i], w.Signed/count[i]
	}
	slices.SortStableFunc(r.Weak, func(a, b Weak) int {
		if a.Mean > b.Mean {
			return -1
		}
		return 1
	})
	r.Weak = r.Weak[:8]
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "model\tnumbers\tmedian\tmean\tp90\trelative\tbelow 50 ms\tnearest of 10\t\n")
	for _, row := range r.Models {
		fmt.Fprintf(t, "%s\t%s\t%.1f ms\t%.1f ms\t%.1f ms\t%.1f %%\t%.1f ms\t%.0f %%\t\n",
			row.Model, row.Numbers, row.All.Median, row.All.Mean, row.All.P90, row.All.Relative*100, row.Short.Median, row.Nearest*100)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nErrors of %d pairs of %d regions, cross-validated in %d folds of regions: a model predicts what it has never seen.\n", r.Pairs, r.Regions, r.Folds)
	fmt.Fprintf(w, "Fitted to all pairs: base %.2f ms, land × %.3f, sea × %.3f, landing %.2f ms (in use: %.2f ms, %.3f, %.3f, %.2f ms);\n",
		r.Numbers.BaseMS, r.Numbers.LandFactor, r.Numbers.SeaFactor, r.Numbers.LandingMS, r.InUse.BaseMS, r.InUse.LandFactor, r.InUse.SeaFactor, r.InUse.LandingMS)
	fmt.Fprintf(w, "on what it was fitted to: median %.1f ms, p90 %.1f ms, %.1f %%.\n\nWeakest (mean error; below 0 the model says too little):\n", r.Fit.Median, r.Fit.P90, r.Fit.Relative*100)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, weak := range r.Weak {
		fmt.Fprintf(t, "  %s\t%.1f ms\t%+.1f ms\n", weak.Region, weak.Mean, weak.Signed)
	}
	return t.Flush()
}
