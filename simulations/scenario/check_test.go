package scenario

import (
	"math"
	"strings"
	"testing"
)

// runs are those of two policies at two scales, with three seeds.
func runs() []*Run {
	var all []*Run
	for i := range 3 {
		ours := Run{Scale: Flow, Policy: Ours, Seed: uint64(i), Figures: map[string]Figure{
			"rtt.p50": {10 + float64(i), "ms"}, "rtt.p99": {80, "ms"}, "last.wrong": {2, "s"}, "refused": {0, ""}, "within.10ms": {0.92, ""}, "broken": {math.NaN(), "ms"},
		}}
		oracle := ours
		oracle.Policy, oracle.Figures = Oracle, map[string]Figure{"rtt.p50": {10, "ms"}}
		packet := ours
		packet.Scale, packet.Figures = Packet, map[string]Figure{"rtt.p50": {11.1, "ms"}}
		all = append(all, &ours, &oracle, &packet)
	}
	return all
}

func TestCheck(t *testing.T) {
	s := &Scenario{Scales: []Scale{Flow, Packet}, Policies: []PolicyName{Ours, Oracle}}
	for text, want := range map[string]bool{
		"flow/ours/rtt.p99 <= 80 ms":                                true,
		"flow/ours/rtt.p99 < 80 ms":                                 false,
		"flow/ours/rtt.p99 >= 0.08 s":                               true,
		"flow/ours/rtt.p99 > 80 ms":                                 false,
		"flow/ours/rtt.p50 <= 11 ms":                                true, // the mean of 10, 11, 12
		"flow/ours/rtt.p50 <= 10.9 ms":                              false,
		"flow/ours/rtt.p50 <= 1.1 * flow/oracle/rtt.p50":            true,
		"flow/ours/rtt.p50 <= 1.09 * flow/oracle/rtt.p50":           false,
		"packet/ours/rtt.p50 ~ flow/ours/rtt.p50 within 1 %":        true,
		"packet/ours/rtt.p50 ~ flow/ours/rtt.p50 within 0.5 %":      false,
		"flow/ours/last.wrong <= 2000 ms":                           true,
		"3 s >= flow/ours/last.wrong":                               true,
		"flow/ours/refused <= 0":                                    true,
		"flow/ours/refused ~ 0 within 1 %":                          true,
		"flow/ours/within.10ms >= 92 %":                             true,
		"flow/ours/within.10ms > 92 %":                              false,
		"flow/ours/broken <= 1 ms":                                  false,
		"flow/ours/broken >= 1 ms":                                  false,
		"  1e1 ms<=flow/ours/rtt.p50":                               true,
		"flow/ours/last.wrong >= 0.1 * flow/ours/rtt.p99":           true,
		"flow/ours/rtt.p99 ~ 40 * flow/ours/last.wrong within 90 %": false,
	} {
		s.Asserts = []Assertion{{That: text}}
		got, err := Check(s, runs())
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got[0].Held != want {
			t.Errorf("%s: got %v (%s), want %v", text, got[0].Held, got[0].Got, want)
		}
	}
	s.Asserts = []Assertion{{That: "flow/ours/rtt.p50 <= 1.5 * flow/oracle/rtt.p50"}}
	got, err := Check(s, runs())
	const want = "flow/ours/rtt.p50 is 11 ms (8.5157..13.484 ms at 95 %, 3 seeds), 1.5 * flow/oracle/rtt.p50 is 15 ms (15..15 ms at 95 %, 3 seeds)"
	if err != nil || got[0].Got != want {
		t.Errorf("got %q, %v, want %q", got[0].Got, err, want)
	}
}

