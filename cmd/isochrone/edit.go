package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// storeFlags say where etcd is: --etcd and those beside it, or what "isochrone up" has written into --dir.
type storeFlags struct {
	dir  string
	etcd etcdFlags
}

func (f *storeFlags) register(command *cobra.Command) {
	command.PersistentFlags().StringVar(&f.dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	f.etcd.register(command.PersistentFlags())
}

// with calls work with the store.
func (f *storeFlags) with(ctx context.Context, work func(context.Context, *store.Store) error) error {
	if err := f.etcd.check(); err != nil {
		return err
	}
	client, err := f.etcd.connect(ctx, f.dir)
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return work(ctx, store.New(client, f.etcd.prefix))
}

// author is who edits, for history and audit.
func author() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

func newTopologyCommand() *cobra.Command {
	var flags storeFlags
	command := newGroup("topology", "Read, check and edit the topology",
		newTopologyGet(&flags), newTopologyApply(&flags), newTopologyValidate(), newTopologyRemove(&flags), newTopologySchema())
	flags.register(command)
	return command
}

func newTopologyGet(flags *storeFlags) *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "get [KIND/NAME]",
		Short: "Print the stored topology, or one object of it",
		Example: `  isochrone topology get > world.yaml
  isochrone topology get pops/sin1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				t, faults, _, err := s.Stored(ctx)
				if err != nil {
					return err
				}
				for _, fault := range faults {
					fmt.Fprintf(command.ErrOrStderr(), "invalid, and so not in force: %v\n", fault)
				}
				var value any = t
				text := t.Marshal()
				if len(args) == 1 {
					r, err := topology.ParseRef(args[0])
					if err != nil {
						return err
					}
					o := t.Object(r)
					if o == nil { // unreadable perhaps, and somebody wants to mend it
						text, err := s.StoredText(ctx, r)
						if err == nil && asJSON {
							err = &topology.InvalidError{Faults: faults}
						}
						if err != nil {
							return err
						}
						_, err = command.OutOrStdout().Write(text)
						return err
					}
					value, text = o, topology.MarshalValue(o)
				}
				if asJSON {
					return writeJSON(command.OutOrStdout(), value)
				}
				_, err = command.OutOrStdout().Write(text)
				return err
			})
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

func newTopologyApply(flags *storeFlags) *cobra.Command {
	var (
		file, message string
		base          int64
		replace       bool
	)
	command := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Put the objects of a document into the store, all or none",
		Long: `Puts the objects of a document (YAML or JSON, as "isochrone topology get" prints it) into the
store in one transaction. Objects that the document does not have stay as they are, unless
--replace is given. A topology that would be invalid is refused, with all its faults.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			document, err := readDocument(file, command.InOrStdin())
			if err != nil {
				return err
			}
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				return apply(ctx, s, document, base, message, replace, command.OutOrStdout())
			})
		},
	}
	command.Flags().StringVarP(&file, "file", "f", "", "document `file`; - reads standard input")
	command.Flags().StringVarP(&message, "message", "m", "", "why, in a sentence, for the history")
	command.Flags().Int64Var(&base, "base", 0, "`revision` that the edit was made on: refuse if somebody edited since")
	command.Flags().BoolVar(&replace, "replace", false, "delete the objects that the document does not have")
	_ = command.MarkFlagRequired("file")
	return command
}

