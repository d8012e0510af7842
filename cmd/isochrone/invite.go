package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology/store"
)

// joinCommands are those of "isochrone pop" by which nodes come and go.
func joinCommands() []*cobra.Command {
	return []*cobra.Command{newInvite(), newJoin(), newRenew(), newExpel()}
}

func newInvite() *cobra.Command {
	var (
		flags    storeFlags
		kind     string
		lifetime time.Duration
		control  []string
		caFile   string
	)
	command := &cobra.Command{
		Use:   "invite NAME",
		Short: "Make a one-time token by which a new machine joins as a node",
		Long: `Makes a token for one new machine, and prints it, this once: it is stored as a hash. On that
machine "isochrone pop join -" takes it from standard input and gets the node's certificate. Hand
it over as you would a password. It says which control planes to ask, and how to know them.

This goes to etcd itself, as an operator. With root's certificate or password the node gets its
user in etcd at once; else it has one only if the control plane may make it, and follows the
store by the control plane.`,
		Example: `  isochrone pop invite sin1 --control https://c1.example.net:8443 --ca ca.pem | ssh sin1 isochrone pop join -`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if caFile == "" {
				caFile = flags.etcd.ca
			}
			if caFile == "" {
				return errors.New("ca: want the file of the CA's certificate, which the token names by its hash")
			}
			authority, err := ca.OpenCertificate(caFile)
			if err != nil {
				return err
			}
			return flags.client(command.Context(), 10*time.Second, func(ctx context.Context, client *clientv3.Client) error {
				r := &controlplane.Registrar{Etcd: client, Root: flags.etcd.prefix, CA: authority, URLs: control, Now: time.Now}
				invitation, err := r.Invite(ctx, controlplane.InviteRequest{
					Name: args[0], Kind: kind, Expires: time.Now().Add(lifetime), Author: author(),
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(command.OutOrStdout(), invitation.Token)
				fmt.Fprintf(command.ErrOrStderr(), "this token lets one machine join as %s:%s until %s\n",
					invitation.Kind, invitation.Name, invitation.Expires.Local().Format(time.DateTime))
				return nil
			})
		},
	}
	flags.register(command)
	command.Flags().StringVar(&kind, "kind", "pop", "`kind` of node: pop or dns")
	command.Flags().DurationVar(&lifetime, "expires", time.Hour, "how `long` the token is good, at most 168h")
	command.Flags().StringSliceVar(&control, "control", nil, "`URLs` of control planes, which the new node asks")
	command.Flags().StringVar(&caFile, "ca", "", "`file` of the deployment's CA certificate (PEM; default: that of --etcd-ca)")
	_ = command.MarkFlagRequired("control")
	return command
}

func newExpel() *cobra.Command {
	var (
		flags storeFlags
		kind  string
		sure  confirmation
	)
	command := &cobra.Command{
		Use:   "expel NAME",
		Short: "Turn a node out: its certificate is renewed no more",
		Long: `Forgets that a node has joined, so that its certificate is not renewed and control planes let it
in no more, and removes its user from etcd, which only root may do. A certificate cannot be called
back: where nobody asks the control plane it is good until it ends.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := sure.ask(command, fmt.Sprintf("Turn %s:%s out?", kind, args[0])); err != nil {
				return err
			}
			return flags.client(command.Context(), 10*time.Second, func(ctx context.Context, client *clientv3.Client) error {
				r := &controlplane.Registrar{Etcd: client, Root: flags.etcd.prefix, Now: time.Now}
				err := r.Expel(ctx, kind, args[0], author())
				if errors.Is(err, store.ErrPermission) {
					return fmt.Errorf("its certificate is renewed no more, but its user in etcd is still there: %w", err)
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "%s:%s is turned out\n", kind, args[0])
				return nil
			})
		},
	}
	flags.register(command)
	command.Flags().StringVar(&kind, "kind", "pop", "`kind` of node: pop or dns")
	sure.register(command)
	return command
}
