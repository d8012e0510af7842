package quorum

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var faults = flag.Int("faults", 2, "in each world")
var costs = flag.Bool("costs", false, "measure what health costs for 3, 30 and 300 PoPs")
var onlyBad = flag.String("bad", "", "vantages, separated by commas, of which worlds have one; empty for all")
var seeds = flag.Int("seeds", 0, "worlds of each kind of bad vantage; 0 stands for one of two kinds")

// hard are the faults that are the same for the whole world.
var hard = []Fault{HostDead, ProcessKilled, BrownOut, Errors}

func TestThirtyPoPs(t *testing.T) {
	results := map[Bad]*Result{}
	whole := Result{}
	kinds := Bads
	if *seeds == 0 {
		kinds = []Bad{LiesRegion, ReplayedAll}
	}
	if *onlyBad != "" {
		kinds = nil
		for name := range strings.SplitSeq(*onlyBad, ",") {
			kinds = append(kinds, Bad(name))
		}
	}
	for _, bad := range kinds {
		r := &Result{}
		for seed := range max(*seeds, 1) {
			r.Add(Run(uint64(seed), bad, *faults))
		}
		results[bad] = r
		whole.Add(*r)
	}
	all := []time.Duration{}
	for _, f := range hard {
		all = append(all, whole.Down[f]...)
	}
	for _, f := range Faults {
		d, u := whole.Down[f], whole.Up[f]
		t.Logf("%-15s down: %4d p50 %v p90 %v p99 %v max %v; up: p50 %v p99 %v max %v", f, len(d), Quantile(d, .5), Quantile(d, .9), Quantile(d, .99), Quantile(d, 1), Quantile(u, .5), Quantile(u, .99), Quantile(u, 1))
	}
	for _, bad := range kinds {
		r := results[bad]
		d := []time.Duration{}
		for _, f := range hard {
			d = append(d, r.Down[f]...)
		}
		t.Logf("%-16s p50 %v p99 %v max %v missed %d wrong %d regional %d disagree %d old %d probes/target/s %.2f bursts %d; datagrams/s %.1f B/s %.0f; writes/s %.2f B/s %.0f", bad, Quantile(d, .5), Quantile(d, .99), Quantile(d, 1), r.Missed, r.Wrong, r.WrongRegional, r.Disagreements, r.Old,
			float64(r.Probes)/r.Passed.Seconds()/30, r.Bursts, float64(r.Datagrams)/r.Passed.Seconds(), float64(r.DatagramOctets)/r.Passed.Seconds(), float64(r.Writes)/r.Passed.Seconds(), float64(r.WriteOctets)/r.Passed.Seconds())
	}
	for _, n := range whole.Notes {
		t.Log(n)
	}
	if p99 := Quantile(all, 0.99); p99 > 3*time.Second {
		t.Errorf("p99 of the time to a verdict is %v, want at most 3s", p99)
	}
	if whole.Wrong > 0 || whole.Missed > 0 || whole.Disagreements > 0 {
		t.Errorf("%d verdicts are wrong, %d missed, %d disagreements", whole.Wrong, whole.Missed, whole.Disagreements)
	}
}

func TestCosts(t *testing.T) {
	if !*costs {
		t.Skip("a table for docs/health.md: -costs")
	}
	for _, dies := range []bool{false, true} {
		for _, n := range []int{3, 30, 300} {
			t.Logf("dies %v: %+v", dies, Costs(n, dies))
		}
	}
}
