package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/router"
)

func newExplainCommand() *cobra.Command {
	var (
		flags          apiFlags
		subnet, family string
		asJSON         bool
	)
	command := &cobra.Command{
		Use:   "explain SERVICE --subnet PREFIX",
		Short: "Tell which PoP a client is sent to, and why",
		Example: `  isochrone explain intake.isochrone.test --subnet 203.0.113.0/24
  isochrone explain intake.isochrone.test --subnet 2001:db8::1 --family AAAA --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			var trace router.Trace
			query := url.Values{
				"service": {strings.TrimSuffix(args[0], ".")}, "client": {subnet}, "family": {strings.ToUpper(family)},
			}
			if err := flags.read(command.Context(), "/v1/explain", query, &trace); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(command.OutOrStdout(), trace)
			}
			return printTrace(command.OutOrStdout(), &trace)
		},
	}
	flags.register(command)
	command.Flags().StringVar(&subnet, "subnet", "", "the client's `prefix` or address, as a resolver sends it")
	command.Flags().StringVar(&family, "family", "A", "record `type`: A, AAAA or HTTPS")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = command.MarkFlagRequired("subnet")
	return command
}

func printTrace(w io.Writer, trace *router.Trace) error {
	fmt.Fprintf(w, "%s %s for a client in %v\n", trace.Service, trace.Family, trace.Client)
	switch p := trace.Place; {
	case p == nil:
		fmt.Fprintf(w, "place: not known (%v): the failover order counts, then the mean RTT to the world's nodes\n", trace.Network)
	default:
		fmt.Fprintf(w, "place: %s (%.2f, %.2f), network %v\n", cmp.Or(strings.Join(nonEmpty(p.City, p.Country), ", "), "?"),
			p.LatDeg, p.LonDeg, trace.Network)
		if p.Coarse {
			fmt.Fprintf(w, "       only the country is known, and %s is large: another PoP may be nearer. A City database (--geoip) tells more.\n", p.Country)
		}
	}
	if len(trace.Answer) == 0 {
		fmt.Fprintf(w, "answer: none, %s\n\n", trace.Outcome)
	} else {
		fmt.Fprintf(w, "answer: %s; every client in %v gets it\n\n", strings.Join(trace.Answer, ", "), trace.Scope)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tPOP\tCITY\tPREDICTED RTT\tSTATE\tHEALTH\tWHY")
	for _, c := range trace.Candidates {
		mark := ""
		if c.Chosen {
			mark = "→"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f ms\t%s\t%s\t%s\n", mark, c.PoP, c.City, c.PredictedMS, c.State, c.Health, c.Reason)
	}
	return table.Flush()
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
