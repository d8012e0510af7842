package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
)

// parseRevision reads a revision, such as @1234; the @ may be missing, and @now stands for what is stored.
func parseRevision(text string) (int64, error) {
	digits := strings.TrimPrefix(text, "@")
	if digits == "now" {
		return 0, nil
	}
	revision, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || revision < 1 {
		return 0, fmt.Errorf("%q is no revision such as @1234: \"isochrone topology history\" lists them", text)
	}
	return revision, nil
}

func newTopologyHistory(t *target) *cobra.Command {
	var page controlplane.Page
	command := &cobra.Command{
		Use: "history", Short: "List the edits of the topology, the newest first", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.History(ctx, page)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error { return printHistory(out, list) })
			})
		},
	}
	command.Flags().IntVar(&page.Limit, "limit", 20, "`number` of edits, at most 1000")
	command.Flags().StringVar(&page.After, "after", "", "`revision`: list those before it")
	return command
}

func printHistory(out io.Writer, list *controlplane.HistoryPage) error {
	err := columns(out, "REVISION\tTIME\tAUTHOR\tCHANGES\tMESSAGE", func(row func(...any)) {
		for _, e := range list.Entries {
			var objects []string
			for _, change := range e.Changes {
				objects = append(objects, map[string]string{"added": "+", "removed": "-"}[change.Kind]+change.Object)
			}
			message := e.Message
			if !e.Valid {
				message = strings.TrimSpace("INVALID " + message)
			}
			row(fmt.Sprintf("@%d", e.Revision), e.Time.Local().Format(time.DateTime), e.Author, shortened(objects, 3), message)
		}
	})
	if err == nil && list.Next != "" {
		fmt.Fprintf(out, "older ones: --after %s\n", list.Next)
	}
	return err
}

func newTopologyShow(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "show @REVISION", Short: "Print the topology as it was at a revision", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeRevisions,
		RunE: func(command *cobra.Command, args []string) error {
			revision, err := parseRevision(args[0])
			if err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				stored, err := ops.At(ctx, revision)
				if err != nil {
					return err
				}
				for _, fault := range stored.Faults {
					fmt.Fprintf(command.ErrOrStderr(), "was invalid, and so not in force: %v\n", fault)
				}
				return t.showDocument(command, stored.Topology, stored.Topology.Marshal())
			})
		},
	}
}

func newTopologyDiff(t *target) *cobra.Command {
	var request controlplane.DiffRequest
	command := &cobra.Command{
		Use:               "diff @A [@B]",
		Short:             "Tell what differs between two revisions, or between one and what is stored now",
		Example:           `  isochrone topology diff @1200 --effect`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: t.completeRevisions,
		RunE: func(command *cobra.Command, args []string) (err error) {
			for i, to := range []*int64{&request.From, &request.To} {
				if i < len(args) {
					if *to, err = parseRevision(args[i]); err != nil {
						return err
					}
				}
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				difference, err := ops.Diff(ctx, request)
				if err != nil {
					return err
				}
				return t.show(command, difference, func(out io.Writer) error {
					if len(difference.Changes) == 0 {
						fmt.Fprintln(out, "nothing differs")
					}
					fmt.Fprint(out, difference.Text)
					printEffects(out, difference.Effect)
					return nil
				})
			})
		},
	}
	command.Flags().BoolVar(&request.Effect, "effect", false, "tell too what clients would be answered otherwise")
	return command
}

func newTopologyRollback(t *target) *cobra.Command {
	var (
		request controlplane.RollbackRequest
		sure    confirmation
	)
	command := &cobra.Command{
		Use: "rollback @REVISION", Short: "Make the topology what it was at a revision", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeRevisions,
		RunE: func(command *cobra.Command, args []string) (err error) {
			if request.Revision, err = parseRevision(args[0]); err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if !request.DryRun && !sure.yes {
					planned := request
					planned.DryRun = true
					would, err := ops.Rollback(ctx, planned)
					if err != nil {
						return fmt.Errorf("nothing was changed: %w", err)
					}
					printChanges(command.ErrOrStderr(), would.Changes)
					if err := sure.ask(command, fmt.Sprintf("Make the topology what it was at revision %d?", request.Revision)); err != nil {
						return err
					}
				}
				applied, err := ops.Rollback(ctx, request)
				if err != nil {
					return fmt.Errorf("nothing was changed: %w", err)
				}
				return t.showApplied(command, applied, request.DryRun)
			})
		},
	}
	command.Flags().StringVarP(&request.Message, "message", "m", "", "why, in a sentence, for the history")
	command.Flags().Int64Var(&request.Base, "base", 0, "`revision` that this was decided on: refuse if somebody edited since")
	command.Flags().BoolVar(&request.DryRun, "dry-run", false, "only tell what would change, and what that would do to clients")
	sure.register(command)
	return command
}

func newTopologyDoctor(t *target) *cobra.Command {
	var (
		revert bool
		sure   confirmation
	)
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what is wrong with the stored topology, and which edits did it",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				diagnosis, err := ops.Doctor(ctx)
				if err != nil {
					return err
				}
				if !revert || diagnosis.Valid {
					err := t.show(command, diagnosis, func(out io.Writer) error { return printDiagnosis(out, diagnosis) })
					if err == nil && !diagnosis.Valid {
						err = errSilent
					}
					return err
				}
				if err := printDiagnosis(command.ErrOrStderr(), diagnosis); err != nil {
					return err
				}
				if err := sure.ask(command, fmt.Sprintf("Take back what was changed since revision %d?", diagnosis.LastGood)); err != nil {
					return err
				}
				applied, err := ops.Apply(ctx, controlplane.ApplyRequest{RevertInvalid: true, Message: "take back what made the topology invalid"})
				if err != nil {
					return fmt.Errorf("nothing was changed: %w", err)
				}
				return t.showApplied(command, applied, false)
			})
		},
	}
	command.Flags().BoolVar(&revert, "revert-invalid", false, "take back the edits that made it invalid")
	sure.register(command)
	return command
}

func printDiagnosis(out io.Writer, d *controlplane.Diagnosis) error {
	if d.Valid {
		fmt.Fprintf(out, "the stored topology is valid, at revision %d\n", d.Revision)
	} else {
		fmt.Fprintf(out, "the stored topology is invalid, at revision %d, and so not in force:\n", d.Revision)
	}
	for _, fault := range d.Faults {
		fmt.Fprintf(out, "  %v\n", fault)
	}
	for _, fault := range d.Ignored {
		fmt.Fprintf(out, "without effect: %v\n", fault)
	}
	for _, warning := range d.Warnings {
		fmt.Fprintf(out, "warning: %v\n", warning)
	}
	for _, note := range d.Notes {
		fmt.Fprintln(out, note)
	}
	if len(d.Culprits) == 0 {
		return nil
	}
	fmt.Fprintf(out, "it was valid at revision %d; since then:\n", d.LastGood)
	return printHistory(out, &controlplane.HistoryPage{Entries: d.Culprits})
}
