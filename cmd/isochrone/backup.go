package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/topology/store"
)

// backupTimeout bounds backup and restore: 100,000 keys and a long history take seconds nearby, and longer over an ocean.
const backupTimeout = 30 * time.Minute

// withLong calls work with the store, for longer than with does.
func (f *storeFlags) withLong(ctx context.Context, work func(context.Context, *store.Store) error) error {
	if err := f.etcd.check(); err != nil {
		return err
	}
	client, err := f.etcd.connect(ctx, f.dir)
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, backupTimeout)
	defer cancel()
	return work(ctx, store.New(client, f.etcd.prefix))
}

func newBackupCommand() *cobra.Command {
	var flags storeFlags
	command := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that stands in the store to a file",
		Long: `Writes topology, overrides, keys, sealed secrets, history and all else that stands in the store, as
it is at one revision, to one checksummed file; - is standard output. Left out is what is of the
moment: records of nodes, reports of health, who leads, and quota that is used. Secrets are in it as
they are in the store: sealed, or as hashes. The key files that open them are not in it.`,
		Example: `  isochrone backup isochrone-$(date +%F).backup`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.withLong(command.Context(), func(ctx context.Context, s *store.Store) error {
				var summary store.Summary
				shown := startProgress(command.ErrOrStderr(), "backing up", 0, octets)
				defer shown.end()
				err := writeWhole(args[0], command.OutOrStdout(), func(w io.Writer) (err error) {
					summary, err = s.Backup(ctx, writeProgress{w, shown})
					return err
				})
				if err != nil {
					return err
				}
				shown.end()
				fmt.Fprintf(command.ErrOrStderr(), "backed up revision %d: %s\n", summary.Revision, sectionsOf(summary))
				return nil
			})
		},
	}
	flags.register(command)
	return command
}

// restorePasses is how often a restore reads the file: it checks it, writes what it has but topology, and then that.
const restorePasses = 3

func newRestoreCommand() *cobra.Command {
	var (
		flags   storeFlags
		replace bool
	)
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the store what a backup says",
		Long: `Restores what "isochrone backup" wrote; - is standard input. The whole file is checked before anything
is written, and a store that is not empty is refused, unless --replace is given. Nodes go on
with what they have until all is there; when it is broken off, it can be repeated.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			in, shown := command.InOrStdin(), (*progress)(nil)
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
				if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
					shown = startProgress(command.ErrOrStderr(), "restoring", restorePasses*info.Size(), octets)
					defer shown.end()
					in = readProgress{file, shown}
				}
			}
			return flags.withLong(command.Context(), func(ctx context.Context, s *store.Store) error {
				summary, err := s.Restore(ctx, in, store.RestoreOptions{Replace: replace, Author: author()})
				if err != nil {
					return fmt.Errorf("restore %s: %w", args[0], err)
				}
				shown.end()
				fmt.Fprintf(command.OutOrStdout(), "restored at revision %d what was taken %s: %s\n",
					summary.Revision, summary.Time.Local().Format(time.DateTime), sectionsOf(summary))
				return nil
			})
		},
	}
	flags.register(command)
	command.Flags().BoolVar(&replace, "replace", false, "restore into a store that is not empty: delete what the backup does not have")
	return command
}

// sectionsOf tells how many keys of each kind a backup has.
func sectionsOf(s store.Summary) string {
	parts := []string{fmt.Sprintf("%d keys", s.Keys)}
	for _, section := range slices.Sorted(maps.Keys(s.Sections)) {
		parts = append(parts, fmt.Sprintf("%d of %s", s.Sections[section], section))
	}
	return strings.Join(parts, ", ")
}

// writeWhole has a file written that only its owner can read, whole or not at all; - is standard output.
func writeWhole(path string, stdout io.Writer, write func(io.Writer) error) error {
	if path == "-" {
		return write(stdout)
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // of mode 0600
	if err != nil {
		return err
	}
	err = write(file)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