// readDocument reads and checks a document, whose faults name the file.
func readDocument(file string, stdin io.Reader) (*topology.Topology, error) {
	var (
		text []byte
		err  error
	)
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, topology.MaxDocumentBytes+1))
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	t, err := topology.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// apply puts what differs from the store, and tells what that is.
func apply(ctx context.Context, s *store.Store, document *topology.Topology, base int64, message string, replace bool, out io.Writer) error {
	stored, _, _, err := s.Stored(ctx)
	if err != nil {
		return err
	}
	change := store.Change{Put: map[topology.Ref]topology.Object{}, Base: base, Author: author(), Message: message}
	for _, r := range document.Refs() {
		o, old := document.Object(r), stored.Object(r)
		switch {
		case old == nil:
			fmt.Fprintf(out, "add %v\n", r)
		case string(topology.MarshalValue(old)) != string(topology.MarshalValue(o)):
			fmt.Fprintf(out, "change %v\n", r)
		default:
			continue
		}
		change.Put[r] = o
	}
	if replace {
		for _, r := range stored.Refs() {
			if document.Object(r) == nil {
				fmt.Fprintf(out, "delete %v\n", r)
				change.Delete = append(change.Delete, r)
			}
		}
	}
	if len(change.Put)+len(change.Delete) == 0 {
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

func newTopologyValidate() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check a whole topology in a file, without a store",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			t, err := readDocument(file, command.InOrStdin())
			if err != nil {
				return err
			}
			if faults := t.Validate(); len(faults) > 0 {
				return fmt.Errorf("%s: %w", file, &topology.InvalidError{Faults: faults})
			}
			fmt.Fprintf(command.OutOrStdout(), "valid: %d zones, %d services, %d PoPs, %d clusters\n",
				len(t.Zones), len(t.Services), len(t.PoPs), len(t.Clusters))
			return nil
		},
	}
	command.Flags().StringVarP(&file, "file", "f", "", "document `file`; - reads standard input")
	_ = command.MarkFlagRequired("file")
	return command
}

func newTopologyRemove(flags *storeFlags) *cobra.Command {
	var message string
	command := &cobra.Command{
		Use:   "rm KIND/NAME...",
		Short: "Delete objects, all or none",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			change := store.Change{Author: author(), Message: message}
			for _, arg := range args {
				r, err := topology.ParseRef(arg)
				if err != nil {
					return err
				}
				change.Delete = append(change.Delete, r)
			}
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				revision, err := s.Apply(ctx, change)
				if err != nil {
					return fmt.Errorf("nothing was deleted: %w", err)
				}
				fmt.Fprintf(command.OutOrStdout(), "deleted at revision %d\n", revision)
				return nil
			})
		},
	}
	command.Flags().StringVarP(&message, "message", "m", "", "why, in a sentence, for the history")
	return command
}

