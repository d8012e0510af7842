package simulations

import (
	"encoding/json"
	"flag"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/packet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain is the report of the links as they are, made once for all tests. They do not change it.
var plain = sync.OnceValues(func() (*Report, error) { return compared(nil, 30) })

func TestSingaporeFrankfurt(t *testing.T) {
	report, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		report.Failures, report.Spread = nil, nil
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
	report, err := plain()
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
	before, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	after, err := compared(RTTs{{"iad", "sin"}: ms(230)}, 0) // in either order
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

// measuredTable makes the table of the measured links alone.
func measuredTable(t *testing.T, measure measureFunc) *Report {
	t.Helper()
	table, err := compareCities("links as measured between cloud regions", measuredRTTs(), []reading{roundTrips, oneWay}, measure)
	if err != nil {
		t.Fatal(err)
	}
	return &Report{Tables: []Table{table}}
}

// goldenTable is that of the golden file.
func goldenTable(t *testing.T) *Report {
	t.Helper()
	var golden Report
	if err := json.Unmarshal(singaporeFrankfurtGolden, &golden); err != nil {
		t.Fatal(err)
	}
	return &Report{Tables: golden.Tables[2:]}
}

// A world that is slower than its links, and one in which a claim stops holding, are noticed.
func TestFaultsAreNoticed(t *testing.T) {
	report := measuredTable(t, func(rtts RTTs, path Path, over Transport) (fresh, warm Times, err error) {
		longer := maps.Clone(rtts)
		longer[Link{"node", "sin"}] += ms(1.2)
		return MeasureIntake(longer, path, over)
	})
	report.checkAnalytic()
	if len(report.Failures) == 0 || !strings.Contains(report.Failures[0], "Singapore, by PoP, fresh QUIC: time to 202 measured 12.4 ms, analytic 10.0 ms") {
		t.Errorf("got %q", report.Failures)
	}
	report = goldenTable(t)
	i := slices.IndexFunc(report.Tables[0].Claims, func(c Claim) bool { return c.Holds })
	report.Tables[0].Claims[i].Holds = false
	report.compare(goldenTable(t), false)
	if len(report.Failures) != 1 || !strings.Contains(report.Failures[0], "held and holds no more") {
		t.Errorf("got %q", report.Failures)
	}
}

// oneTripMore asks the PoP something before each post, and waits for the answer.
type oneTripMore struct{ http.RoundTripper }

func (o oneTripMore) RoundTrip(r *http.Request) (*http.Response, error) {
	question, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.URL.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := o.RoundTripper.RoundTrip(question)
	if err != nil {
		return nil, err
	}
	answer.Body.Close()
	return o.RoundTripper.RoundTrip(r)
}

// A round trip too many is noticed in every row, whatever else the golden figures allow.
func TestOneRoundTripTooMany(t *testing.T) {
	report := measuredTable(t, func(rtts RTTs, path Path, over Transport) (fresh, warm Times, err error) {
		return measureIntake(rtts, path, over, func(r http.RoundTripper) http.RoundTripper { return oneTripMore{r} })
	})
	golden := goldenTable(t)
	report.compare(golden, true)
	rows := len(report.Tables[0].Rows)
	for i, row := range report.Tables[0].Rows {
		if got, want := round(row.To202.Measured-golden.Tables[0].Rows[i].To202.Measured), row.PMS; got != want {
			t.Errorf("%+v: got %v ms more, want %v", row, got, want)
		}
	}
	differ := 0
	for _, failure := range report.Failures {
		if strings.Contains(failure, "golden") && strings.Contains(failure, "to_202_ms") {
			differ++
		}
	}
	if differ != rows {
		t.Errorf("%d of %d rows were noticed: %q", differ, rows, report.Failures)
	}
}

var runs = flag.Int("runs", 2, "how often a world is run that must come out equal")

// Times and outcomes of one seed are equal, whatever the number of cores. Over QUIC that is so for jitter; with losses, quic-go's random packet
// numbers decide now and then whether it acknowledges at once or after 25 ms, and with that when a lost packet is sent again.
func TestEqualRuns(t *testing.T) {
	for over, loss := range map[Transport]float64{QUIC: 0, TCP: 0.02} {
		var before [2][]time.Duration
		for run := range *runs {
			fresh, warm, err := MeasureMany(packet.Config{Seed: 7, Way: func(from, to *packet.Host) (packet.Way, error) {
				w, err := measuredRTTs().Way(from, to)
				w.Loss, w.Jitter = loss, packet.JitterOf(2*w.Delay)
				return w, err
			}}, Path{"node", "sin", "hkg"}, over, 20)
			if err != nil {
				t.Fatal(err)
			}
			for _, times := range [][]time.Duration{fresh, warm} {
				for i := range times {
					times[i] = times[i].Round(100 * time.Microsecond)
				}
			}
			now := [2][]time.Duration{fresh, warm}
			if run > 0 && !reflect.DeepEqual(now, before) {
				t.Errorf("run %d over %s: got %v, want %v", run, over, now, before)
			}
			before = now
		}
	}
}

// A median that is a round trip too long is noticed.
func TestSpread(t *testing.T) {
	report, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Spread) != 8 {
		t.Fatalf("got %+v", report.Spread)
	}
	slower := &Report{Spread: slices.Clone(report.Spread)}
	slower.Spread[0].Fresh.P50 += slower.Spread[0].Warm.P50
	if slower.checkSpread(); len(report.Failures) > 0 || len(slower.Failures) != 1 {
		t.Errorf("got failures %q", slower.Failures)
	}
}
