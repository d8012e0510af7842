package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
)

func newNodesCommand() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use: "nodes", Short: "List the processes that are alive, and what is in force there", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.Nodes(ctx)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error { return printNodes(out, list, time.Now()) })
			})
		},
	}
	t.register(command)
	return command
}

func printNodes(out io.Writer, list []controlplane.NodeStatus, now time.Time) error {
	return columns(out, "NAME\tKIND\tVERSION\tUP FOR\tTOPOLOGY\tNOTE", func(row func(...any)) {
		for _, n := range list {
			var notes []string
			if n.Leader {
				notes = append(notes, "leader")
			}
			if n.Behind {
				notes = append(notes, "another topology is in force there")
			}
			row(n.Name, n.Kind, n.Version, now.Sub(n.Started).Round(time.Second), fmt.Sprintf("@%d", n.Good), strings.Join(notes, ", "))
		}
	})
}

func newAuditCommand() *cobra.Command {
	var (
		t    target
		page controlplane.Page
	)
	command := &cobra.Command{
		Use: "audit", Short: "List all writes, the newest first", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.Audit(ctx, page)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error {
					err := columns(out, "TIME\tAUTHOR\tACTION\tOBJECTS", func(row func(...any)) {
						for _, e := range list.Entries {
							row(e.Time.Local().Format(time.DateTime), e.Author, e.Action, shortened(e.Objects, 3))
						}
					})
					if err == nil && list.Next != "" {
						fmt.Fprintf(out, "older ones: --after %s\n", list.Next)
					}
					return err
				})
			})
		},
	}
	t.register(command)
	command.Flags().IntVar(&page.Limit, "limit", 50, "`number` of writes, at most 1000")
	command.Flags().StringVar(&page.After, "after", "", "`key` that the list before ended with")
	return command
}
