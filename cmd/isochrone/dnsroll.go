package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// rollFlags are those of "roll".
type rollFlags struct {
	keyFlags
	next, dsSeen, force, prepare bool
	key                          uint16
	dsTTL                        time.Duration
}

func newRollCommand() *cobra.Command {
	var flags rollFlags
	command := &cobra.Command{
		Use:   "roll ZONE [zsk|ksk]",
		Short: "Replace a key of a signed zone, step by step",
		Long: `Replaces the zone-signing key or the key-signing key of a zone by a new one. With zsk or ksk it
makes the new key and begins; --next takes the next step; with the zone alone it tells where the
roll stands and what comes next. A step that comes too early for caches is refused. A KSK is in
use at once: with several DNS nodes, --prepare it, copy it to all, and begin with --key.`,
		Example: `  isochrone dns roll example.net zsk
  isochrone dns roll example.net ksk --prepare
  isochrone dns roll example.net --next`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(command *cobra.Command, args []string) error {
			switch begins := len(args) == 2; {
			case begins && flags.next:
				return errors.New("--next goes on with a roll, and zsk or ksk begins one: want either")
			case begins && args[1] != string(topology.ZSK) && args[1] != string(topology.KSK):
				return fmt.Errorf("%q is not a role: want zsk or ksk", args[1])
			case !flags.next && (flags.dsSeen || flags.force):
				return errors.New("--ds-seen and --force are about the next step: add --next")
			case !begins && (flags.prepare || flags.key != 0):
				return errors.New("--prepare and --key are about a roll that begins: add zsk or ksk")
			case flags.prepare && flags.key != 0:
				return errors.New("--prepare makes a key, and --key names one: want either")
			case flags.dsTTL < 0:
				return fmt.Errorf("--ds-ttl: %v is negative", flags.dsTTL)
			}
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				return roll(ctx, s, command, args, &flags)
			})
		},
	}
	flags.register(command)
	command.Flags().BoolVar(&flags.next, "next", false, "take the next step")
	command.Flags().BoolVar(&flags.dsSeen, "ds-seen", false, "all servers of the parent have the new key's DS records, and only those")
	command.Flags().BoolVar(&flags.force, "force", false, "take the step before its time: validators may fail until caches have forgotten")
	command.Flags().BoolVar(&flags.prepare, "prepare", false, "only make the key, so that it can be copied to all nodes first")
	command.Flags().Uint16Var(&flags.key, "key", 0, "`tag` of a prepared key to begin with")
	command.Flags().DurationVar(&flags.dsTTL, "ds-ttl", 24*time.Hour, "for how `long` caches keep the DS records, as the parent has them")
	return command
}

func roll(ctx context.Context, s *store.Store, command *cobra.Command, args []string, flags *rollFlags) error {
	zone := zoneName(args[0])
	signing, base, err := signingOf(ctx, s, command, zone)
	if err != nil {
		return err
	}
	if len(args) == 1 && !flags.next {
		fmt.Fprintln(command.OutOrStdout(), dnssec.DescribeRoll(signing))
		return nil
	}
	t, err := zoneOf(ctx, s, zone)
	if err != nil {
		return err
	}
	ttls := dnssec.ZoneTTLs(t, zone, flags.dsTTL)
	if flags.next {
		next, told, err := dnssec.NextStep(signing, time.Now(), ttls, dnssec.StepOptions{DSSeen: flags.dsSeen, Force: flags.force})
		switch {
		case errors.Is(err, dnssec.ErrNotRolling):
			return fmt.Errorf("zone %s: %w: begin one with %s", zone, err, sibling(command, "roll "+zone+" zsk"))
		case errors.Is(err, dnssec.ErrUnconfirmed):
			return fmt.Errorf("zone %s: %w with --ds-seen", zone, err)
		case err != nil:
			return fmt.Errorf("zone %s: %w", zone, err)
		}
		if _, err := s.PutSigning(ctx, zone, next, base, author()); err != nil {
			return err
		}
		tellStep(command, zone, next, told)
		return nil
	}
	return beginRoll(ctx, s, command, zone, topology.KeyRole(args[1]), signing, base, ttls, flags)
}

