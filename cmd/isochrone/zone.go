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

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

func newZoneCommand() *cobra.Command {
	var flags storeFlags
	command := newGroup("zone", "Import, export and check zone files",
		newZoneImport(&flags), newZoneExport(&flags), newZoneCheck())
	flags.register(command)
	return command
}

// zoneSource is a zone file on the command line.
type zoneSource struct {
	zone    string
	include bool
}

func (z *zoneSource) register(command *cobra.Command) {
	command.Flags().StringVar(&z.zone, "zone", "", "`name` of the zone, such as example.net")
	command.Flags().BoolVar(&z.include, "include", false, "follow $INCLUDE: the file may read every file that you can read")
	_ = command.MarkFlagRequired("zone")
}

// name is the zone's name as it stands in the topology.
func (z *zoneSource) name() string { return strings.ToLower(strings.TrimSuffix(z.zone, ".")) }

// zoneText is a zone file that has been read.
type zoneText struct {
	zone    string
	text    []byte
	options topology.ZoneFileOptions
}

// open reads the file, or standard input for -.
func (z *zoneSource) open(file string, stdin io.Reader) (*zoneText, error) {
	x := &zoneText{zone: z.name(), options: topology.ZoneFileOptions{Name: file}}
	if file == "-" {
		x.options.Name = "standard input"
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		stdin = opened
	}
	var err error
	if x.text, err = io.ReadAll(io.LimitReader(stdin, topology.MaxZoneFileBytes+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", x.options.Name, err)
	}
	if z.include {
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		x.options.Path, x.options.Include = filepath.ToSlash(path), os.DirFS("/")
	}
	return x, nil
}

// parse makes a zone of the file and checks it; base has what the file does not say, and may be nil.
func (x *zoneText) parse(base *topology.Zone) (*topology.ZoneFile, error) {
	x.options.Base = base
	read, err := topology.ReadZoneFile(x.zone, x.text, x.options)
	if err == nil {
		err = read.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("read zone %s: %w", x.zone, err)
	}
	return read, nil
}

func newZoneImport(flags *storeFlags) *cobra.Command {
	var (
		source          zoneSource
		message         string
		dryRun, replace bool
	)
	command := &cobra.Command{
		Use:   "import FILE --zone NAME",
		Short: "Put a zone file into the store, as a zone of the topology",
		Long: `Reads a zone file as BIND, NSD and others have it (RFC 1035 section 5) and puts it into the
store in one transaction. SOA and NS records become the zone's fields, with the addresses of
its name servers; what a former DNSSEC signer made is left out; all other records are kept.

A zone that is stored already is replaced only with --replace. It then keeps its hostmaster
and name servers if the file has no SOA or NS records, and the addresses of name servers
that do not lie in the zone.`,
		Example: `  isochrone zone import db.example.net --zone example.net --dry-run
  dig @old axfr example.net | isochrone zone import - --zone example.net -m "moved here"`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			file, err := source.open(args[0], command.InOrStdin())
			if err != nil {
				return err
			}
			if dryRun && !replace {
				return printImport(command, file, nil)
			}
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				base, revision, err := storedZone(ctx, s, file.zone, replace)
				if err != nil {
					return err
				}
				if dryRun {
					return printImport(command, file, base)
				}
				read, err := file.parse(base)
				if err != nil {
					return err
				}
				if message == "" {
					message = "import of " + args[0]
				}
				reportImport(command.OutOrStdout(), file.zone, read)
				return applyZone(ctx, s, file.zone, read, revision, message, command.OutOrStdout())
			})
		},
	}
	source.register(command)
	command.Flags().StringVarP(&message, "message", "m", "", "why, in a sentence, for the history")
	command.Flags().BoolVar(&dryRun, "dry-run", false, "print a document with the zone, for \"topology apply\", and store nothing")
	command.Flags().BoolVar(&replace, "replace", false, "replace a zone that is stored already")
	return command
}

// storedZone returns the zone that an import replaces, or nil, and the revision of the store.
func storedZone(ctx context.Context, s *store.Store, name string, replace bool) (*topology.Zone, int64, error) {
	t, _, revision, err := s.Stored(ctx)
	if err != nil {
		return nil, 0, err
	}
	if !replace {
		_, err := s.StoredText(ctx, topology.Ref{Kind: topology.Zones, Name: name}) // it may be stored, and unreadable
		if err == nil {
			return nil, 0, fmt.Errorf("zone %s is stored already: --replace replaces it", name)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, 0, err
		}
	}
	return t.Zones[name], revision, nil
}

