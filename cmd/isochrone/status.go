package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/dataplane/certs/acme"
	"github.com/isochrone/isochrone/dataplane/certs/rotation"
	"github.com/isochrone/isochrone/health"
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
				shown := &shownStatus{Status: status, Issued: issuedBy(ctx, ops)}
				return t.show(command, shown, func(out io.Writer) error {
					if err := printStatus(out, status, time.Now()); err != nil {
						return err
					}
					return printIssued(out, shown.Issued, time.Now())
				})
			})
		},
	}
	t.register(command)
	return command
}

// shownStatus is what "status" shows.
type shownStatus struct {
	*controlplane.Status
	Issued []issued `json:"issued,omitempty"`
}

// issued is a certificate, or the keys of session tickets, that the leader has got for PoPs.
type issued struct {
	Name   string    `json:"name"`
	What   string    `json:"what"`   // for people: issuer and expiry, or when the keys were rotated
	Sealed time.Time `json:"sealed"` // when PoPs were given it
}

// issuedBy lists what the leader has got for PoPs: nothing where the caller may not list sealed secrets.
func issuedBy(ctx context.Context, ops controlplane.Operations) []issued {
	secrets, err := ops.Secrets(ctx)
	if err != nil {
		return nil
	}
	var all []issued
	for _, s := range secrets {
		if s.Sealed != nil && (strings.HasPrefix(s.Name, acme.Prefix) || s.Name == rotation.Secret) {
			all = append(all, issued{strings.TrimPrefix(s.Name, acme.Prefix), s.Note, s.Created})
		}
	}
	return all
}

func printIssued(w io.Writer, all []issued, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	for _, i := range all {
		if _, err := fmt.Fprintf(w, "%s: %s; given to PoPs %s ago\n", i.Name, i.What, now.Sub(i.Sealed).Round(time.Second)); err != nil {
			return err
		}
	}
	return nil
}

func printStatus(w io.Writer, status *controlplane.Status, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "POP\tPLACE\tADDRESS\tSTATE\tHEALTH\tCLIENTS")
	for _, p := range status.PoPs {
		printTarget(table, p, now)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	printLoads(w, status, now)
	fmt.Fprintln(table, "\nCLUSTER\tPLACE\tADDRESS\tSTATE\tHEALTH\tENVELOPES")
	for _, c := range status.Clusters {
		printTarget(table, c, now)
	}
	if len(status.DNS) > 0 {
		fmt.Fprintln(table, "\nDNS NODE\tADDRESS\tHEALTH")
	}
	for _, d := range status.DNS {
		fmt.Fprintf(table, "%s\t%s\t%s\n", d.Name, d.Address, toldHealth(&d.Health, now))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(status.BGP) > 0 {
		fmt.Fprintln(table, "\nBGP\tPREFIX\tSTANDING")
	}
	for _, a := range status.BGP {
		for _, route := range a.Prefixes {
			fmt.Fprintf(table, "%s\t%s\t%s\n", a.Node, route.Prefix, route.Words())
		}
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
	if len(status.Vantages) > 1 {
		var names []string
		for _, v := range status.Vantages {
			names = append(names, v.Name)
		}
		fmt.Fprintf(w, "\nseen by %s\n", strings.Join(names, ", "))
	}
	if status.Alone {
		fmt.Fprintln(w, "\nlocal view: this control plane hears no other vantage, and goes by its own probes")
	}
	for _, v := range status.Vantages {
		if v.Doubted != "" {
			fmt.Fprintf(w, "not believed: %s: %s\n", v.Name, v.Doubted)
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
	served := "yes"
	if !t.Answered {
		served = "no: " + cmp.Or(t.Why, string(t.Health.Status), string(t.State))
	}
	fmt.Fprintf(w, "%s\t%s, %s\t%s\t%s\t%s\t%s\n", t.Name, t.City, t.Country, strings.Join(t.Address, " "), t.State, toldHealth(&t.Health, now), served)
}

// toldHealth tells a verdict in a few words.
func toldHealth(v *health.Verdict, now time.Time) string {
	text := string(v.Status)
	if !v.Since.IsZero() {
		text += " for " + now.Sub(v.Since).Round(time.Second).String()
	}
	if agreed := v.Agreed(); agreed != "" {
		text += " (" + agreed + ")"
	}
	for _, region := range slices.Sorted(maps.Keys(v.Regions)) {
		if own := v.Regions[region]; own.Status != v.Status {
			text += fmt.Sprintf(", %s in %s", own.Status, region)
		}
	}
	if v.Suspected {
		text += ", suspected"
	}
	if v.Shedding {
		text += ", sheds"
	}
	return text
}
