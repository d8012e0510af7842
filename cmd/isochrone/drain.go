package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
)

// overrideFlags are those of commands that make an override.
type overrideFlags struct {
	target  target
	length  time.Duration
	reason  string
	cluster bool
}

func (f *overrideFlags) register(command *cobra.Command) {
	f.target.register(command)
	command.Flags().DurationVar(&f.length, "for", time.Hour, "how `long`, such as 90m")
	command.Flags().StringVar(&f.reason, "reason", "", "why, for everyone who wonders")
	command.ValidArgsFunction = f.complete
}

func (f *overrideFlags) complete(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	kind := topology.PoPs
	if f.cluster {
		kind = topology.Clusters
	}
	return f.target.complete(kind)(command, args, word)
}

// override makes one about a PoP or a cluster.
func (f *overrideFlags) override(kind topology.OverrideKind, about string) *topology.Override {
	now := time.Now().UTC().Truncate(time.Second)
	o := &topology.Override{
		Schema: topology.FirstSchema, Kind: kind, PoP: about, Reason: f.reason, Author: author(), Created: now, Expires: now.Add(f.length),
	}
	if f.cluster {
		o.PoP, o.Cluster = "", about
	}
	return o
}

// put puts an override, and tells so in a sentence that its end is added to.
func (f *overrideFlags) put(ctx context.Context, command *cobra.Command, ops controlplane.Operations, name string, o *topology.Override, sentence string) error {
	revision, err := ops.PutOverride(ctx, name, o)
	if err != nil {
		return err
	}
	result := map[string]any{"name": name, "revision": revision, "expires": o.Expires}
	if err := f.target.show(command, result, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s until %s\n", sentence, o.Expires.Local().Format(time.DateTime))
		return err
	}); err != nil {
		return err
	}
	return warnUnknown(ctx, ops, o, command.ErrOrStderr())
}

// warnUnknown tells when an override is about nothing that the stored topology has.
func warnUnknown(ctx context.Context, ops controlplane.Operations, o *topology.Override, out io.Writer) error {
	kind, name := topology.PoPs, o.PoP
	if o.Cluster != "" {
		kind, name = topology.Clusters, o.Cluster
	}
	stored, err := ops.Topology(ctx)
	if err != nil {
		return err
	}
	if stored.Topology.Object(topology.Ref{Kind: kind, Name: name}) != nil {
		return nil
	}
	var names []string
	for _, r := range stored.Topology.Refs() {
		if r.Kind == kind {
			names = append(names, r.Name)
		}
	}
	what := map[topology.Kind]string{topology.PoPs: "PoP", topology.Clusters: "cluster"}[kind]
	fmt.Fprintf(out, "but the stored topology has no %s %s; it has %s\n", what, name, orNone(names))
	return nil
}

func newDrainCommand() *cobra.Command {
	var (
		f     overrideFlags
		check bool
		sure  confirmation
	)
	command := &cobra.Command{
		Use:   "drain POP",
		Short: "Send no new clients to a PoP for a while, or no envelopes to a cluster",
		Long: `Puts an override on top of the topology. It ends by itself, takes effect even while the stored
topology is invalid, and is ended early by "isochrone undrain". It asks first when the others
could not do what the drained one does; --check only tells that.`,
		Example: `  isochrone drain sin1 --check
  isochrone drain sin1 --for 1h --reason "power works"`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if !check && f.reason == "" {
				return errors.New(`required flag(s) "reason" not set`)
			}
			return f.target.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				request := controlplane.SafeRequest{PoP: args[0]}
				if f.cluster {
					request = controlplane.SafeRequest{Cluster: args[0]}
				}
				if check {
					return f.check(ctx, command, ops, request)
				}
				if err := confirmDrain(ctx, command, ops, request, &sure); err != nil {
					return err
				}
				return f.put(ctx, command, ops, drainName(args[0], f.cluster), f.override(topology.Drain, args[0]), args[0]+" is drained")
			})
		},
	}
	f.register(command)
	command.Flags().BoolVar(&f.cluster, "cluster", false, "the name is that of a cluster")
	command.Flags().BoolVar(&check, "check", false, "only tell whether it is safe; exit status 1 says that it is not")
	sure.register(command)
	return command
}

// check tells whether a drain is safe.
func (f *overrideFlags) check(ctx context.Context, command *cobra.Command, ops controlplane.Operations, request controlplane.SafeRequest) error {
	safety, err := ops.Safe(ctx, request)
	if err != nil {
		return err
	}
	err = f.target.show(command, safety, func(out io.Writer) error {
		answer := "no"
		if safety.Safe {
			answer = "yes"
		}
		_, err := fmt.Fprintf(out, "%s: %s\n", answer, strings.Join(safety.Because, "\n     "))
		return err
	})
	if err == nil && !safety.Safe {
		err = errSilent
	}
	return err
}

// confirmDrain asks before a drain that is not safe. Where safety cannot be told nothing is asked: a drain may be an emergency.
func confirmDrain(ctx context.Context, command *cobra.Command, ops controlplane.Operations, request controlplane.SafeRequest, sure *confirmation) error {
	if sure.yes {
		return nil
	}
	safety, err := ops.Safe(ctx, request)
	if err != nil {
		fmt.Fprintf(command.ErrOrStderr(), "whether it is safe cannot be told: %v\n", err)
		return nil
	}
	if safety.Safe {
		return nil
	}
	return sure.ask(command, fmt.Sprintf("This is not safe: %s\nDrain all the same?", strings.Join(safety.Because, "\n  ")))
}

func drainName(name string, cluster bool) string { return overrideName("drain", name, cluster) }

// overrideName is that of the override that a command makes about something.
func overrideName(kind, name string, cluster bool) string {
	if cluster {
		return kind + "-cluster-" + name
	}
	return kind + "-" + name
}

func newUndrainCommand() *cobra.Command {
	return newEndOverride("undrain POP", "End a drain", topology.Drain, "%s is drained no more\n")
}

// newEndOverride returns a command that ends what another one made.
func newEndOverride(use, short string, kind topology.OverrideKind, says string) *cobra.Command {
	var f overrideFlags
	command := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: f.target.completeEnding(kind, &f.cluster),
		RunE: func(command *cobra.Command, args []string) error {
			return f.target.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if _, err := ops.DeleteOverride(ctx, overrideName(string(kind), args[0], f.cluster)); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), says, args[0])
				return nil
			})
		},
	}
	f.target.register(command)
	if kind != topology.Pin {
		command.Flags().BoolVar(&f.cluster, "cluster", false, "the name is that of a cluster")
	}
	return command
}