func applyZone(ctx context.Context, s *store.Store, name string, read *topology.ZoneFile, base int64, message string, out io.Writer) error {
	put := map[topology.Ref]topology.Object{{Kind: topology.Zones, Name: name}: read.Zone}
	err := applyChange(ctx, s, store.Change{Put: put, Base: base, Author: author(), Message: message}, out)
	if errors.Is(err, store.ErrTooLarge) {
		return fmt.Errorf("%w: zone %s is too large for one object, which is stored with its history; "+
			"make zones of its own of parts of it (NS records in the file delegate them)", err, name)
	}
	if invalid := (*topology.InvalidError)(nil); errors.As(err, &invalid) {
		return fmt.Errorf("nothing was changed: %w", read.Locate(err))
	}
	return err
}

// printImport prints what would be stored, and tells beside it what was done.
func printImport(command *cobra.Command, file *zoneText, base *topology.Zone) error {
	read, err := file.parse(base)
	if err != nil {
		return err
	}
	reportImport(command.ErrOrStderr(), file.zone, read)
	document := &topology.Topology{Zones: map[string]*topology.Zone{file.zone: read.Zone}}
	_, err = command.OutOrStdout().Write(document.Marshal())
	return err
}

// reportImport tells what became of the records of a file.
func reportImport(out io.Writer, name string, read *topology.ZoneFile) {
	var types []string
	for _, rrtype := range slices.Sorted(maps.Keys(read.Kept)) {
		types = append(types, fmt.Sprintf("%d %s", read.Kept[rrtype], rrtype))
	}
	fmt.Fprintf(out, "zone %s: %d name servers, %d of their addresses from the file\n", name, len(read.Zone.Nameservers), read.Addresses)
	if len(types) > 0 {
		fmt.Fprintf(out, "kept: %s\n", strings.Join(types, ", "))
	}
	if read.Signer > 0 {
		fmt.Fprintf(out, "left out: %d records of the former signer (RRSIG, NSEC, DNSKEY and the like): the server makes its own\n", read.Signer)
	}
	if read.Twice > 0 {
		fmt.Fprintf(out, "left out: %d records that stand in the file already\n", read.Twice)
	}
	for _, note := range read.Notes {
		fmt.Fprintf(out, "note: %s\n", note)
	}
}

func newZoneExport(flags *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME",
		Short: "Print a stored zone as a zone file, without what the server makes of services",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				t, _, _, err := s.Stored(ctx)
				if err != nil {
					return err
				}
				name := (&zoneSource{zone: args[0]}).name()
				z := t.Zones[name]
				if z == nil {
					return fmt.Errorf("there is no zone %s, or it cannot be read; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(t.Zones)), ", "))
				}
				_, err = command.OutOrStdout().Write(z.ZoneFile(name))
				return err
			})
		},
	}
}

func newZoneCheck() *cobra.Command {
	var source zoneSource
	command := &cobra.Command{
		Use:   "check FILE --zone NAME",
		Short: "Check a zone file as import does, without a store",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			file, err := source.open(args[0], command.InOrStdin())
			if err != nil {
				return err
			}
			read, err := file.parse(nil)
			if err != nil {
				return err
			}
			reportImport(command.OutOrStdout(), file.zone, read)
			fmt.Fprintln(command.OutOrStdout(), "valid")
			return nil
		},
	}
	source.register(command)
	return command
}

// applyChange carries out a change in the store, and tells what it is.
func applyChange(ctx context.Context, s *store.Store, change store.Change, out io.Writer) error {
	planned, err := s.Plan(ctx, change)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	for _, c := range planned.Changes {
		fmt.Fprintf(out, "%s %s\n", verbs[c.Kind], c.Object)
	}
	if len(planned.Changes) == 0 {
		fmt.Fprintln(out, "nothing to change")
		return nil
	}
	revision, err := s.Apply(ctx, change)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	fmt.Fprintf(out, "applied at revision %d\n", revision)
	return nil
}
