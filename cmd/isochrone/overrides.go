package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
)

func newForceCommand() *cobra.Command {
	var f overrideFlags
	command := &cobra.Command{
		Use:   "force POP up|down",
		Short: "Put a verdict in place of what health checks say, for a while",
		Example: `  isochrone force sin1 down --for 30m --reason "probes do not see it"
  isochrone force ap up --cluster --reason "the probe is wrong"`,
		Args: cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, args []string) error {
			verdict := topology.ForcedVerdict(args[1])
			if verdict != topology.ForceUp && verdict != topology.ForceDown {
				return fmt.Errorf("%q is neither up nor down", args[1])
			}
			o := f.override(topology.Force, args[0])
			o.Verdict = verdict
			return f.target.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				return f.put(ctx, command, ops, overrideName("force", args[0], f.cluster), o, fmt.Sprintf("%s is held to be %s", args[0], verdict))
			})
		},
	}
	f.register(command)
	command.Flags().BoolVar(&f.cluster, "cluster", false, "the name is that of a cluster")
	_ = command.MarkFlagRequired("reason")
	command.ValidArgsFunction = func(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return []string{"up", "down"}, cobra.ShellCompDirectiveNoFileComp
		}
		return f.complete(command, args, word)
	}
	return command
}

func newUnforceCommand() *cobra.Command {
	return newEndOverride("unforce POP", "End a forced verdict", topology.Force, "%s is again what health checks say\n")
}

func newPinCommand() *cobra.Command {
	var f overrideFlags
	command := &cobra.Command{
		Use:     "pin POP SHARE",
		Short:   "Have a PoP keep a share of its clients, for a while",
		Example: `  isochrone pin sin1 25% --for 2h --reason "new machine"`,
		Args:    cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, args []string) error {
			share, err := parseShare(args[1])
			if err != nil {
				return err
			}
			o := f.override(topology.Pin, args[0])
			o.Share = &share
			return f.target.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				return f.put(ctx, command, ops, overrideName("pin", args[0], false), o, fmt.Sprintf("%s keeps %.4g %% of its clients", args[0], 100*share))
			})
		},
	}
	f.register(command)
	_ = command.MarkFlagRequired("reason")
	return command
}

// parseShare reads a share, such as 25% or 0.25.
func parseShare(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, fmt.Errorf("%q is no share such as 25%% or 0.25", text)
	}
	return share, nil
}

func newUnpinCommand() *cobra.Command {
	return newEndOverride("unpin POP", "End a pinned share", topology.Pin, "the share of %s is pinned no more\n")
}

func newOverridesCommand() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use: "overrides", Short: "List overrides, those that have expired too", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.Overrides(ctx)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error { return printOverrides(out, list, time.Now()) })
			})
		},
	}
	t.register(command)
	remove := &cobra.Command{
		Use: "rm NAME", Short: "End an override", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeOverrides,
		RunE: func(command *cobra.Command, args []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if _, err := ops.DeleteOverride(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "override %s has ended\n", args[0])
				return nil
			})
		},
	}
	command.AddCommand(remove)
	return command
}

func printOverrides(out io.Writer, list []controlplane.OverrideStatus, now time.Time) error {
	return columns(out, "NAME\tKIND\tTARGET\tENDS\tAUTHOR\tREASON", func(row func(...any)) {
		for _, o := range list {
			ends := "expired"
			if !o.Expired {
				ends = "in " + o.Expires.Sub(now).Round(time.Second).String()
			}
			kind := string(o.Kind)
			switch {
			case o.Kind == topology.Force:
				kind += " " + string(o.Verdict)
			case o.Share != nil:
				kind += fmt.Sprintf(" %.4g %%", 100**o.Share)
			}
			row(o.Name, kind, cmp.Or(o.PoP, o.Cluster), ends, o.Author, o.Reason)
		}
	})
}
