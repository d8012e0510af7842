package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
)

func newStatusCommand() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:   "status",
		Short: "Show PoPs, clusters and overrides: who is well, and who gets clients",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				status, err := ops.Status(ctx)
				if err != nil {
					return err
				}
				return t.show(command, status, func(out io.Writer) error { return printStatus(out, status, time.Now()) })
			})
		},
	}
	t.register(command)
	return command
}

func printStatus(w io.Writer, status *controlplane.Status, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "POP\tPLACE\tADDRESS\tSTATE\tHEALTH\tCLIENTS")
	for _, p := range status.PoPs {
		printTarget(table, p, now)
	}
	fmt.Fprintln(table, "\nCLUSTER\tPLACE\tADDRESS\tSTATE\tHEALTH\tENVELOPES")
	for _, c := range status.Clusters {
		printTarget(table, c, now)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, o := range status.Overrides {
		if !o.Expired {
			fmt.Fprintf(w, "\noverride %s: %s %s for another %v, by %s: %s\n", o.Name, o.Kind, cmp.Or(o.PoP, o.Cluster),
				o.Expires.Sub(now).Round(time.Second), o.Author, o.Reason)
		}
	}
	fmt.Fprintf(w, "\ntopology of revision %d in force, store read up to revision %d\n", status.Good, status.Revision)
	for _, fault := range status.Faults {
		fmt.Fprintf(w, "a newer topology is invalid and not in force: %v\n", fault)
	}
	for _, fault := range status.Ignored {
		fmt.Fprintf(w, "without effect: %v\n", fault)
	}
	return nil
}

func printTarget(w io.Writer, t controlplane.TargetStatus, now time.Time) {
	health := string(t.Health.Status)
	if !t.Health.Since.IsZero() {
		health += " for " + now.Sub(t.Health.Since).Round(time.Second).String()
	}
	served := "yes"
	if !t.Answered {
		served = "no: " + cmp.Or(t.Why, string(t.Health.Status), string(t.State))
	}
	fmt.Fprintf(w, "%s\t%s, %s\t%s\t%s\t%s\t%s\n", t.Name, t.City, t.Country, strings.Join(t.Address, " "), t.State, health, served)
}
