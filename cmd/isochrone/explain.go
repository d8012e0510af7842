package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

func newExplainCommand() *cobra.Command {
	var (
		t              target
		subnet, family string
		suppose        []string
	)
	command := &cobra.Command{
		Use:   "explain SERVICE --subnet PREFIX",
		Short: "Tell which PoP a client is sent to, and why",
		Example: `  isochrone explain intake.isochrone.test --subnet 203.0.113.0/24
  isochrone explain intake.isochrone.test --subnet 2001:db8::1 --family AAAA -o json
  isochrone explain intake.isochrone.test --subnet 203.0.113.0/24 --if "pop sin1 down"`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			request := controlplane.ExplainRequest{
				Service: strings.TrimSuffix(args[0], "."), Client: subnet, Family: strings.ToUpper(family), If: suppose,
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				trace, err := ops.Explain(ctx, request)
				if err != nil {
					return err
				}
				return t.show(command, trace, func(out io.Writer) error { return printTrace(out, trace) })
			})
		},
	}
	t.register(command)
	command.Flags().StringVar(&subnet, "subnet", "", "the client's `prefix` or address, as a resolver sends it")
	command.Flags().StringVar(&family, "family", "A", "record `type`: A, AAAA or HTTPS")
	command.Flags().StringArrayVar(&suppose, "if", nil, "what would be `if`: \"pop sin1 down\" (or up, draining), \"pop new1 at 1.35,103.8\" (repeatable)")
	command.ValidArgsFunction = t.complete(topology.Services)
	_ = command.MarkFlagRequired("subnet")
	return command
}

func printTrace(w io.Writer, trace *router.Trace) error {
	fmt.Fprintf(w, "%s %s for a client in %v\n", trace.Service, trace.Family, trace.Client)
	switch p := trace.Place; {
	case p == nil || !p.Located():
		fmt.Fprintf(w, "place: not known (%v): the failover order counts, then the mean RTT to the world's nodes\n", trace.Network)
	default:
		fmt.Fprintf(w, "place: %s (%.2f, %.2f), network %v\n", cmp.Or(strings.Join(nonEmpty(p.City, p.Country), ", "), "?"),
			p.LatDeg, p.LonDeg, trace.Network)
		if p.Coarse {
			fmt.Fprintf(w, "       only the country is known, and %s is large: another PoP may be nearer. A City database (--geoip) tells more.\n", p.Country)
		}
	}
	if trace.Measured.IsValid() {
		fmt.Fprintf(w, "measured: round-trip times of %v\n", trace.Measured)
	}
	if trace.Canary {
		fmt.Fprintln(w, "policy: the canary's")
	}
	if len(trace.Rules) > 0 {
		fmt.Fprintf(w, "rules: %s\n", strings.Join(trace.Rules, ", "))
	}
	if trace.Bucket != "" {
		fmt.Fprintf(w, "bucket: clients are shared among PoPs, those of %s alike\n", trace.Bucket)
	}
	if len(trace.Answer) == 0 {
		fmt.Fprintf(w, "answer: none, %s\n\n", trace.Outcome)
	} else {
		fmt.Fprintf(w, "answer: %s; every client in %v gets it\n\n", strings.Join(trace.Answer, ", "), trace.Scope)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tPOP\tCITY\tPREDICTED RTT\tMEASURED\tSTATE\tHEALTH\tWHY")
	for _, c := range trace.Candidates {
		mark, measured := "", "-"
		if c.Chosen {
			mark = "→"
		}
		if c.MeasuredMS != nil {
			measured = fmt.Sprintf("%.1f ms, %.0f %%", *c.MeasuredMS, 100*c.Weight)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, c.PoP, c.City, predicted(c), measured, c.State, c.Health, c.Reason)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return printSaid(w, trace, time.Now())
}

// printSaid tells of the candidates that are not simply well who says what of them, since when, and whom nobody believes.
func printSaid(w io.Writer, trace *router.Trace, now time.Time) (err error) {
	for i := range trace.Candidates {
		c := &trace.Candidates[i]
		differ := slices.ContainsFunc(c.Says, func(s router.Said) bool { return s.Status != c.Health || s.Doubted })
		if c.Health == health.Up && !differ && len(c.Verdict.Regions) == 0 && !c.Verdict.Suspected || c.Verdict.Since.IsZero() {
			continue
		}
		_, err = fmt.Fprintf(w, "\n%s is %s: %s\n", c.PoP, toldHealth(&c.Verdict, now), c.Verdict.Reason)
		for _, s := range c.Says {
			note := ""
			if s.Region != "" {
				note = " in " + s.Region
			}
			if s.Doubted {
				note += ", not believed"
			}
			_, err = fmt.Fprintf(w, "  %s%s says %s for %s: %s\n", s.Vantage, note, s.Status, now.Sub(s.Since).Round(time.Second), s.Reason)
		}
	}
	return err
}

// predicted tells a candidate's predicted round-trip time, and what the policy adds to it.
func predicted(c router.Candidate) string {
	text := fmt.Sprintf("%.1f ms", c.PredictedMS)
	if c.CostMS > 0 {
		text += fmt.Sprintf(" + %.1f", c.CostMS)
	}
	return text
}

func nonEmpty(words ...string) []string {
	var kept []string
	for _, word := range words {
		if word != "" {
			kept = append(kept, word)
		}
	}
	return kept
}
