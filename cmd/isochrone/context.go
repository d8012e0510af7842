package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newContextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Work in a context from now on", Args: cobra.ExactArgs(1), ValidArgsFunction: completeContexts,
		RunE: func(command *cobra.Command, args []string) error {
			known, err := readContexts()
			if err != nil {
				return err
			}
			found, err := known.find(args[0])
			if err != nil {
				return err
			}
			known.Current = args[0]
			if err := known.write(); err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "now in context %s: %v\n", args[0], found)
			return nil
		},
	}
}

func newContextList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the contexts", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			known, err := readContexts()
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "\tNAME\tWHERE")
			for _, name := range known.names() {
				mark := ""
				if name == known.Current {
					mark = "*"
				}
				fmt.Fprintf(table, "%s\t%s\t%v\n", mark, name, known.Contexts[name])
			}
			return table.Flush()
		},
	}
}

func newContextShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a context, the present one by default", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeContexts,
		RunE: func(command *cobra.Command, args []string) error {
			known, err := readContexts()
			if err != nil {
				return err
			}
			name := known.Current
			if len(args) == 1 {
				name = args[0]
			}
			if name == "" {
				fmt.Fprintln(command.OutOrStdout(), "no context is in use: commands work with \"isochrone up\" on this machine")
				return nil
			}
			found, err := known.find(name)
			if err != nil {
				return err
			}
			shown := *found
			if shown.Token != "" {
				shown.Token = "(not shown)"
			}
			return printYAML(command.OutOrStdout(), map[string]any{name: shown})
		},
	}
}

func newContextRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a context", Args: cobra.ExactArgs(1), ValidArgsFunction: completeContexts,
		RunE: func(command *cobra.Command, args []string) error {
			known, err := readContexts()
			if err != nil {
				return err
			}
			if _, err := known.find(args[0]); err != nil {
				return err
			}
			delete(known.Contexts, args[0])
			if known.Current == args[0] {
				known.Current = ""
			}
			return known.write()
		},
	}
}
