package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
)

func newTokenCommand() *cobra.Command {
	var t target
	command := newGroup("token", "Create, list and revoke tokens of the control API", newTokenCreate(&t), newTokenList(&t), newTokenRevoke(&t))
	t.register(command)
	return command
}

func newTokenCreate(t *target) *cobra.Command {
	var role, expires string
	command := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Make a token of the control API and show it, this once",
		Long: `Makes a token. NAME is whose it is: the history and the audit log have it as the author. A viewer
reads, an operator edits topology, overrides and keys too, an admin makes tokens, seals secrets
and invites nodes too.`,
		Example: `  isochrone token create alice --role operator --expires 2030-01-31`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			ends, err := parseExpiry(expires, time.Now())
			if err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				made, err := ops.CreateToken(ctx, controlplane.TokenRequest{Name: args[0], Role: controlplane.Role(role), Expires: ends})
				if err != nil {
					return err
				}
				return t.show(command, made, func(out io.Writer) error {
					fmt.Fprintf(command.ErrOrStderr(), "token %s makes %s a %s; it is stored as a hash and never shown again\n", made.ID, made.Name, made.Role)
					_, err := fmt.Fprintln(out, made.Secret)
					return err
				})
			})
		},
	}
	command.Flags().StringVar(&role, "role", "", "`role`: viewer, operator or admin")
	command.Flags().StringVar(&expires, "expires", "", "when it ends: a `time`, a day or a duration (default: never)")
	_ = command.MarkFlagRequired("role")
	_ = command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

func newTokenList(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List tokens by their ids", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.Tokens(ctx)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error {
					return columns(out, "ID\tNAME\tROLE\tENDS\tCREATED", func(row func(...any)) {
						for _, token := range list {
							ends := "never"
							if token.Expired {
								ends = "expired"
							} else if !token.Expires.IsZero() {
								ends = token.Expires.Local().Format(time.DateTime)
							}
							row(token.ID, token.Name, token.Role, ends, token.Created.Local().Format(time.DateTime))
						}
					})
				})
			})
		},
	}
}

func newTokenRevoke(t *target) *cobra.Command {
	var sure confirmation
	command := &cobra.Command{
		Use: "revoke ID", Short: "Delete a token of the control API", Args: cobra.ExactArgs(1), ValidArgsFunction: t.completeTokens,
		RunE: func(command *cobra.Command, args []string) error {
			if err := sure.ask(command, fmt.Sprintf("Revoke token %s? Who has it will be refused.", args[0])); err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if err := ops.RevokeToken(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "token %s is revoked\n", args[0])
				return nil
			})
		},
	}
	sure.register(command)
	return command
}

func newWhoamiCommand() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use: "whoami", Short: "Tell as whom commands work, and what that may do", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				who, err := ops.Whoami(ctx)
				if err != nil {
					return err
				}
				return t.show(command, who, func(out io.Writer) error {
					_, err := fmt.Fprintf(out, "%s, %s\n", who.Name, who.Role)
					return err
				})
			})
		},
	}
	t.register(command)
	return command
}
