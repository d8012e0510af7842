package scenario

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// statement is an assertion that was read: left OP right, and for ~ the part by which they may differ.
type statement struct {
	left, right operand
	op          string
	within      float64
}

// operand is a bound, or a figure times a factor.
type operand struct {
	names   []string   // before the figure, as they are written: variant, scale, policy
	variant string     // empty for the scenario's only world
	scale   Scale      // empty for the scenario's only one
	policy  PolicyName // likewise
	figure  string     // empty for a bound
	factor  float64    // of a figure; of a bound the value, in the base unit of its dimension
	unit    string     // of a bound, as it was written
}

// units are those of bounds, with what a value is multiplied by: times are in ms, parts as they are.
var units = map[string]float64{"us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1e3, "m": 60e3, "min": 60e3, "h": 3600e3, "%": 0.01, "": 1}

// isTime reports whether a unit is one of time.
func isTime(unit string) bool { return unit != "" && unit != "%" }

var (
	operator   = regexp.MustCompile(`<=|>=|<|>|~`)
	tolerance  = regexp.MustCompile(`^(.*\S)\s+within\s+([0-9.]+)\s*%$`)
	figureForm = regexp.MustCompile(`^[a-z][a-z0-9._-]*$`)
	boundForm  = regexp.MustCompile(`^([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-zµ%]*)$`)
)

// parseStatement reads an assertion.
func parseStatement(text string) (statement, error) {
	var st statement
	const want = "want FIGURE OP BOUND, such as \"rtt.p99 <= 80 ms\", with OP one of <= < >= > ~"
	if len(text) > 500 {
		return st, fmt.Errorf("is %d characters long, at most 500 are taken", len(text))
	}
	found := operator.FindAllStringIndex(text, 2)
	if len(found) != 1 {
		return st, fmt.Errorf("%q has %d operators: %s", text, len(found), want)
	}
	left, right := strings.TrimSpace(text[:found[0][0]]), strings.TrimSpace(text[found[0][1]:])
	st.op = text[found[0][0]:found[0][1]]
	near := tolerance.FindStringSubmatch(right)
	switch {
	case near != nil && st.op == "~":
		percent, err := strconv.ParseFloat(near[2], 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return st, fmt.Errorf("%q: within %s %% is not in 0..100 %%", text, near[2])
		}
		right, st.within = near[1], percent/100
	case st.op == "~":
		return st, fmt.Errorf("%q: ~ needs how near both must be, such as \"within 2 %%\" at its end", text)
	case near != nil:
		return st, fmt.Errorf("%q: \"within\" goes with ~, not with %s", text, st.op)
	}
	var err error
	if st.left, err = parseOperand(left); err != nil {
		return st, fmt.Errorf("%q: %w; %s", text, err, want)
	}
	if st.right, err = parseOperand(right); err != nil {
		return st, fmt.Errorf("%q: %w; %s", text, err, want)
	}
	if st.left.figure == "" && st.right.figure == "" {
		return st, fmt.Errorf("%q has no figure: %s", text, want)
	}
	return st, nil
}

// parseOperand reads "80 ms", "rtt.p99", "flow/ours/rtt.p99" or "1.03 * oracle/rtt.mean".
func parseOperand(text string) (operand, error) {
	o := operand{factor: 1}
	if bound := boundForm.FindStringSubmatch(text); bound != nil {
		v, err := strconv.ParseFloat(bound[1], 64)
		scale, known := units[bound[2]]
		if err != nil || math.IsInf(v, 0) {
			return o, fmt.Errorf("%q is not a number", bound[1])
		}
		if !known {
			return o, fmt.Errorf("unit %q is not known: want us, ms, s, min, h, %% or none", bound[2])
		}
		o.factor, o.unit = v*scale, bound[2]
		return o, nil
	}
	if factor, figure, ok := strings.Cut(text, "*"); ok {
		v, err := strconv.ParseFloat(strings.TrimSpace(factor), 64)
		if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			return o, fmt.Errorf("%q before * is not a factor", strings.TrimSpace(factor))
		}
		o.factor, text = v, strings.TrimSpace(figure)
	}
	parts := strings.Split(text, "/")
	o.figure, o.names = parts[len(parts)-1], parts[:len(parts)-1]
	if len(o.names) > 3 || slices.ContainsFunc(o.names, func(name string) bool { return !nameForm.MatchString(name) }) || !figureForm.MatchString(o.figure) {
		return o, fmt.Errorf("%q is neither a bound nor a figure, such as rtt.p99 or flow/ours/rtt.p99", text)
	}
	return o, nil
}

// String returns the operand as it is written.
func (o operand) String() string {
	if o.figure == "" {
		return strconv.FormatFloat(o.factor/units[o.unit], 'g', 6, 64) + strings.TrimRight(" "+o.unit, " ")
	}
	name := strings.Join(append(slices.Clone(o.names), o.figure), "/")
	if o.factor != 1 {
		name = strconv.FormatFloat(o.factor, 'g', 6, 64) + " * " + name
	}
	return name
}

// CheckAssertion checks what can be known of an assertion before anything has run.
func (s *Scenario) CheckAssertion(text string) error {
	st, err := parseStatement(text)
	if err != nil {
		return err
	}
	for _, o := range []*operand{&st.left, &st.right} {
		if err := s.complete(o); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	return nil
}

// complete finds out which variant, scale and policy are meant. Where there is but one of a kind, it need not be named.
func (s *Scenario) complete(o *operand) error {
	if o.figure == "" {
		return nil
	}
	names := o.names
	next := func(known func(string) bool) (name string) {
		if len(names) > 0 && known(names[0]) {
			name, names = names[0], names[1:]
		}
		return name
	}
	variants := make([]string, len(s.Variants))
	for i, v := range s.Variants {
		variants[i] = v.Name
	}
	o.variant = next(func(name string) bool { return slices.Contains(variants, name) })
	o.scale = Scale(next(func(name string) bool { return slices.Contains(Scales, Scale(name)) }))
	o.policy = PolicyName(next(func(name string) bool { return slices.Contains(s.Policies, PolicyName(name)) }))
	if len(names) > 0 && slices.Contains(PolicyNames, PolicyName(names[0])) && o.policy == "" {
		return fmt.Errorf("policy %s is not among the scenario's, %v", names[0], s.Policies)
	}
	if len(names) > 0 {
		return fmt.Errorf("%s: %q is none of the scenario's variants %v, scales %v and policies %v, or not in this order", o, names[0], variants, s.Scales, s.Policies)
	}
	if o.variant == "" && len(variants) == 1 {
		o.variant = variants[0]
	}
	if o.scale == "" && len(s.Scales) == 1 {
		o.scale = s.Scales[0]
	}
	if o.policy == "" && len(s.Policies) == 1 {
		o.policy = s.Policies[0]
	}
	switch {
	case o.variant == "" && len(variants) > 1:
		return fmt.Errorf("%s is measured in several variants of the world: want one of %v before it", o.figure, variants)
	case o.scale == "":
		return fmt.Errorf("%s is measured at several scales: want one of %v before it, such as %s/%s", o.figure, s.Scales, s.Scales[0:min(1, len(s.Scales))], o.figure)
	case !slices.Contains(s.Scales, o.scale):
		return fmt.Errorf("scale %s is not among the scenario's, %v", o.scale, s.Scales)
	case o.policy == "":
		return fmt.Errorf("%s is measured of several policies: want one of %v before it", o.figure, s.Policies)
	}
	return nil
}
