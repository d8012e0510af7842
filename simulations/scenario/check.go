package scenario

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/isochrone/isochrone/internal/spelling"
)

// Outcome is what became of one assertion.
type Outcome struct {
	Assertion Assertion `json:"assertion"`
	Held      bool      `json:"held"`
	Left      Estimate  `json:"left"`
	Right     Estimate  `json:"right"`
	Got       string    `json:"got"` // in words: "rtt.p99 is 71.2 ms (69.8..72.6 ms at 95 %, 5 seeds)"
}

// Estimate is a figure over seeds: its mean, and the interval in which the mean is with 95 % confidence, by Student's t. With one seed the
// interval is the value.
type Estimate struct {
	Mean  float64 `json:"mean"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Seeds int     `json:"seeds"`
	Unit  string  `json:"unit,omitempty"`
}

// Check holds a scenario's assertions against its runs, each for the mean over the seeds. Runs of other scales and policies than an assertion
// names are disregarded. The error tells all assertions that cannot be held against anything: those that name a figure that was not measured,
// whose units do not go together, or that cannot be read. An assertion does not hold if a figure in it is not a number.
func Check(s *Scenario, runs []*Run) ([]Outcome, error) {
	var outcomes []Outcome
	var faults []error
	for i, a := range s.Asserts {
		o, err := s.check(a, runs)
		if err != nil {
			faults = append(faults, fmt.Errorf("assert[%d]: %w", i, err))
			continue
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, errors.Join(faults...)
}

func (s *Scenario) check(a Assertion, runs []*Run) (Outcome, error) {
	st, err := parseStatement(a.That)
	if err != nil {
		return Outcome{}, err
	}
	if err = errors.Join(s.complete(&st.left), s.complete(&st.right)); err != nil {
		return Outcome{}, err
	}
	left, err := st.left.estimate(runs)
	if err != nil {
		return Outcome{}, err
	}
	right, err := st.right.estimate(runs)
	if err != nil {
		return Outcome{}, err
	}
	if err := sameDimension(&st, left, right); err != nil {
		return Outcome{}, fmt.Errorf("%q: %w", a.That, err)
	}
	l, r := base(left), base(right)
	o := Outcome{Assertion: a, Left: left, Right: right}
	switch st.op {
	case "<=":
		o.Held = l <= r
	case "<":
		o.Held = l < r
	case ">=":
		o.Held = l >= r
	case ">":
		o.Held = l > r
	case "~":
		o.Held = l == r || math.Abs(l-r) <= st.within*math.Abs(r)
	}
	o.Got = said(st.left, left)
	if more := said(st.right, right); o.Got == "" {
		o.Got = more
	} else if more != "" {
		o.Got += ", " + more
	}
	return o, nil
}

// base returns the mean in the unit that all of its dimension are compared in.
func base(e Estimate) float64 { return e.Mean * units[e.Unit] }

// sameDimension gives a bound without a unit that of nothing, and refuses to compare times with others.
func sameDimension(st *statement, left, right Estimate) error {
	if isTime(left.Unit) == isTime(right.Unit) {
		return nil
	}
	timed, plain := st.left, st.right
	if isTime(right.Unit) {
		timed, plain = plain, timed
	}
	return fmt.Errorf("%s is a time and %s is none: want a unit such as ms", timed, plain)
}

// said tells an estimate in words.
func said(o operand, e Estimate) string {
	if o.figure == "" {
		return ""
	}
	text := fmt.Sprintf("%s is %s", o, number(e.Mean, e.Unit))
	if e.Seeds > 1 {
		text += fmt.Sprintf(" (%s..%s at 95 %%, %d seeds)", number(e.Low, ""), number(e.High, e.Unit), e.Seeds)
	}
	return text
}

func number(v float64, unit string) string {
	text := strconv.FormatFloat(v, 'g', 5, 64)
	if unit != "" {
		text += " " + unit
	}
	return text
}

// estimate returns the mean of a figure, times its factor, over the seeds of the runs.
func (o operand) estimate(runs []*Run) (Estimate, error) {
	if o.figure == "" {
		v := o.factor / units[o.unit]
		return Estimate{v, v, v, 0, o.unit}, nil
	}
	var values []float64
	unit, known := "", map[string]bool{}
	for i := range runs {
		if runs[i].Variant != o.variant || runs[i].Scale != o.scale || runs[i].Policy != o.policy {
			continue
		}
		f, ok := runs[i].Figures[o.figure]
		if !ok {
			for name := range runs[i].Figures {
				known[name] = true
			}
			continue
		}
		if _, ok := units[f.Unit]; !ok {
			return Estimate{}, fmt.Errorf("%s is in %q, which is not known", o.figure, f.Unit)
		}
		values, unit = append(values, f.Value*o.factor), f.Unit
	}
	switch {
	case len(known) > 0:
		return Estimate{}, fmt.Errorf("%s/%s has no figure %q; %s", o.scale, o.policy, o.figure, nearby(o.figure, known))
	case len(values) == 0:
		return Estimate{}, fmt.Errorf("%s/%s was not run", o.scale, o.policy)
	}
	e := Over(values)
	e.Unit = unit
	return e, nil
}

// nearby names the figures that were probably meant: those that begin alike, or else what spelling finds.
func nearby(figure string, known map[string]bool) string {
	names := slices.Sorted(maps.Keys(known))
	first, _, _ := strings.Cut(figure, ".")
	var alike []string
	for _, name := range names {
		if strings.HasPrefix(name, first) {
			alike = append(alike, name)
		}
	}
	if len(alike) > 0 && len(alike) < 12 {
		return "near it are " + strings.Join(alike, ", ")
	}
	return spelling.Suggest(figure, names)
}

// Over returns the estimate of the mean of some values, such as those of a figure by seeds, without a unit. There must be one at least.
func Over(values []float64) Estimate {
	n, sum := float64(len(values)), 0.0
	for _, v := range values {
		sum += v
	}
	mean, squares := sum/n, 0.0
	for _, v := range values {
		squares += float64((v - mean) * (v - mean))
	}
	e := Estimate{Mean: mean, Low: mean, High: mean, Seeds: len(values)}
	if len(values) > 1 {
		half := studentT(len(values)-1) * math.Sqrt(squares/(n-1)/n)
		e.Low, e.High = mean-half, mean+half
	}
	return e
}

// studentT returns the quantile 0.975 of Student's t by degrees of freedom.
func studentT(degrees int) float64 {
	table := [...]float64{
		12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
		2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
	}
	if degrees <= len(table) {
		return table[degrees-1]
	}
	return 1.96 + 2.4/float64(degrees) // within 0.002 of the true one
}
