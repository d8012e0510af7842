package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
)

// completionTime bounds how long a shell waits for names.
const completionTime = time.Second

// completing asks for names to complete a word with. Where nothing answers in time there are none.
func (t *target) completing(command *cobra.Command, names func(context.Context, controlplane.Operations) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(command.Context(), completionTime)
	defer cancel()
	ops, done, err := t.open(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer done()
	found, err := names(ctx, ops)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// complete completes names of objects of a kind, or of all kinds as KIND/NAME.
func (t *target) complete(kind topology.Kind) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && command.Name() != "rm" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return t.completing(command, func(ctx context.Context, ops controlplane.Operations) ([]string, error) {
			stored, err := ops.Topology(ctx)
			if err != nil {
				return nil, err
			}
			var names []string
			for _, r := range stored.Topology.Refs() {
				switch kind {
				case "":
					names = append(names, r.String())
				case r.Kind:
					names = append(names, r.Name)
				}
			}
			return names, nil
		})
	}
}

// completeRevisions completes revisions of the history.
func (t *target) completeRevisions(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return t.completing(command, func(ctx context.Context, ops controlplane.Operations) ([]string, error) {
		list, err := ops.History(ctx, controlplane.Page{Limit: 50})
		if err != nil {
			return nil, err
		}
		var revisions []string
		for _, e := range list.Entries {
			revisions = append(revisions, fmt.Sprintf("@%d\t%s %s", e.Revision, e.Author, e.Message))
		}
		return revisions, nil
	})
}

// completeOverrides completes the names of overrides.
func (t *target) completeOverrides(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return t.completing(command, func(ctx context.Context, ops controlplane.Operations) ([]string, error) {
		list, err := ops.Overrides(ctx)
		var names []string
		for _, o := range list {
			names = append(names, o.Name)
		}
		return names, err
	})
}

// completeEnding completes with what an override of a kind is about.
func (t *target) completeEnding(kind topology.OverrideKind, cluster *bool) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return t.completing(command, func(ctx context.Context, ops controlplane.Operations) ([]string, error) {
			list, err := ops.Overrides(ctx)
			var names []string
			for _, o := range list {
				about := o.PoP
				if *cluster {
					about = o.Cluster
				}
				if len(args) == 0 && o.Kind == kind && o.Name == overrideName(string(kind), about, *cluster) {
					names = append(names, about)
				}
			}
			return names, err
		})
	}
}

// completeKeys completes ids of API keys.
func (t *target) completeKeys(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return t.completing(command, func(ctx context.Context, ops controlplane.Operations) ([]string, error) {
		if len(args) > 0 {
			return nil, nil
		}
		list, err := ops.Keys(ctx, controlplane.Page{Limit: 1000})
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, k := range list.Keys {
			ids = append(ids, k.ID+"\t"+k.Note)
		}
		return ids, nil
	})
}

// completeTokens completes ids of tokens.
func (t *target) completeTokens(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return t.completing(command, func(ctx context.Context, ops controlplane.Operations) ([]string, error) {
		if len(args) > 0 {
			return nil, nil
		}
		list, err := ops.Tokens(ctx)
		var ids []string
		for _, token := range list {
			ids = append(ids, token.ID+"\t"+token.Name)
		}
		return ids, err
	})
}

// completeContexts completes the names of contexts.
func completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	known, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return known.names(), cobra.ShellCompDirectiveNoFileComp
}
