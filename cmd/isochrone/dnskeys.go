package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// newDNSKeyCommands returns the commands about the keys of signed zones.
func newDNSKeyCommands() []*cobra.Command {
	return []*cobra.Command{newKeygenCommand(), newKeysCommand(), newDSCommand(), newRollCommand(), newUnsignCommand()}
}

// keyFlags say where the store is, and the private keys.
type keyFlags struct {
	storeFlags
	keys string
}

func (f *keyFlags) register(command *cobra.Command) {
	f.storeFlags.register(command)
	command.Flags().StringVar(&f.keys, "keys", "", "`folder` of private keys (default: dnssec-keys in --dir)")
}

// folder is where the private keys are.
func (f *keyFlags) folder() string {
	if f.keys != "" {
		return f.keys
	}
	return filepath.Join(f.dir, "dnssec-keys")
}

// zoneName reads a zone's name as people write it.
func zoneName(arg string) string { return strings.ToLower(strings.TrimSuffix(arg, ".")) }

// zoneOf returns the stored topology, which must have the zone.
func zoneOf(ctx context.Context, s *store.Store, zone string) (*topology.Topology, error) {
	t, _, _, err := s.Stored(ctx)
	if err != nil {
		return nil, err
	}
	if t.Zones[zone] == nil {
		return nil, fmt.Errorf("the topology has no zone %s; it has %s", zone, strings.Join(slices.Sorted(maps.Keys(t.Zones)), ", "))
	}
	return t, nil
}

// signingOf returns the signing of a zone, which must be signed, and its revision.
func signingOf(ctx context.Context, s *store.Store, command *cobra.Command, zone string) (*topology.Signing, int64, error) {
	signing, revision, err := s.Signing(ctx, zone)
	if errors.Is(err, store.ErrNotFound) {
		if _, err := zoneOf(ctx, s, zone); err != nil {
			return nil, 0, err
		}
		return nil, 0, fmt.Errorf("zone %s is not signed: %s", zone, sibling(command, "keygen "+zone))
	}
	return signing, revision, err
}

// sibling names a command beside another, as it is typed.
func sibling(command *cobra.Command, line string) string {
	if parent := command.Parent(); parent != nil {
		line = parent.CommandPath() + " " + line
	}
	return fmt.Sprintf("%q", line)
}

