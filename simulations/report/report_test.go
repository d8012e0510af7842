package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isochrone/isochrone/simulations/scenario"
)

var update = flag.Bool("update", false, "write the golden files")

// example is a report with two policies, three seeds, and text that HTML and Markdown would read as theirs.
func example() *Report {
	sc := &scenario.Scenario{
		Name: "example", Summary: "Two policies & <three> seeds", About: "First *paragraph*.\n\nSecond <b>paragraph</b>.",
		Scales: []scenario.Scale{scenario.Flow}, Policies: []scenario.PolicyName{scenario.Ours, scenario.Nearest},
		Timeline: []scenario.Event{{At: scenario.Duration(2 * time.Minute), Lose: []string{"fra1"}}},
		Claims:   []scenario.Claim{{What: "a round trip", Figure: "rtt.p50", Value: "50 ms", Source: "a course"}},
	}
	var runs []*scenario.Run
	for seed := uint64(3); seed >= 1; seed-- {
		for i, policy := range []scenario.PolicyName{scenario.Nearest, scenario.Ours} {
			x := float64(seed) + 10*float64(i)
			runs = append(runs, &scenario.Run{
				Scale: scenario.Flow, Policy: policy, Seed: seed,
				Figures: map[string]scenario.Figure{
					"rtt.p50": {Value: 20 + x, Unit: "ms"}, "posts": {Value: 1234567}, "load.max": {Value: 0.9 + x/100}, "odd": {Value: 1e-9},
				},
				Distributions: map[string]scenario.Distribution{"rtt": {Unit: "ms", Bounds: []float64{0, 1, 2, 4, 8, 16, 32, 64}, Weights: []float64{0, 0, 1, 2, 4, 3, x, 1}}},
				Series: map[string]scenario.Series{
					"load/fra1": {Step: time.Minute, Values: []float64{0.5, 0.7, 0, 0}}, "load/sin1": {Step: time.Minute, Values: []float64{0.4, 0.5, 0.9 + x/100, 1.2}},
				},
				Cells: []scenario.Cell{{LatDeg: 50, LonDeg: 8, Weight: 1, RTT: 3, PoP: "fra1"}},
				PoPs:  []scenario.PoP{{Name: "fra1", Country: "DE", LatDeg: 50, LonDeg: 8}, {Name: "sin<1", Country: "SG", LatDeg: 1.3, LonDeg: 103.8}},
				Notes: []string{"00:02:00 fra1 dies & <rests>"},
			})
		}
	}
	return New(sc, runs, []scenario.Outcome{
		{Assertion: scenario.Assertion{That: "ours/rtt.p50 <= 40 ms"}, Held: true, Got: "32 ± 2.5 ms"},
		{Assertion: scenario.Assertion{That: "ours/load.max <= 1 | x", Why: "no PoP is full"}, Got: "1.02 <b>"},
	})
}

// golden compares what was written with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; -update writes it anew:\n%s", name, diff)
	}
}

func TestForms(t *testing.T) {
	for name, write := range map[string]func(*Report, io.Writer) error{
		"example.txt":  func(r *Report, w io.Writer) error { return r.Text(w, 80) },
		"example.md":   (*Report).Markdown,
		"example.csv":  (*Report).CSV,
		"example.json": (*Report).JSON,
	} {
		var once, again bytes.Buffer
		if err := write(example(), &once); err != nil {
			t.Fatal(err)
		}
		if err := write(example(), &again); err != nil || once.String() != again.String() {
			t.Errorf("%s: not the same twice, %v", name, err)
		}
		golden(t, name, once.Bytes())
	}
}

// TestMachines reads what programs are given.
func TestMachines(t *testing.T) {
	var text bytes.Buffer
	if err := example().JSON(&text); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Runs       []*scenario.Run
		Failed     int
		Assertions []scenario.Outcome
	}
	if err := json.Unmarshal(text.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example().Runs, read.Runs); diff != "" || read.Failed != 1 || len(read.Assertions) != 2 {
		t.Errorf("read again as something else: %d failed, %s", read.Failed, diff)
	}
	text.Reset()
	if err := example().CSV(&text); err != nil {
		t.Fatal(err)
	}
	if rows, err := csv.NewReader(&text).ReadAll(); err != nil || len(rows) != 1+6*4 {
		t.Errorf("got %d rows, %v", len(rows), err)
	}
}

// TestPage holds the page to be whole by itself, and what others wrote to be text in it.
func TestPage(t *testing.T) {
	var text bytes.Buffer
	if err := example().HTML(&text); err != nil {
		t.Fatal(err)
	}
	page := text.String()
	for _, never := range []string{"<script", "href=", "src=", "@import", "url(h", "<b>", "<three>", "sin<1", "ZgotmplZ"} {
		if strings.Contains(page, never) {
			t.Errorf("%q is in the page", never)
		}
	}
	for _, want := range []string{"1 of 2 assertions do not hold", "Two policies &amp; &lt;three&gt; seeds", "32.0 ± 2.5 ms", "fra1 dies", "<svg"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
}

// TestPictures reads all drawings as XML: none has a number that is none.
func TestPictures(t *testing.T) {
	r := example()
	names := []string{}
	for _, p := range append(r.Pictures(), Picture{Name: "nothing", SVG: (&chart{}).svg()}, Picture{Name: "one", SVG: (&chart{logX: true, curves: []curve{{x: []float64{0}, y: []float64{0}}}}).svg()}) {
		names = append(names, p.Name)
		if strings.Contains(p.SVG, "NaN") || strings.Contains(p.SVG, "Inf") {
			t.Errorf("%s has a number that is none", p.Name)
		}
		decoder := xml.NewDecoder(strings.NewReader(p.SVG))
		for {
			if _, err := decoder.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Errorf("%s: %v", p.Name, err)
				break
			}
		}
	}
	if diff := cmp.Diff([]string{"rtt", "load-over-time", "map", "nothing", "one"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 1: "1", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345.6: "12,346", 1234567: "1,234,567",
		-0.5: "-0.5", 0.123456: "0.123", 1e-9: "1.0e-09", -54321: "-54,321", 0.5: "0.5", 0.91: "0.91"} {
		if got := number(x); got != want {
			t.Errorf("%v: got %s, want %s", x, got, want)
		}
	}
}

func TestSparkline(t *testing.T) {
	for want, got := range map[string]string{
		"▁▅█":  Sparkline([]float64{0, 1, 2}, 2, 80),
		"▅█":   Sparkline([]float64{0, 1, 2, 0}, 2, 2),
		"":     Sparkline(nil, 1, 10),
		"▁▁":   Sparkline([]float64{0, 0}, 0, 10),
		"█▁▁█": Sparkline([]float64{9, 0, -1, 9}, 4, 4),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
