package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// students are the 97.5 % points of Student's t by degrees of freedom, from 1.
var students = []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
	2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042}

// interval returns the mean of some values, and half of its 95 % interval, by Student's t. Of one value there is none: NaN.
func interval(values []float64) (mean, half float64) {
	n := len(values)
	for _, v := range values {
		mean += v / float64(n)
	}
	if n < 2 {
		return mean, math.NaN()
	}
	squares := 0.0
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	t := 1.96
	if n-1 <= len(students) {
		t = students[n-2]
	}
	return mean, t * math.Sqrt(squares/float64(n-1)/float64(n))
}

// String writes an estimate for a person: "12.3 ms", "12.3 ± 0.4 ms", "91.2 %".
func (e estimate) String() string {
	if e.Seeds == 0 {
		return ""
	}
	text := number(e.Mean)
	if !math.IsNaN(e.Half) && e.Half > 0 { // of which two digits matter, and no more of the mean
		decimals := min(max(1-int(math.Floor(math.Log10(e.Half))), 0), 4)
		text = strconv.FormatFloat(e.Mean, 'f', decimals, 64) + " ± " + strconv.FormatFloat(e.Half, 'f', decimals, 64)
	}
	if e.Unit != "" {
		text += " " + e.Unit
	}
	return text
}

// number writes three digits of a number that matter, and all before the point.
func number(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return "–"
	case a >= 1e4:
		return thousands(strconv.FormatFloat(math.Round(x), 'f', 0, 64))
	case a >= 100 || x == math.Trunc(x):
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case a >= 0.0005:
		return strings.TrimRight(strconv.FormatFloat(x, 'f', 3, 64), "0")
	}
	return fmt.Sprintf("%.1e", x)
}

// thousands puts commas between them.
func thousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