func beginRoll(ctx context.Context, s *store.Store, command *cobra.Command, zone string, role topology.KeyRole,
	signing *topology.Signing, base int64, ttls dnssec.TTLs, flags *rollFlags) error {
	folder := flags.folder()
	ring, err := dnssec.LoadKeyring(folder)
	if err != nil {
		return err
	}
	var (
		fresh *dnssec.Key
		made  []*dnssec.Key
	)
	if flags.key != 0 {
		if fresh, err = preparedKey(ring, zone, role, flags); err != nil {
			return err
		}
	} else {
		if fresh, err = makeKey(zone, role, activeAlgorithm(signing, role), signing, ring); err != nil {
			return err
		}
		made = append(made, fresh)
	}
	public := fresh.Public(topology.KeyPublished, time.Now())
	next, err := dnssec.StartRoll(signing, role, public, time.Now(), ttls)
	if err != nil {
		return fmt.Errorf("zone %s: %w", zone, err)
	}
	out := command.OutOrStdout()
	if flags.prepare {
		if _, err := fresh.WriteFiles(folder); err != nil {
			return err
		}
		fmt.Fprintf(out, "The new %s %d is made, and not in use.\n", strings.ToUpper(string(role)), public.Tag)
		tellFiles(out, zone, []topology.SigningKey{public}, folder)
		fmt.Fprintln(out, "\nWhen every node has it:", sibling(command, fmt.Sprintf("roll %s %s --key %d", zone, role, public.Tag)))
		return nil
	}
	if err := storeKeys(ctx, s, zone, next, base, folder, made); err != nil {
		return err
	}
	tellStep(command, zone, next, dnssec.DescribeRoll(next))
	if made != nil {
		tellFiles(out, zone, []topology.SigningKey{public}, folder)
		if role == topology.KSK {
			fmt.Fprintf(out, "\nA node without the file goes on with the old keys: take the next step %v after the last node has it, or later.\n",
				ttls.DNSKEY+ttls.Propagation)
		} else {
			fmt.Fprintln(out, "\nTake the next step only when every node has the file.")
		}
	}
	fmt.Fprintln(out, "Then:", sibling(command, "roll "+zone+" --next"))
	return nil
}

// preparedKey returns the key of --key, from the folder of private keys.
func preparedKey(ring *dnssec.Keyring, zone string, role topology.KeyRole, flags *rollFlags) (*dnssec.Key, error) {
	for _, k := range ring.Of(zone) {
		if k.Tag() == flags.key && k.Role() == role {
			return k, nil
		}
	}
	return nil, fmt.Errorf("--key: %s has no %s %d of zone %s", flags.folder(), role, flags.key, zone)
}

// activeAlgorithm returns the algorithm of the active keys of a role.
func activeAlgorithm(signing *topology.Signing, role topology.KeyRole) uint8 {
	for _, k := range signing.Keys {
		if k.Role == role && k.State == topology.KeyActive {
			return uint8(k.Algorithm)
		}
	}
	return dnssec.ECDSAP256SHA256
}

// tellStep says what was done and what the operator has to do.
func tellStep(command *cobra.Command, zone string, signing *topology.Signing, told string) {
	out := command.OutOrStdout()
	fmt.Fprintln(out, told)
	if r := signing.Roll; r != nil && r.Step == topology.RollDSWanted {
		fmt.Fprintln(out, "\nGive the parent zone, in place of what it has:")
		printDS(out, zone, signing)
		fmt.Fprintln(out, "\nThen:", sibling(command, "roll "+zone+" --next --ds-seen"))
	}
}

func newUnsignCommand() *cobra.Command {
	var (
		flags storeFlags
		yes   bool
	)
	command := &cobra.Command{
		Use:   "unsign ZONE --yes",
		Short: "Make a signed zone unsigned",
		Long: `Takes the keys of a zone out of the store, so that DNS nodes answer without signatures. While the
parent has DS records for the zone, or caches have them, validators take such answers for
forged: remove the DS records first, and wait for their time to live. Private keys stay where
they are.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			zone := zoneName(args[0])
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				signing, base, err := signingOf(ctx, s, command, zone)
				if err != nil {
					return err
				}
				if !yes {
					fmt.Fprintln(command.OutOrStdout(), "The parent zone must no longer have, and caches must have forgotten:")
					printDS(command.OutOrStdout(), zone, signing)
					return fmt.Errorf("zone %s stays signed: say --yes when the DS records are gone for longer than their time to live", zone)
				}
				if _, err := s.DeleteSigning(ctx, zone, base, author()); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "Zone %s is unsigned.\n", zone)
				return nil
			})
		},
	}
	flags.register(command)
	command.Flags().BoolVar(&yes, "yes", false, "the DS records are gone from the parent and from caches")
	return command
}
