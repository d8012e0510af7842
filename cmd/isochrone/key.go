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

func newKeyCommand() *cobra.Command {
	var t target
	command := newGroup("key", "Create, list, rotate and revoke API keys", newKeyCreate(&t), newKeyList(&t), newKeyRotate(&t), newKeyRevoke(&t))
	t.register(command)
	return command
}

// parseExpiry reads when something ends: a time, a day, or how long from now.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if length, err := time.ParseDuration(text); err == nil && length > 0 {
		return now.Add(length).UTC().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("--expires %q is none of a time such as 2030-01-31T12:00:00Z, a day such as 2030-01-31 and a duration such as 720h", text)
}

func newKeyCreate(t *target) *cobra.Command {
	var (
		request controlplane.KeyRequest
		expires string
	)
	command := &cobra.Command{
		Use:   "create",
		Short: "Make an API key and show it, this once",
		Example: `  isochrone key create --note "node of Alice" --quota 600
  isochrone key create --service intake.isochrone.test --from 203.0.113.0/24 --expires 2030-01-31`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) (err error) {
			if request.Expires, err = parseExpiry(expires, time.Now()); err != nil {
				return err
			}
			if request.QuotaPerMinute < 1 {
				return errors.New("--quota: want at least 1 request a minute")
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				made, err := ops.CreateKey(ctx, request)
				if err != nil {
					return err
				}
				return showKey(command, t, made, fmt.Sprintf("key %s may send %d requests a minute; it is stored as a hash and never shown again",
					made.ID, made.QuotaPerMinute))
			})
		},
	}
	flags := command.Flags()
	flags.StringSliceVar(&request.Services, "service", nil, "`host` name of a service that it is for (repeatable; default: all)")
	flags.Int64Var(&request.QuotaPerMinute, "quota", topology.DefaultQuotaPerMinute, "requests a `minute`, over all PoPs together")
	flags.StringVar(&expires, "expires", "", "when it ends: a `time`, a day or a duration (default: never)")
	flags.StringSliceVar(&request.From, "from", nil, "`prefix` that it may be used from (repeatable; default: anywhere)")
	flags.StringVar(&request.Note, "note", "", "whose it is, for operators")
	flags.BoolVar(&request.Probe, "probe", false, "for health checks: accepted with X-Isochrone-Probe only, never forwarded or counted")
	_ = command.RegisterFlagCompletionFunc("service", t.complete(topology.Services))
	return command
}

// showKey prints a key alone on standard output, for scripts.
func showKey(command *cobra.Command, t *target, made *controlplane.NewKey, says string) error {
	return t.show(command, made, func(out io.Writer) error {
		fmt.Fprintln(command.ErrOrStderr(), says)
		for _, warning := range made.Warnings {
			fmt.Fprintf(command.ErrOrStderr(), "warning: %s\n", warning)
		}
		_, err := fmt.Fprintln(out, made.Secret)
		return err
	})
}

func newKeyList(t *target) *cobra.Command {
	var page controlplane.Page
	command := &cobra.Command{
		Use: "ls", Short: "List API keys by their ids", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.Keys(ctx, page)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error { return printKeys(out, list) })
			})
		},
	}
	command.Flags().IntVar(&page.Limit, "limit", 1000, "`number` of keys, at most 1000")
	command.Flags().StringVar(&page.After, "after", "", "`id`: list those after it")
	return command
}

func printKeys(out io.Writer, list *controlplane.KeyPage) error {
	err := columns(out, "ID\tQUOTA A MINUTE\tSERVICES\tFROM\tENDS\tCREATED\tNOTE", func(row func(...any)) {
		for _, k := range list.Keys {
			quota, from, ends := fmt.Sprint(k.QuotaPerMinute), "anywhere", "never"
			if k.Probe {
				quota = "probes only"
			}
			if len(k.From) > 0 {
				from = strings.Trim(fmt.Sprint(k.From), "[]")
			}
			if k.Expired {
				ends = "expired"
			} else if !k.Expires.IsZero() {
				ends = k.Expires.Local().Format(time.DateTime)
			}
			services := strings.Join(k.Services, " ")
			if services == "" {
				services = "all"
			}
			if len(k.Warnings) > 0 {
				services += " (" + strings.Join(k.Warnings, ", ") + ")"
			}
			row(k.ID, quota, services, from, ends, k.Created.Local().Format(time.DateTime), k.Note)
		}
	})
	if err == nil && list.Next != "" {
		fmt.Fprintf(out, "more: --after %s\n", list.Next)
	}
	return err
}

func newKeyRotate(t *target) *cobra.Command {
	var overlap time.Duration
	command := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a new key for an id and show it; the old one stays good for a while",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: t.completeKeys,
		RunE: func(command *cobra.Command, args []string) error {
			if overlap < 0 {
				return fmt.Errorf("--overlap %v is negative", overlap)
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				made, err := ops.RotateKey(ctx, args[0], overlap)
				if err != nil {
					return err
				}
				return showKey(command, t, made, fmt.Sprintf("key %s is new; the one before it is good for another %v", made.ID, overlap))
			})
		},
	}
	command.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how `long` the old key stays good besides the new one")
	return command
}

func newKeyRevoke(t *target) *cobra.Command {
	var sure confirmation
	command := &cobra.Command{
		Use: "revoke ID", Short: "Delete an API key", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeKeys,
		RunE: func(command *cobra.Command, args []string) error {
			if err := sure.ask(command, fmt.Sprintf("Revoke key %s? Its client will be refused.", args[0])); err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if err := ops.RevokeKey(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "key %s is revoked\n", args[0])
				return nil
			})
		},
	}
	sure.register(command)
	return command
}
