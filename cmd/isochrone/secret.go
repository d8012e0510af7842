package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

func newSecretCommand() *cobra.Command {
	command := newGroup("secret", "Seal secrets for the nodes of a role",
		newSecretKeygen(), newSecretPut(), newSecretList(), newSecretShow(), newSecretReseal(), newSecretRemove())
	command.Long = `A secret in the store is sealed for roles: who has a role's key file can open it, and nobody else.
Nodes take theirs with --secret-key. These names have a use:

  cluster-token.NAME    bearer token that PoPs show the cluster
  service-hmac.SERVICE  key of the request ids of a service, alike in all its PoPs
  webhook-hmac.SERVICE  key that a service's payloads are signed with, where it wants signatures
  tsig.KEYNAME          TSIG key of zone transfers, as ALGORITHM:BASE64 (hmac-sha256:…)
  bgp.NODE.PEER         password of a BGP session (TCP MD5), or bgp.PEER for that peer of all nodes
  acme.SERVICE          certificate and key that the leader has got by ACME for PoPs
  tickets               keys of session tickets that PoPs share, rotated by the leader
  peers                 by which PoPs know each other when they ask each other, made by the leader

What is sealed is never handed out by the API: "show" and "reseal" go to etcd itself.`
	return command
}

func newSecretKeygen() *cobra.Command {
	var out string
	command := &cobra.Command{
		Use:   "keygen ROLE -o FILE",
		Short: "Make the key file of a role, and print the recipient to seal for",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if _, err := os.Lstat(out); err == nil {
				return fmt.Errorf("%s is there already: what is sealed for its key could never be opened again", out)
			}
			identity, recipient, err := sealed.GenerateIdentity()
			if err != nil {
				return err
			}
			if strings.ContainsFunc(args[0], func(r rune) bool { return r < ' ' }) {
				return fmt.Errorf("%q is not the name of a role, such as node-pop", args[0])
			}
			if err := privatefile.Write(out, fmt.Appendf(nil, "# role: %s\n# recipient: %s\n%s\n", args[0], recipient, identity)); err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), recipient)
			return nil
		},
	}
	command.Flags().StringVarP(&out, "out", "o", "", "`file` of the key, which is made with mode 0600")
	_ = command.MarkFlagRequired("out")
	return command
}

func newSecretPut() *cobra.Command {
	var (
		t          target
		to         []string
		file, note string
		raw        bool
	)
	command := &cobra.Command{
		Use:   "put NAME --to RECIPIENT...",
		Short: "Seal a secret from standard input or a file, and store it",
		Long: `Seals here what is read from standard input or --file, and stores it sealed. An end of line at the
end is left out, unless --raw is given. There is no flag for the secret itself: what stands on a
command line can be read by others.`,
		Example: `  isochrone secret put cluster-token.fra --to age1… < token`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			secret, err := readSecret(file, command.InOrStdin(), raw)
			if err != nil {
				return err
			}
			if err := checkSecret(args[0], secret); err != nil {
				return err
			}
			s, err := sealed.Seal(args[0], secret, to, note, time.Now())
			if err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if err := ops.PutSecret(ctx, args[0], s); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "%s is sealed for %s\n", args[0], strings.Join(to, ", "))
				return nil
			})
		},
	}
	t.register(command)
	command.Flags().StringSliceVar(&to, "to", nil, "`recipients` (age1…), as \"isochrone secret keygen\" prints them")
	command.Flags().StringVar(&file, "file", "-", "`file` of the secret, of mode 0600; - is standard input")
	command.Flags().StringVar(&note, "note", "", "`text` for people, which is not sealed")
	command.Flags().BoolVar(&raw, "raw", false, "keep an end of line at the end")
	_ = command.MarkFlagRequired("to")
	return command
}

// readSecret reads a secret.
func readSecret(file string, stdin io.Reader, raw bool) (secret []byte, err error) {
	if file == "-" {
		secret, err = io.ReadAll(io.LimitReader(stdin, sealed.MaxSecretBytes+3))
	} else {
		secret, err = privatefile.Read(file, sealed.MaxSecretBytes+2)
	}
	if !raw {
		secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	}
	return secret, err
}

