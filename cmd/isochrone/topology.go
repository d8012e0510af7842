package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
)

func newTopologyCommand() *cobra.Command {
	var t target
	command := newGroup("topology", "Read, check and edit the topology, and go back in its history",
		newTopologyGet(&t), newTopologyApply(&t), newTopologyValidate(), newTopologyEdit(&t), newTopologyRemove(&t),
		newTopologyHistory(&t), newTopologyShow(&t), newTopologyDiff(&t), newTopologyRollback(&t), newTopologyDoctor(&t), newTopologySchema())
	t.register(command)
	return command
}

func newTopologyGet(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "get [KIND/NAME]",
		Short: "Print the stored topology, or one object of it, as a document",
		Example: `  isochrone topology get > world.yaml
  isochrone topology get pops/sin1`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: t.complete(""),
		RunE: func(command *cobra.Command, args []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if len(args) == 1 {
					return getObject(ctx, command, t, ops, args[0])
				}
				stored, err := ops.Topology(ctx)
				if err != nil {
					return err
				}
				for _, fault := range stored.Faults {
					fmt.Fprintf(command.ErrOrStderr(), "invalid, and so not in force: %v\n", fault)
				}
				return t.showDocument(command, stored.Topology, stored.Topology.Marshal())
			})
		},
	}
}

// getObject prints one object. One that cannot be read is printed as it is stored: somebody wants to mend it.
func getObject(ctx context.Context, command *cobra.Command, t *target, ops controlplane.Operations, name string) error {
	r, err := topology.ParseRef(name)
	if err != nil {
		return err
	}
	stored, err := ops.Object(ctx, r)
	if err != nil {
		return err
	}
	if stored.Value == nil {
		_, faults := topology.ParseObject(r, []byte(stored.Text))
		if t.output == "json" {
			return &topology.InvalidError{Faults: faults}
		}
		for _, fault := range faults {
			fmt.Fprintf(command.ErrOrStderr(), "invalid, and so not in force: %v\n", fault)
		}
		_, err := io.WriteString(command.OutOrStdout(), stored.Text)
		return err
	}
	return t.showDocument(command, stored.Value, topology.MarshalValue(stored.Value))
}

// showDocument prints a value in its canonical YAML, or as JSON.
func (t *target) showDocument(command *cobra.Command, value any, text []byte) error {
	if t.output == "json" {
		return writeJSON(command.OutOrStdout(), value)
	}
	_, err := command.OutOrStdout().Write(text)
	return err
}

func newTopologyApply(t *target) *cobra.Command {
	var (
		file    string
		request controlplane.ApplyRequest
		sure    confirmation
	)
	command := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Put the objects of a document into the store, all or none",
		Long: `Puts the objects of a document (YAML or JSON, as "isochrone topology get" prints it) into the
store in one transaction. Objects that the document does not have stay as they are, unless
--replace is given. A topology that would be invalid is refused, with all its faults.`,
		Example: `  isochrone topology apply -f world.yaml --dry-run
  isochrone topology apply -f world.yaml -m "two more PoPs in Brazil"`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			text, err := readInput(file, command.InOrStdin(), topology.MaxDocumentBytes)
			if err != nil {
				return err
			}
			if _, err := topology.Parse(text); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			request.Document = string(text)
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if request.Replace && !request.DryRun && !sure.yes {
					if err := confirmDeletions(ctx, command, ops, request, &sure); err != nil {
						return err
					}
				}
				applied, err := ops.Apply(ctx, request)
				if err != nil {
					return fmt.Errorf("nothing was changed: %w", err)
				}
				return t.showApplied(command, applied, request.DryRun)
			})
		},
	}
	flags := command.Flags()
	flags.StringVarP(&file, "file", "f", "", "document `file`; - reads standard input")
	flags.StringVarP(&request.Message, "message", "m", "", "why, in a sentence, for the history")
	flags.Int64Var(&request.Base, "base", 0, "`revision` that the edit was made on: refuse if somebody edited since")
	flags.BoolVar(&request.Replace, "replace", false, "delete the objects that the document does not have")
	flags.BoolVar(&request.DryRun, "dry-run", false, "only tell what would change, and what that would do to clients")
	flags.BoolVar(&request.RevertInvalid, "revert-invalid", false, "take back, in the same transaction, the edits that made the stored topology invalid")
	sure.register(command)
	_ = command.MarkFlagRequired("file")
	return command
}

// confirmDeletions asks before a document that replaces all deletes something.
func confirmDeletions(ctx context.Context, command *cobra.Command, ops controlplane.Operations, request controlplane.ApplyRequest, sure *confirmation) error {
	request.DryRun = true
	planned, err := ops.Apply(ctx, request)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	var deleted []string
	for _, change := range planned.Changes {
		if change.Kind == "removed" {
			deleted = append(deleted, change.Object)
		}
	}
	if len(deleted) == 0 {
		return nil
	}
	return sure.ask(command, fmt.Sprintf("Delete %s?", shortList(deleted)))
}

func newTopologyValidate() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check a whole topology in a file, without a store",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			t, err := readDocument(file, command.InOrStdin())
			if err != nil {
				return err
			}
			if faults := t.Validate(); len(faults) > 0 {
				return fmt.Errorf("%s: %w", file, &topology.InvalidError{Faults: faults})
			}
			for _, warning := range t.Warnings() {
				fmt.Fprintf(command.ErrOrStderr(), "warning: %v\n", warning)
			}
			fmt.Fprintf(command.OutOrStdout(), "valid: %d zones, %d services, %d PoPs, %d clusters\n",
				len(t.Zones), len(t.Services), len(t.PoPs), len(t.Clusters))
			return nil
		},
	}
	command.Flags().StringVarP(&file, "file", "f", "", "document `file`; - reads standard input")
	_ = command.MarkFlagRequired("file")
	return command
}

func newTopologyRemove(t *target) *cobra.Command {
	var (
		request controlplane.ApplyRequest
		sure    confirmation
	)
	command := &cobra.Command{
		Use:               "rm KIND/NAME...",
		Short:             "Delete objects, all or none",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: t.complete(""),
		RunE: func(command *cobra.Command, args []string) error {
			for _, arg := range args {
				if _, err := topology.ParseRef(arg); err != nil {
					return err
				}
			}
			request.Delete = args
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if !request.DryRun {
					if err := sure.ask(command, fmt.Sprintf("Delete %s?", shortList(args))); err != nil {
						return err
					}
				}
				applied, err := ops.Apply(ctx, request)
				if err != nil {
					return fmt.Errorf("nothing was deleted: %w", err)
				}
				return t.showApplied(command, applied, request.DryRun)
			})
		},
	}
	command.Flags().StringVarP(&request.Message, "message", "m", "", "why, in a sentence, for the history")
	command.Flags().BoolVar(&request.DryRun, "dry-run", false, "only tell what would change, and what that would do to clients")
	command.Flags().BoolVar(&request.RevertInvalid, "revert-invalid", false, "take back, in the same transaction, the edits that made the stored topology invalid")
	sure.register(command)
	return command
}
