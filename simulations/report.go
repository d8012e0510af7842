package simulations

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a scenario found. Times are milliseconds, rounded to 0.1: virtual times are equal from run to run to that.
type Report struct {
	Scenario string   `json:"scenario"`
	Tables   []Table  `json:"tables"`
	Spread   []Spread `json:"spread,omitempty"`   // of many clients, over the measured links with jitter and loss
	Failures []string `json:"failures,omitempty"` // why the report is not as it should be
}

// Table is what was found with one set of links.
type Table struct {
	Title  string    `json:"title"`
	Links  []LinkRTT `json:"links"`
	Rows   []Row     `json:"rows"`
	Claims []Claim   `json:"claims"`
}

// LinkRTT is the round-trip time that a link was given.
type LinkRTT struct {
	Link string  `json:"link"`
	MS   float64 `json:"rtt_ms"`
}

// Row is one way to post, on one kind of connection.
type Row struct {
	City         string  `json:"city"`
	Way          string  `json:"way"`
	PMS          float64 `json:"p_ms"` // round trip between client and PoP
	CMS          float64 `json:"c_ms"` // round trip between PoP and cluster
	Transport    string  `json:"transport"`
	Connection   string  `json:"connection"`
	To202        Figure  `json:"to_202_ms"`       // to the 202 of ack: spool
	Acknowledged Figure  `json:"acknowledged_ms"` // until the cluster's acknowledgement is at the PoP
	Loop         Figure  `json:"loop_ms"`         // to the 202 of ack: cluster
}

// Figure is a time as it was measured, and as it follows from the links.
type Figure struct {
	Measured float64 `json:"measured"`
	Analytic float64 `json:"analytic"`
}

// Claim is something said of a city, with the measured figure that it is about.
type Claim struct {
	City   string  `json:"city"`
	Claim  string  `json:"claim"`
	Figure string  `json:"figure"`
	MS     float64 `json:"measured_ms"`
	Holds  bool    `json:"holds"`
}

// tolerance is by how much a measured figure may differ from the analytic one.
const tolerance = 1.0 // ms

// checkAnalytic notes the figures that differ from the arithmetic of the links.
func (r *Report) checkAnalytic() {
	for _, table := range r.Tables {
		for _, row := range table.Rows {
			for i, f := range []Figure{row.To202, row.Acknowledged, row.Loop} {
				if math.Abs(f.Measured-f.Analytic) > tolerance {
					r.Failures = append(r.Failures, fmt.Sprintf("%s: %s, %s, %s %s: %s measured %.1f ms, analytic %.1f ms",
						table.Title, row.City, row.Way, row.Connection, row.Transport, figureNames[i], f.Measured, f.Analytic))
				}
			}
		}
	}
}

var figureNames = []string{"time to 202", "acknowledgement", "loop"}

// compare notes claims that held in the golden report and do not any more and, if the links are the same, figures that differ.
func (r *Report) compare(golden *Report, sameLinks bool) {
	for i := range golden.Tables {
		if i >= len(r.Tables) {
			break
		}
		was, is := &golden.Tables[i], &r.Tables[i]
		for _, c := range was.Claims {
			same := func(d Claim) bool { return d.City == c.City && d.Claim == c.Claim && d.Figure == c.Figure }
			now := slices.IndexFunc(is.Claims, same)
			if c.Holds && (now < 0 || !is.Claims[now].Holds) {
				r.Failures = append(r.Failures, fmt.Sprintf("%s: %s: %q (%s) held and holds no more", was.Title, c.City, c.Claim, c.Figure))
			}
		}
	}
	if !sameLinks {
		return
	}
	is, was := r.lines(), golden.lines()
	for i, line := range is {
		if i >= len(was) || was[i] != line {
			r.Failures = append(r.Failures, "differs from the golden figures: "+line)
		}
	}
	if len(is) < len(was) {
		r.Failures = append(r.Failures, fmt.Sprintf("%d golden figures are missing", len(was)-len(is)))
	}
}

// lines returns each row and each claim in one line.
func (r *Report) lines() []string {
	var lines []string
	add := func(title string, of any) {
		text, err := json.Marshal(of)
		if err != nil {
			panic(err) // numbers and strings can be written
		}
		lines = append(lines, title+": "+string(text))
	}
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			add(t.Title, row)
		}
		for _, c := range t.Claims {
			add(t.Title, c)
		}
	}
	return lines
}

// Print writes the report for a person.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprint(out, `A node posts to US-East directly, or to a PoP in its city that forwards to the regional cluster. Client, dataplane,
spool, forwarder and cluster are the real ones, in virtual time over a simulated network. Times in ms: measured, and in
brackets as they follow from p (client-PoP) and c (PoP-cluster), the round trips of the links. QUIC is HTTP/3, TCP is
HTTP/2 with TLS 1.3.
`)
	for _, t := range r.Tables {
		fmt.Fprintf(out, "\n== %s\n", t.Title)
		links := make([]string, len(t.Links))
		for i, l := range t.Links {
			links[i] = fmt.Sprintf("%s %v", l.Link, l.MS)
		}
		fmt.Fprintf(out, "   round trips: %s\n\n", strings.Join(links, " · "))
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "CITY\tWAY\tP\tC\tCONNECTION\tTIME TO 202\tACKNOWLEDGED\tLOOP")
		for _, row := range t.Rows {
			fmt.Fprintf(table, "%s\t%s\t%v\t%v\t%s %s\t%v\t%v\t%v\n", row.City, row.Way, row.PMS, row.CMS, row.Connection, row.Transport,
				row.To202, row.Acknowledged, row.Loop)
		}
		fmt.Fprintln(table, "\nCLAIM\tOF\tFIGURE\tMEASURED\t")
		for _, c := range t.Claims {
			verdict := "does not hold"
			if c.Holds {
				verdict = "holds"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\t%s\n", c.Claim, c.City, c.Figure, c.MS, verdict)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if err := r.printSpread(out); err != nil {
		return err
	}
	if len(r.Failures) == 0 {
		_, err := fmt.Fprintf(out, "\nAll measured times are within %v ms of the analytic ones, and every claim that held before holds.\n", tolerance)
		return err
	}
	_, err := fmt.Fprintf(out, "\nnot as it should be:\n  %s\n", strings.Join(r.Failures, "\n  "))
	return err
}

// printSpread writes what many clients waited for.
func (r *Report) printSpread(out io.Writer) error {
	if len(r.Spread) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n== links as measured, with jitter and %v %% of packets lost each way: time to 202 of %d clients\n\n", 100*r.Spread[0].Loss, r.Spread[0].Clients)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CITY\tWAY\tTRANSPORT\tFRESH P50\tFRESH P99\tWARM P50\tWARM P99")
	for _, s := range r.Spread {
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f (%.1f)\t%.1f\t%.1f (%.1f)\t%.1f\n", s.City, s.Way, s.Transport, s.Fresh.P50, s.Fresh.Analytic, s.Fresh.P99, s.Warm.P50, s.Warm.Analytic, s.Warm.P99)
	}
	return table.Flush()
}

// String returns both figures, the analytic one in brackets.
func (f Figure) String() string {
	return fmt.Sprintf("%.1f (%.1f)", f.Measured, f.Analytic)
}

// ms returns a time of so many milliseconds.
func ms(n float64) time.Duration { return time.Duration(math.Round(n * float64(time.Millisecond))) }

// inMS returns a time in milliseconds, rounded to 0.1.
func inMS(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

func round(n float64) float64 { return math.Round(n*10) / 10 }