func newDrainCommand() *cobra.Command {
	var (
		flags   storeFlags
		length  time.Duration
		reason  string
		cluster bool
	)
	command := &cobra.Command{
		Use:   "drain POP",
		Short: "Send no new clients to a PoP for a while, or no envelopes to a cluster",
		Long: `Puts an override on top of the topology. It ends by itself, takes effect even while the stored
topology is invalid, and is ended early by "isochrone undrain".`,
		Example: `  isochrone drain sin1 --for 1h --reason "power works"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			now := time.Now().UTC().Truncate(time.Second)
			o := &topology.Override{
				Schema: topology.SchemaVersion, Kind: topology.Drain, PoP: args[0], Reason: reason, Author: author(),
				Created: now, Expires: now.Add(length),
			}
			if cluster {
				o.PoP, o.Cluster = "", args[0]
			}
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				if _, err := s.PutOverride(ctx, drainName(args[0], cluster), o); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "%s is drained until %s\n", args[0], o.Expires.Local().Format(time.DateTime))
				return warnUnknown(ctx, s, o, command.ErrOrStderr())
			})
		},
	}
	flags.register(command)
	command.Flags().DurationVar(&length, "for", time.Hour, "how `long`, such as 90m")
	command.Flags().StringVar(&reason, "reason", "", "why, for everyone who wonders")
	command.Flags().BoolVar(&cluster, "cluster", false, "the name is that of a cluster")
	_ = command.MarkFlagRequired("reason")
	return command
}

func drainName(target string, cluster bool) string {
	if cluster {
		return "drain-cluster-" + target
	}
	return "drain-" + target
}

// warnUnknown tells when an override is about nothing that the stored topology has.
func warnUnknown(ctx context.Context, s *store.Store, o *topology.Override, out io.Writer) error {
	t, _, _, err := s.Stored(ctx)
	if err != nil {
		return err
	}
	switch {
	case o.PoP != "" && t.PoPs[o.PoP] == nil:
		fmt.Fprintf(out, "but the stored topology has no PoP %s; it has %s\n", o.PoP, strings.Join(slices.Sorted(maps.Keys(t.PoPs)), ", "))
	case o.Cluster != "" && t.Clusters[o.Cluster] == nil:
		fmt.Fprintf(out, "but the stored topology has no cluster %s; it has %s\n", o.Cluster, strings.Join(slices.Sorted(maps.Keys(t.Clusters)), ", "))
	}
	return nil
}

func newUndrainCommand() *cobra.Command {
	var (
		flags   storeFlags
		cluster bool
	)
	command := &cobra.Command{
		Use:   "undrain POP",
		Short: "End a drain",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				if _, err := s.DeleteOverride(ctx, drainName(args[0], cluster), author()); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "%s is drained no more\n", args[0])
				return nil
			})
		},
	}
	flags.register(command)
	command.Flags().BoolVar(&cluster, "cluster", false, "the name is that of a cluster")
	return command
}

func newOverridesCommand() *cobra.Command {
	var flags storeFlags
	command := &cobra.Command{
		Use:   "overrides",
		Short: "List overrides, those that have expired too",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				snap, err := s.Read(ctx)
				if err != nil {
					return err
				}
				table, now := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0), time.Now()
				fmt.Fprintln(table, "NAME\tKIND\tTARGET\tENDS\tAUTHOR\tREASON")
				for _, name := range slices.Sorted(maps.Keys(snap.Overrides)) {
					o := snap.Overrides[name]
					ends := "expired"
					if now.Before(o.Expires) {
						ends = "in " + o.Expires.Sub(now).Round(time.Second).String()
					}
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", name, o.Kind, cmp.Or(o.PoP, o.Cluster), ends, o.Author, o.Reason)
				}
				return table.Flush()
			})
		},
	}
	flags.register(command)
	return command
}

func newKeyCommand() *cobra.Command {
	var flags storeFlags
	command := newGroup("key", "Create, list and revoke API keys", newKeyCreate(&flags), newKeyList(&flags), newKeyRevoke(&flags))
	flags.register(command)
	return command
}

func newKeyCreate(flags *storeFlags) *cobra.Command {
	var (
		quota  int64
		note   string
		asJSON bool
	)
	command := &cobra.Command{
		Use:   "create",
		Short: "Make an API key and show it, this once",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			id, text, key, err := topology.NewKey(rand.Reader, time.Now())
			if err != nil {
				return err
			}
			key.QuotaPerMinute, key.Note = quota, note
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				if _, err := s.PutKey(ctx, id, key, author()); err != nil {
					return err
				}
				if asJSON {
					return writeJSON(command.OutOrStdout(), map[string]any{"id": id, "key": text, "quota_per_minute": quota})
				}
				fmt.Fprintln(command.OutOrStdout(), text)
				fmt.Fprintf(command.ErrOrStderr(), "key %s may send %d requests a minute; it is stored as a hash and never shown again\n", id, quota)
				return nil
			})
		},
	}
	command.Flags().Int64Var(&quota, "quota", topology.DefaultQuotaPerMinute, "requests a `minute`, over all PoPs together")
	command.Flags().StringVar(&note, "note", "", "whose it is, for operators")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

func newKeyList(flags *storeFlags) *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "ls",
		Short: "List API keys by their ids",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				snap, err := s.Read(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(command.OutOrStdout()).Encode(maps.Collect(snap.Keys.All()))
				}
				table := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "ID\tQUOTA A MINUTE\tCREATED\tNOTE")
				keys := maps.Collect(snap.Keys.All())
				for _, id := range slices.Sorted(maps.Keys(keys)) {
					k := keys[id]
					quota := fmt.Sprint(k.QuotaPerMinute)
					if k.Probe {
						quota = "probes only"
					}
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", id, quota, k.Created.Local().Format(time.DateTime), k.Note)
				}
				return table.Flush()
			})
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

func newKeyRevoke(flags *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Delete an API key",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.with(command.Context(), func(ctx context.Context, s *store.Store) error {
				if _, err := s.DeleteKey(ctx, args[0], author()); err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "key %s is revoked\n", args[0])
				return nil
			})
		},
	}
}
