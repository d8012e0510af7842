package calibrate

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/calibrate.golden.json anew")

// TestPublished holds cross-validation to the figures of docs/rtt-model.md, to 0.1 ms and 0.1 %, and to those of the last run more closely.
func TestPublished(t *testing.T) {
	r, err := Run(false)
	if err != nil {
		t.Fatal(err)
	}
	if r.Regions != 40 || r.Pairs != 780 || len(r.Models) != 3 {
		t.Fatalf("got %d regions, %d pairs and %d models", r.Regions, r.Pairs, len(r.Models))
	}
	const rounding = 0.05 // published figures have one digit
	near := func(what string, got, want, within float64) {
		t.Helper()
		if !(math.Abs(got-want) <= within) {
			t.Errorf("%s: got %.3f, want %v ± %v", what, got, want, within)
		}
	}
	for i, want := range []struct{ median, mean, p90, relative, nearest float64 }{
		{16.2, 24.8, 60.2, 17.5, 87}, {14.5, 22.9, 54.0, 14.6, 87}, {5.1, 6.9, 15.7, 5.6, 91},
	} {
		row := r.Models[i]
		near(row.Model+": median", row.All.Median, want.median, 0.1+rounding)
		near(row.Model+": mean", row.All.Mean, want.mean, 0.1+rounding)
		near(row.Model+": p90", row.All.P90, want.p90, 0.1+rounding)
		near(row.Model+": relative", 100*row.All.Relative, want.relative, 0.1)
		near(row.Model+": nearest", 100*row.Nearest, want.nearest, 2)
	}
	near("fit: median", r.Fit.Median, 5.1, 0.1+rounding)
	near("fit: p90", r.Fit.P90, 14.9, 0.1+rounding)
	near("base", r.Numbers.BaseMS, r.InUse.BaseMS, 0.1)
	near("land", r.Numbers.LandFactor, r.InUse.LandFactor, 0.01)
	near("sea", r.Numbers.SeaFactor, r.InUse.SeaFactor, 0.01)
	near("landing", r.Numbers.LandingMS, r.InUse.LandingMS, 0.1)
	holdToGolden(t, r, near)
}

func holdToGolden(t *testing.T, r *Report, near func(what string, got, want, within float64)) {
	t.Helper()
	const file = "testdata/calibrate.golden.json"
	if *update {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want Report
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for i, row := range r.Models {
		near(row.Model+": median", row.All.Median, want.Models[i].All.Median, 0.05)
		near(row.Model+": mean", row.All.Mean, want.Models[i].All.Mean, 0.05)
		near(row.Model+": p90", row.All.P90, want.Models[i].All.P90, 0.05)
		near(row.Model+": below 50 ms", row.Short.Median, want.Models[i].Short.Median, 0.05)
		near(row.Model+": nearest", row.Nearest, want.Models[i].Nearest, 0.005)
	}
	if got := r.Weak[0].Region; !strings.HasPrefix(got, "South Africa") {
		t.Errorf("the model is weakest at %s, not in South Africa", got)
	}
}

// TestWaysAreExact takes predictions apart and puts them together again.
func TestWaysAreExact(t *testing.T) {
	m := Load()
	x := []float64{4.84, 1.763, 1.159, 2.7}
	predicted := m.predict(x)
	for i, w := range m.ways(x) {
		if got := w.ms(x); math.Abs(got-predicted[i]) > 1e-9 {
			t.Fatalf("pair %d: got %v, want %v", i, got, predicted[i])
		}
		if p := m.Pairs[i]; math.Abs(w.landings-math.Round(w.landings)) > 1e-4 || m.in(p.A, "US") && m.in(p.B, "US") && w.landings > 0.5 {
			t.Errorf("%s to %s: %v landings", m.Regions[p.A].Name, m.Regions[p.B].Name, w.landings)
		}
	}
}

func TestPrint(t *testing.T) {
	r := &Report{Regions: 40, Pairs: 780, Folds: 5, Models: []Row{{Model: "x", Numbers: "4", All: Errors{Median: 5.06, P90: 15.68}, Nearest: 0.914}}, Weak: []Weak{{"ZA", 14, -9}}}
	var text bytes.Buffer
	if err := r.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5.1 ms", "15.7 ms", "91 %", "ZA  14.0 ms  -9.0 ms"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}
