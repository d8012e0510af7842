package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/ca"
)

// joinCommands are those of "isochrone pop" by which nodes come and go.
func joinCommands() []*cobra.Command {
	return []*cobra.Command{newInvite(), newJoin(), newRenew(), newExpel()}
}

func newInvite() *cobra.Command {
	var (
		t        target
		request  controlplane.InviteRequest
		lifetime time.Duration
		control  []string
	)
	command := &cobra.Command{
		Use:   "invite NAME",
		Short: "Make a one-time token by which a new machine joins as a node",
		Long: `Makes a token for one new machine, and prints it, this once: it is stored as a hash. On that
machine "isochrone pop join -" takes it from standard input and gets the node's certificate. Hand
it over as you would a password. It says which control planes to ask, and how to know them.

A control plane needs an admin's token for this, and knows the CA and --control itself. Straight at
etcd (--etcd), as an operator, both are to be named. With root's certificate or password the node
gets its user in etcd at once; else it has one only if the control plane may make it, and follows
the store by the control plane.`,
		Example: `  isochrone pop invite sin1 | ssh sin1 isochrone pop join -
  isochrone pop invite sin1 --etcd https://192.0.2.10:2379 --etcd-ca ca.pem --control https://c1.example.net:8443 | ssh sin1 isochrone pop join -`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			request.Name, request.Expires = args[0], time.Now().Add(lifetime)
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if err := t.admitting(ops, control); err != nil {
					return err
				}
				invitation, err := ops.Invite(ctx, request)
				if err != nil {
					return err
				}
				return t.show(command, invitation, func(out io.Writer) error {
					fmt.Fprintf(command.ErrOrStderr(), "this token lets one machine join as %s:%s until %s\n",
						invitation.Kind, invitation.Name, invitation.Expires.Local().Format(time.DateTime))
					_, err := fmt.Fprintln(out, invitation.Token)
					return err
				})
			})
		},
	}
	t.register(command)
	registerNodeKind(command, &request.Kind)
	command.Flags().DurationVar(&lifetime, "expires", time.Hour, "how `long` the token is good, at most 168h")
	command.Flags().StringSliceVar(&control, "control", nil, "`URLs` of control planes, which the new node asks; with --etcd")
	return command
}

// admitting makes who works straight at etcd know what control planes know: where they are, and the deployment's CA.
func (t *target) admitting(ops controlplane.Operations, control []string) error {
	service, direct := ops.(*controlplane.Service)
	if !direct {
		if len(control) > 0 {
			return errors.New("--control: the control plane that is asked says itself where nodes find it")
		}
		return nil
	}
	file := t.ca
	if file == "" {
		file = t.etcd.ca
	}
	if file == "" {
		return errors.New("--ca: want the file of the deployment's CA certificate, which the token names by its hash")
	}
	authority, err := ca.OpenCertificate(file)
	if err != nil {
		return err
	}
	service.Registrar.CA, service.Registrar.URLs = authority, control
	return nil
}

func registerNodeKind(command *cobra.Command, kind *string) {
	command.Flags().StringVar(kind, "kind", "pop", "`kind` of node: pop or dns")
	_ = command.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"pop", "dns"}, cobra.ShellCompDirectiveNoFileComp))
}

func newExpel() *cobra.Command {
	var (
		t    target
		kind string
		sure confirmation
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
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				expelled, err := ops.Expel(ctx, kind, args[0])
				if err != nil {
					return err
				}
				return t.show(command, expelled, func(out io.Writer) error {
					if expelled.Etcd {
						fmt.Fprintf(command.ErrOrStderr(), "its user in etcd may be there still, for root to remove (etcdctl user delete)\n")
					}
					_, err := fmt.Fprintf(out, "%s:%s is turned out\n", kind, args[0])
					return err
				})
			})
		},
	}
	t.register(command)
	registerNodeKind(command, &kind)
	sure.register(command)
	return command
}
