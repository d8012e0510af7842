package simulations

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestSingaporeFrankfurt(t *testing.T) {
	report, err := SingaporeFrankfurt(nil)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		report.Failures = nil
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("singapore_frankfurt.golden.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, failure := range report.Failures {
		t.Error(failure)
	}
}

// The claims by which the design stands or falls, apart from the golden file.
func TestWhatTheDesignPromises(t *testing.T) {
	report, err := SingaporeFrankfurt(nil)
	if err != nil {
		t.Fatal(err)
	}
	measured := report.Tables[2]
	for _, want := range []struct {
		city, way, connection string
		to202, loop           float64
	}{
		{"Singapore", "direct", "fresh", 448, 448},
		{"Singapore", "by PoP", "fresh", 10, 46},
		{"Singapore", "by PoP", "warm", 5, 41},
		{"Frankfurt", "direct", "fresh", 188, 188},
		{"Frankfurt", "by PoP", "fresh", 10, 26.5},
	} {
		i := slices.IndexFunc(measured.Rows, func(r Row) bool {
			return r.City == want.city && r.Way == want.way && r.Connection == want.connection && r.Transport == "QUIC"
		})
		if row := measured.Rows[i]; row.To202.Measured != want.to202 || row.Loop.Measured != want.loop {
			t.Errorf("%s, %s, %s: got %v and %v, want %v and %v", want.city, want.way, want.connection,
				row.To202.Measured, row.Loop.Measured, want.to202, want.loop)
		}
	}
}

func TestChangedLink(t *testing.T) {
	before, err := SingaporeFrankfurt(nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := SingaporeFrankfurt(RTTs{{"iad", "sin"}: ms(230)}) // in either order
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Failures) > 0 {
		t.Errorf("got failures %q", after.Failures)
	}
	for i, table := range after.Tables {
		for j, row := range table.Rows {
			was := before.Tables[i].Rows[j]
			depends := i == 2 && row.City == "Singapore" && row.Way == "direct"
			changed := row.PMS != was.PMS && row.To202.Analytic != was.To202.Analytic && row.Loop.Analytic != was.Loop.Analytic &&
				row.To202.Measured != was.To202.Measured && row.Acknowledged.Measured != was.Acknowledged.Measured
			if depends != changed {
				t.Errorf("%s: %+v was %+v", table.Title, row, was)
			}
		}
	}
	if _, err := SingaporeFrankfurt(RTTs{{"sin", "mars"}: 1}); err == nil || !strings.Contains(err.Error(), "sin,mars") || !strings.Contains(err.Error(), "sin,iad") {
		t.Errorf("an unknown link: got %v", err)
	}
}

// A world that is slower than its links, and one in which a claim stops holding, are noticed.
func TestFaultsAreNoticed(t *testing.T) {
	slow := func(rtts RTTs, path Path, over Transport) (fresh, warm Times, err error) {
		longer := maps.Clone(rtts)
		longer[Link{"node", "sin"}] += ms(1.2)
		return MeasureIntake(longer, path, over)
	}
	report, err := singaporeFrankfurt(nil, slow)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Failures) == 0 || !strings.Contains(report.Failures[0], "Singapore, by PoP, fresh QUIC: time to 202 measured 12.4 ms, analytic 10.0 ms") {
		t.Errorf("got %q", report.Failures)
	}

	report, err = SingaporeFrankfurt(RTTs{{"sin", "hkg"}: ms(80)})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Failures) == 0 || !strings.Contains(strings.Join(report.Failures, "\n"), `"by PoP: total round trip 50 ms" (by PoP, fresh, loop) held and holds no more`) {
		t.Errorf("got %q", report.Failures)
	}
}
