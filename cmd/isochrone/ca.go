package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/internal/statedir"
)

func newCACommand() *cobra.Command {
	return newGroup("ca", "Make the CA of a deployment, and certificates", newCAInit(), newCAIssue(), newCAShow())
}

// caDir is where the CA of a deployment is, unless --dir says otherwise. The example world's own CA is elsewhere.
func caDir() string { return filepath.Join(statedir.Default(), "ca") }

func newCAInit() *cobra.Command {
	var dir, name string
	command := &cobra.Command{
		Use:   "init",
		Short: "Make a CA, whose key stays in a file",
		Long: `Makes the CA by which nodes, operators, control planes and etcd's members know each other: ca.pem
is its certificate, valid for ten years, and ca-key.pem its key. Who has that key can be anybody,
etcd's root too: keep it where the control planes sign for new nodes, and a copy under lock.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			made, err := ca.Create(dir, name, time.Now())
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s has a CA already: it stays as it is", dir)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "CA %s: SHA-256 %s\n", ca.Path(dir), ca.Hash(made.Certificate()))
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", caDir(), "`folder` of the CA")
	command.Flags().StringVar(&name, "name", "Isochrone CA", "`text` by which people know it")
	return command
}

func newCAShow() *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use:   "show",
		Short: "Print the SHA-256 of the CA's certificate, and its end",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			authority, err := ca.OpenCertificate(ca.Path(dir))
			if err != nil {
				return err
			}
			cert := authority.Certificate()
			fmt.Fprintf(command.OutOrStdout(), "%s\nSHA-256 %s\nvalid until %s\n", cert.Subject.CommonName, ca.Hash(cert), cert.NotAfter.Format(time.DateOnly))
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", caDir(), "`folder` of the CA")
	return command
}

func newCAIssue() *cobra.Command {
	var (
		dir, kind, out string
		hosts          []string
		lifetime       time.Duration
		again          bool
	)
	kinds := make([]string, len(ca.Kinds))
	for i, k := range ca.Kinds {
		kinds[i] = string(k)
	}
	command := &cobra.Command{
		Use:   "issue NAME --kind KIND",
		Short: "Make a key and a certificate",
		Long: `Makes a key and a certificate of it, in the files KIND-NAME.key (mode 0600) and KIND-NAME.crt of
the folder --out. The kinds are ` + strings.Join(kinds, ", ") + `.
What a certificate's holder is called in etcd is its common name: KIND:NAME, root for etcd-root,
and nobody for the certificates of etcd's members.

Nodes do better to join ("isochrone pop invite"): their key is then made where it stays.`,
		Example: `  isochrone ca issue alice --kind operator
  isochrone ca issue e1 --kind etcd-server --host e1.example.net --host 192.0.2.21`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if !slices.Contains(kinds, kind) {
				return fmt.Errorf("kind: %q is not one of %s", kind, strings.Join(kinds, ", "))
			}
			authority, err := ca.Open(dir)
			if err != nil {
				return err
			}
			base := filepath.Join(out, kind+"-"+args[0])
			if _, err := os.Stat(base + ".key"); err == nil && !again {
				return fmt.Errorf("%s.key is there already: --again replaces it", base)
			}
			key, err := ca.NewKey()
			if err != nil {
				return err
			}
			request := ca.Request{Kind: ca.Kind(kind), Name: args[0], Hosts: hosts, Public: &key.PublicKey, Lifetime: lifetime}
			cert, err := authority.Issue(request, time.Now())
			if err != nil {
				return err
			}
			text, err := ca.EncodeKey(key)
			if err != nil {
				return err
			}
			// The CA's certificate comes with it: who joins knows no more of it than its hash.
			chain := ca.EncodeCertificate(cert.Raw, authority.Certificate().Raw)
			if err := errors.Join(privatefile.Write(base+".key", text), privatefile.WritePublic(base+".crt", chain)); err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "%s.crt is that of %s, valid until %s\n", base, cert.Subject.CommonName, cert.NotAfter.Format(time.DateOnly))
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", caDir(), "`folder` of the CA")
	command.Flags().StringVar(&kind, "kind", "", "what it is for: "+strings.Join(kinds, ", "))
	command.Flags().StringSliceVar(&hosts, "host", nil, "`names` and addresses that a server is reached by")
	command.Flags().DurationVar(&lifetime, "for", 0, "how `long` it is valid (default: 2160h for nodes, 8760h for others)")
	command.Flags().StringVar(&out, "out", ".", "`folder` of the files")
	command.Flags().BoolVar(&again, "again", false, "replace the files that are there")
	_ = command.MarkFlagRequired("kind")
	return command
}