func newKeygenCommand() *cobra.Command {
	var (
		flags           keyFlags
		role, algorithm string
	)
	command := &cobra.Command{
		Use:   "keygen ZONE",
		Short: "Make the first keys of a zone, and sign it",
		Long: `Makes a key-signing key and a zone-signing key for a zone of the topology, writes the private
keys to files of this machine and the public ones to the store, from where all DNS nodes learn
that the zone is signed. The files have BIND's form.

With --role ksk or zsk it makes the one key, and takes the other from the folder of private
keys: for a zone that was signed elsewhere, and whose KSK the parent knows.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			number, err := dnssec.ParseAlgorithm(algorithm)
			if err != nil {
				return fmt.Errorf("--algorithm: %w", err)
			}
			if !slices.Contains([]string{"ksk", "zsk", "both"}, role) {
				return fmt.Errorf("--role: %q is not a role: want ksk, zsk or both", role)
			}
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				return keygen(ctx, s, command, zoneName(args[0]), role, number, flags.folder())
			})
		},
	}
	flags.register(command)
	command.Flags().StringVar(&role, "role", "both", "`role` of the key to make: ksk, zsk or both")
	command.Flags().StringVar(&algorithm, "algorithm", dnssec.AlgorithmName(dnssec.ECDSAP256SHA256), "`name` of the algorithm: ecdsa (P-256 with SHA-256) or ed25519")
	return command
}

func keygen(ctx context.Context, s *store.Store, command *cobra.Command, zone, role string, algorithm uint8, folder string) error {
	if _, err := zoneOf(ctx, s, zone); err != nil {
		return err
	}
	before, base, err := s.Signing(ctx, zone)
	switch {
	case err == nil && len(before.Keys) > 0:
		return fmt.Errorf("zone %s is signed already: to replace a key, %s", zone, sibling(command, "roll "+zone+" zsk"))
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	ring, err := dnssec.LoadKeyring(folder)
	if err != nil {
		return err
	}
	signing := &topology.Signing{Schema: topology.FirstSchema}
	var made []*dnssec.Key
	for _, r := range []topology.KeyRole{topology.KSK, topology.ZSK} {
		var k *dnssec.Key
		if role == "both" || role == string(r) {
			k, err = makeKey(zone, r, algorithm, signing, ring)
			made = append(made, k)
		} else {
			k, err = onlyKey(ring, zone, r, algorithm, folder)
		}
		if err != nil {
			return err
		}
		signing.Keys = append(signing.Keys, k.Public(topology.KeyActive, time.Now()))
	}
	if err := storeKeys(ctx, s, zone, signing, base, folder, made); err != nil {
		return err
	}
	out := command.OutOrStdout()
	fmt.Fprintf(out, "Zone %s is signed.\n", zone)
	for _, k := range signing.Keys {
		fmt.Fprintf(out, "%s %d, %s\n", strings.ToUpper(string(k.Role)), k.Tag, dnssec.AlgorithmName(algorithm))
	}
	tellFiles(out, zone, signing.Keys, folder)
	fmt.Fprintln(out, "\nWhen all of them answer with signatures, give the parent zone:")
	printDS(out, zone, signing)
	return nil
}

func printDS(out io.Writer, zone string, signing *topology.Signing) {
	for _, ds := range dnssec.DS(zone, signing, 3600) {
		fmt.Fprintf(out, "%s IN DS %d %d %d %s\n", ds.Hdr.Name, ds.KeyTag, ds.Algorithm, ds.DigestType, strings.ToUpper(ds.Digest))
	}
}

func newKeysCommand() *cobra.Command {
	var flags keyFlags
	command := &cobra.Command{
		Use:   "keys [ZONE]",
		Short: "List the keys of signed zones, and key rolls",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				if len(args) == 1 {
					zone := zoneName(args[0])
					signing, _, err := signingOf(ctx, s, command, zone)
					if err != nil {
						return err
					}
					return listKeys(command, map[string]*topology.Signing{zone: signing}, flags.folder())
				}
				snap, err := s.Read(ctx)
				if err != nil {
					return err
				}
				for _, fault := range snap.Ignored {
					if strings.HasPrefix(fault.Path, "dnssec.") {
						fmt.Fprintf(command.ErrOrStderr(), "invalid, and so not in force: %v\n", fault)
					}
				}
				return listKeys(command, snap.Signing, flags.folder())
			})
		},
	}
	flags.register(command)
	return command
}

// listKeys prints a table of keys, and what rolls are in progress.
func listKeys(command *cobra.Command, zones map[string]*topology.Signing, folder string) error {
	ring, err := dnssec.LoadKeyring(folder)
	if err != nil {
		fmt.Fprintln(command.ErrOrStderr(), err)
	}
	out := command.OutOrStdout()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ZONE\tROLE\tTAG\tALGORITHM\tSTATE\tSINCE\tPRIVATE KEY HERE")
	var rolls []string
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		for _, k := range zones[zone].Keys {
			here := "no"
			if err != nil {
				here = "?"
			} else if ring.Key(zone, k.Tag, uint8(k.Algorithm)) != nil {
				here = "yes"
			}
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", zone, k.Role, k.Tag, dnssec.AlgorithmName(uint8(k.Algorithm)), k.State,
				k.Since.UTC().Format(time.RFC3339), here)
		}
		if zones[zone].Roll != nil {
			rolls = append(rolls, fmt.Sprintf("%s: %s", zone, dnssec.DescribeRoll(zones[zone])))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, roll := range rolls {
		fmt.Fprintln(out, roll)
	}
	return nil
}

func newDSCommand() *cobra.Command {
	var flags storeFlags
	command := &cobra.Command{
		Use:   "ds ZONE",
		Short: "Print the DS records that the parent zone should have",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				zone := zoneName(args[0])
				signing, _, err := signingOf(ctx, s, command, zone)
				if err == nil {
					printDS(command.OutOrStdout(), zone, signing)
				}
				return err
			})
		},
	}
	flags.register(command)
	return command
}
