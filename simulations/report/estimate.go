package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// String writes an estimate for a person: "12.3 ms", "12.3 ± 0.4 ms", "91.2 %".
func (e estimate) String() string {
	if e.Seeds == 0 {
		return ""
	}
	text := number(e.Mean)
	if half := (e.High - e.Low) / 2; half > 0 { // of which two digits matter, and no more of the mean
		decimals := min(max(1-int(math.Floor(math.Log10(half))), 0), 4)
		text = strconv.FormatFloat(e.Mean, 'f', decimals, 64) + " ± " + strconv.FormatFloat(half, 'f', decimals, 64)
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
