// Package health says who is well, and who says so. It turns what vantages observe of targets (PoPs, clusters, DNS nodes) into verdicts
// by quorum. docs/health.md tells how in words.
//
// It is pure: time comes in with the calls; there are no sockets, clocks or goroutines. One vantage has a Watcher (what it sees: rise,
// fall, damping), a Schedule (when it probes what; Assign says who does) and a Ledger (what the others say). It sends a Report when what
// it says has changed. Judge makes verdicts of the reports that a Ledger holds:
//
//	due, again := schedule.Due(now)       // probe these, and ask again then
//	changed := watcher.Observe(o)         // when a probe has ended: if changed, send watcher.Statements in a Report
//	_, err := ledger.Take(report, now)    // when a report has arrived: then schedule.Heard for each of its statements
//	verdicts := health.Judge(health.Inputs{Reports: ledger.Reports(alive), ...}).Verdicts
//
// Package health/probe makes the observations. What a verdict means for a client's answer is the business of package router.
package health