func TestCheckRefuses(t *testing.T) {
	s := &Scenario{Scales: []Scale{Flow, Packet}, Policies: []PolicyName{Ours, Oracle}}
	tests := map[string]string{
		"flow/ours/rtt.p98 <= 80 ms":                       "near it are rtt.p50, rtt.p99",
		"flow/ours/refusd <= 1":                            "did you mean refused?",
		"flow/ours/rtt.p99 <= 80":                          "want a unit such as ms",
		"flow/ours/refused <= 80 ms":                       "want a unit such as ms",
		"packet/oracle/rtt.p50 <= 1 ms":                    "packet/oracle was not run",
		"flow/random/rtt.p50 <= 1 ms":                      "policy random is not among the scenario's",
		"analytic/ours/rtt.p50 <= 1 ms":                    "scale analytic is not among the scenario's",
		"ours/rtt.p50 <= 1 ms":                             "want one of [flow packet] before it",
		"flow/ours/rtt.p50 = 1 ms":                         "has 0 operators",
		"flow/ours/rtt.p50 <= 1 ms <= 2 ms":                "has 2 operators",
		"flow/ours/rtt.p50 ~ 1 ms":                         "~ needs how near both must be",
		"flow/ours/rtt.p50 <= 1 ms within 2 %":             `"within" goes with ~`,
		"flow/ours/rtt.p50 ~ 1 ms within 200 %":            "not in 0..100",
		"1 <= 2":                                           "has no figure",
		"flow/ours/rtt.p50 <= x * flow/ours/rtt.p99":       "not a factor",
		"flow/ours/rtt.p50 <= a/b/c/d/e":                   "neither a bound nor a figure",
		"flow/ours/rtt.p50 <= 1..2 ms":                     "not a number",
		"flow/ours/RTT <= 1 ms":                            "neither a bound nor a figure",
		"flow/ours/rtt.p50 <= " + strings.Repeat("1", 500): "at most 500",
	}
	for text, want := range tests {
		s.Asserts = []Assertion{{That: text}}
		if _, err := Check(s, runs()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", text, err, want)
		}
	}
	s.Asserts = []Assertion{{That: "x"}, {That: "flow/ours/rtt.p50 <= 99 ms"}, {That: "y"}}
	if got, err := Check(s, runs()); len(got) != 1 || err == nil || !strings.Contains(err.Error(), "assert[0]") || !strings.Contains(err.Error(), "assert[2]") {
		t.Errorf("got %v, %v, want one outcome and both faults", got, err)
	}
}

func TestOver(t *testing.T) {
	for _, test := range []struct {
		values    []float64
		mean, low float64
	}{{[]float64{3}, 3, 3}, {[]float64{1, 3}, 2, -10.706}, {[]float64{1, 2, 3, 4, 5}, 3, 1.0367}} {
		e := Over(test.values)
		if math.Abs(e.Mean-test.mean) > 1e-9 || math.Abs(e.Low-test.low) > 1e-3 || math.Abs(e.High+e.Low-2*e.Mean) > 1e-9 || e.Seeds != len(test.values) {
			t.Errorf("%v: got %+v", test.values, e)
		}
	}
	if v := studentT(40); math.Abs(v-2.021) > 0.003 {
		t.Errorf("got %v, want 2.021", v)
	}
}

// FuzzStatement reads assertions. What is taken is written such that it reads the same.
func FuzzStatement(f *testing.F) {
	for _, text := range []string{
		"flow/ours/rtt.p99 <= 80 ms", "ours/rtt.mean <= 1.03 * oracle/rtt.mean", "packet/rtt.p50 ~ flow/rtt.p50 within 2 %", "-1e3 < a", "a>=92%", "0.5 s > x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		st, err := parseStatement(text)
		if err != nil {
			return
		}
		for _, o := range []operand{st.left, st.right} {
			again, err := parseOperand(o.String())
			if err != nil {
				t.Fatalf("%q: %q is not taken: %v", text, o, err)
			}
			if again.figure != o.figure || again.policy != o.policy || again.scale != o.scale || again.unit != o.unit {
				t.Fatalf("%q: %+v is read again as %+v", text, o, again)
			}
		}
	})
}