// checkSecret checks secrets whose form is known, so that a node finds nothing that it cannot use.
func checkSecret(name string, secret []byte) error {
	if key, ok := strings.CutPrefix(name, tsigSecret); ok {
		_, err := parseTSIGSecret(key, secret)
		return err
	}
	if strings.HasPrefix(name, bgpSecret) {
		return checkBGPPassword(string(secret))
	}
	return nil
}

func newSecretList() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:   "ls",
		Short: "List sealed secrets by name, with who can open them",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				list, err := ops.Secrets(ctx)
				if err != nil {
					return err
				}
				return t.show(command, list, func(out io.Writer) error {
					return columns(out, "NAME\tCREATED\tRECIPIENTS\tNOTE", func(row func(...any)) {
						for _, s := range list {
							row(s.Name, s.Created.Local().Format(time.DateTime), strings.Join(s.Recipients, ","), s.Note)
						}
					})
				})
			})
		},
	}
	t.register(command)
	return command
}

// openStored reads a secret from the store and opens it with a role's key file.
func openStored(ctx context.Context, flags *storeFlags, name, identity string) (s *topology.Sealed, secret []byte, err error) {
	identities, err := sealed.ReadIdentities(identity)
	if err != nil {
		return nil, nil, fmt.Errorf("identity: %w", err)
	}
	err = flags.with(ctx, func(ctx context.Context, st *store.Store) error {
		snap, err := st.Read(ctx)
		if err != nil {
			return err
		}
		if s = snap.Secrets[name]; s == nil {
			return fmt.Errorf("secrets/%s: %w", name, store.ErrNotFound)
		}
		secret, err = sealed.Open(name, s, identities)
		return err
	})
	return s, secret, err
}

func newSecretShow() *cobra.Command {
	var (
		flags    storeFlags
		identity string
		sure     confirmation
	)
	command := &cobra.Command{
		Use:   "show NAME --identity FILE",
		Short: "Open a secret and print it",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
				if err := sure.ask(command, "Show "+args[0]+" on this terminal?"); err != nil {
					return err
				}
			}
			_, secret, err := openStored(command.Context(), &flags, args[0], identity)
			if err != nil {
				return err
			}
			_, err = command.OutOrStdout().Write(secret)
			return err
		},
	}
	flags.register(command)
	command.Flags().StringVar(&identity, "identity", "", "key `file` of a role that it is sealed for")
	_ = command.MarkFlagRequired("identity")
	sure.register(command)
	return command
}

func newSecretReseal() *cobra.Command {
	var (
		flags    storeFlags
		identity string
		to       []string
	)
	command := &cobra.Command{
		Use:   "reseal NAME --identity FILE --to RECIPIENT...",
		Short: "Seal a secret for other recipients",
		Long: `Opens a secret and seals it anew, for the recipients that are named and no others. Who could open
it before may have kept it: when a key file was lost, make a new secret instead.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			s, secret, err := openStored(command.Context(), &flags, args[0], identity)
			if err != nil {
				return err
			}
			next, err := sealed.Seal(args[0], secret, to, s.Note, time.Now())
			if err != nil {
				return err
			}
			return flags.with(command.Context(), func(ctx context.Context, st *store.Store) error {
				if _, err := st.PutSealed(ctx, args[0], next, author()); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "%s is sealed for %s\n", args[0], strings.Join(to, ", "))
				return nil
			})
		},
	}
	flags.register(command)
	command.Flags().StringVar(&identity, "identity", "", "key `file` of a role that it is sealed for")
	command.Flags().StringSliceVar(&to, "to", nil, "`recipients` (age1…) who can open it from now on")
	_ = errors.Join(command.MarkFlagRequired("identity"), command.MarkFlagRequired("to"))
	return command
}

func newSecretRemove() *cobra.Command {
	var (
		t    target
		sure confirmation
	)
	command := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete a sealed secret",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := sure.ask(command, "Delete "+args[0]+"? What nodes opened it for stops."); err != nil {
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				if err := ops.DeleteSecret(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "%s is deleted\n", args[0])
				return nil
			})
		},
	}
	t.register(command)
	sure.register(command)
	return command
}
