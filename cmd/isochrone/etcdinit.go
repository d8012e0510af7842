package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/topology/store"
)

func newEtcdCommand() *cobra.Command {
	return newGroup("etcd", "Prepare etcd: roles, users, authentication", newEtcdInit(), newEtcdRoles())
}

// setupTimeout bounds a hundred requests to an etcd whose members may be far from each other.
const setupTimeout = 2 * time.Minute

// client calls work with a client of etcd.
func (f *storeFlags) client(ctx context.Context, timeout time.Duration, work func(context.Context, *clientv3.Client) error) error {
	if err := f.etcd.check(); err != nil {
		return err
	}
	client, err := f.etcd.connect(ctx, f.dir)
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return work(ctx, client)
}

func newEtcdInit() *cobra.Command {
	var (
		flags        storeFlags
		rootPassword string
		dryRun       bool
		users        = map[store.Role]*[]string{store.Operator: {}, store.Control: {}, store.NodeDNS: {}, store.NodePoP: {}}
	)
	command := &cobra.Command{
		Use:   "init",
		Short: "Make etcd's roles and users, and have it authenticate everybody",
		Long: `Makes the roles of "isochrone etcd roles", the users that are named, and turns etcd's
authentication on. It may be repeated: what is as it shall be is left alone, and a role that was
changed is made to agree again. Once authentication is on, only root may do this.

A user is known by the common name of its client certificate (etcd runs with --client-cert-auth),
such as operator:alice, or by a password, when it is named with a file of one: alice=FILE. The
same goes for root, who needs --root-password-file or a certificate of kind etcd-root.`,
		Example: `  isochrone etcd init --etcd https://e1.example.net:2379 --etcd-ca ca.pem \
    --etcd-cert etcd-root-root.crt --etcd-key etcd-root-root.key --control c1 --operator alice`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			out := command.OutOrStdout()
			setup := store.Setup{DryRun: dryRun, Tell: func(line string) { fmt.Fprintln(out, line) }}
			var faults []error
			for _, role := range store.Roles {
				for _, text := range *users[role] {
					user, err := parseUser(role, text)
					setup.Users, faults = append(setup.Users, user), append(faults, err)
				}
			}
			var err error
			setup.RootPassword, err = readPassword(rootPassword)
			if err == nil && setup.RootPassword == "" && flags.etcd.user != "root" && !isRootCertificate(flags.etcd.cert) {
				err = errors.New("nobody could be root afterwards: name --root-password-file, or show a certificate of kind etcd-root with --etcd-cert")
			}
			if err := errors.Join(append(faults, err)...); err != nil {
				return err
			}
			if dryRun {
				fmt.Fprintln(out, "this is what would be done:")
			}
			return flags.client(command.Context(), setupTimeout, func(ctx context.Context, client *clientv3.Client) error {
				warnRelease(ctx, client, command.ErrOrStderr())
				if err := store.SetUp(ctx, client, flags.etcd.prefix, setup); err != nil {
					return err
				}
				fmt.Fprintln(out, "etcd's roles and users are as they shall be")
				return nil
			})
		},
	}
	flags.register(command)
	for role, flag := range map[store.Role]string{store.Operator: "operator", store.Control: "control", store.NodeDNS: "dns", store.NodePoP: "pop"} {
		command.Flags().StringSliceVar(users[role], flag, nil, "`names` of users with the role "+string(role)+", each with =FILE when it has a password")
	}
	command.Flags().StringVar(&rootPassword, "root-password-file", "", "`file` with the password of a new root, of mode 0600")
	command.Flags().BoolVar(&dryRun, "dry-run", false, "only tell what would be done")
	return command
}

// parseUser reads NAME or NAME=FILE.
func parseUser(role store.Role, text string) (store.User, error) {
	name, file, _ := strings.Cut(text, "=")
	password, err := readPassword(file)
	if err == nil && file != "" && password == "" {
		err = fmt.Errorf("%s: the password is empty", file)
	}
	return store.User{Role: role, Name: name, Password: password}, errors.Join(ca.CheckName(name), err)
}

// readPassword reads a password; without a file it is none.
func readPassword(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := privatefile.Read(file, maxSecretFile)
	return strings.TrimSpace(string(text)), err
}

// isRootCertificate reports whether a file has the certificate of etcd's root.
func isRootCertificate(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && cert.Subject.CommonName == ca.EtcdRoot.CommonName("")
}

// warnRelease tells when etcd is of a release whose roles do not hold.
func warnRelease(ctx context.Context, client *clientv3.Client, out io.Writer) {
	for _, endpoint := range client.Endpoints() {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := client.Status(asking, endpoint)
		cancel()
		if err == nil && !store.HoldsRoles(status.Version) {
			fmt.Fprintf(out, "warning: etcd %s at %s does not hold users to their roles in all requests (CVE-2026-33343, CVE-2026-73499): "+
				"use 3.5.33, 3.6.14, 3.7.1 or later\n", status.Version, endpoint)
		}
	}
}

func newEtcdRoles() *cobra.Command {
	return &cobra.Command{
		Use:   "roles",
		Short: "Print which role may do what below which prefix",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			table := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprint(table, "PREFIX")
			for _, role := range store.Roles {
				fmt.Fprint(table, "\t", strings.ToUpper(string(role)))
			}
			fmt.Fprintln(table, "\tWHY")
			for _, p := range store.Table() {
				fmt.Fprint(table, p.Prefix)
				for _, role := range store.Roles {
					fmt.Fprint(table, "\t", p.Of(role))
				}
				fmt.Fprintln(table, "\t"+p.Why)
			}
			return table.Flush()
		},
	}
}
