package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/statedir"
)

// spoolFlags say which spool a command reads, and what of it.
type spoolFlags struct {
	agent   bool   // that of the agent, not of a PoP that the first argument names
	target  target // for --output
	dir     string
	service string
	id      string
	older   time.Duration
	dead    bool
}

func newSpoolCommand() *cobra.Command {
	f := new(spoolFlags)
	group := newGroup("spool", "Look at what a PoP of this machine has accepted and not delivered, and send dead letters again",
		newSpoolList(f), newSpoolShow(f), newSpoolReplay(f))
	group.Long = `Looks into the spool of a PoP of this machine: envelopes that wait for a cluster, and dead letters,
which a cluster has refused for good. The PoP may run or not: "ls" and "show" read its files and
change nothing, "replay" only renames files of dead letters, which the PoP takes back into its
queue within a second, or when it starts.`
	f.register(group, group.PersistentFlags(), "state `folder` of the PoP")
	return group
}

// newAgentQueueCommands are those of the spool for the queue of an agent.
func newAgentQueueCommands() []*cobra.Command {
	f := &spoolFlags{agent: true}
	list, show, replay := newSpoolList(f), newSpoolShow(f), newSpoolReplay(f)
	list.Short, list.Example = "List what waits in the agent's queue, and dead letters", `  isochrone agent ls --dead --older 1h`
	list.Long = `Lists the payloads that no PoP has accepted yet, and dead letters: those that were refused for good when no
program waited for the answer. The agent may run or not; nothing is changed.`
	show.Short = "Show a payload of the agent's queue, or a dead letter"
	replay.Short, replay.Example = "Post dead letters again", `  isochrone agent replay --all --older 1h`
	replay.Long = `Puts dead letters back into the agent's queue, which posts them as if they had just come, with the
Idempotency-Key that they had: those named, or with --all those that the other flags choose. An agent that
runs takes them within a second, one that does not when it starts. One that is refused again is a dead
letter again.`
	commands := []*cobra.Command{list, show, replay}
	for _, c := range commands {
		c.Use = strings.Replace(c.Use, " POP", "", 1)
		c.ValidArgsFunction = cobra.NoFileCompletions
		f.register(c, c.Flags(), "state `folder` of the agent")
	}
	list.Args, show.Args, replay.Args = cobra.NoArgs, cobra.ExactArgs(1), cobra.ArbitraryArgs
	return commands
}

func (f *spoolFlags) register(command *cobra.Command, flags *pflag.FlagSet, dirUsage string) {
	flags.StringVar(&f.dir, "dir", statedir.Default(), dirUsage)
	flags.StringVarP(&f.target.output, "output", "o", "table", "`form` of what is printed: table, json or yaml")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// registerFilters adds the flags that choose entries.
func (f *spoolFlags) registerFilters(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.service, "service", "", "only those of a service: its host `name`")
	flags.StringVar(&f.id, "id", "", "only those whose request id contains a `text`")
	flags.DurationVar(&f.older, "older", 0, "only those that arrived longer ago than a `duration`, such as 10m")
}

// completePoPs completes the names of PoPs that have a folder.
func (f *spoolFlags) completePoPs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.pops(), cobra.ShellCompDirectiveNoFileComp
}

func (f *spoolFlags) pops() (names []string) {
	found, _ := filepath.Glob(stateDir(f.dir).path("pops", "*", "spool"))
	for _, path := range found {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	return names
}

// folder returns the spool that the arguments name, and the rest of them.
func (f *spoolFlags) folder(args []string) (folder string, rest []string, _ error) {
	if err := f.target.checkOutput(); err != nil {
		return "", nil, err
	}
	if f.agent {
		folder = stateDir(f.dir).path("agent", "spool")
		if _, err := os.Stat(folder); err != nil {
			return "", nil, fmt.Errorf("no agent has a queue in %s: %w", f.dir, err)
		}
		return folder, args, nil
	}
	if pop := args[0]; !slices.Contains(f.pops(), pop) {
		return "", nil, fmt.Errorf("%s has no spool of PoP %q; it has those of: %s", f.dir, pop, strings.Join(f.pops(), ", "))
	}
	return stateDir(f.dir).path("pops", args[0], "spool"), args[1:], nil
}

// entries reads what a spool has and the flags choose.
func (f *spoolFlags) entries(command *cobra.Command, folder string) ([]spool.Entry, error) {
	bar := startProgress(command.ErrOrStderr(), "reading", 0, octets)
	contents, err := spool.Inspect(folder, bar.at)
	bar.end()
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: the spool is its PoP's user's alone", err)
	}
	if err != nil {
		return nil, err
	}
	for _, fault := range contents.Faults {
		fmt.Fprintln(command.ErrOrStderr(), fault)
	}
	chosen := []spool.Entry{}
	for _, e := range contents.Entries {
		if (f.service == "" || e.Service == f.service) && strings.Contains(e.ID, f.id) &&
			(f.older == 0 || time.Since(e.Received) > f.older) && (!f.dead || e.State != spool.EntryPending) {
			chosen = append(chosen, e)
		}
	}
	return chosen, nil
}

func newSpoolList(f *spoolFlags) *cobra.Command {
	limit := 0
	command := &cobra.Command{
		Use: "ls POP", Short: "List what waits in a spool, and dead letters", Args: cobra.ExactArgs(1), ValidArgsFunction: f.completePoPs,
		Example: `  isochrone spool ls sin1 --dead --older 1h`,
		RunE: func(command *cobra.Command, args []string) error {
			folder, _, err := f.folder(args)
			if err != nil {
				return err
			}
			entries, err := f.entries(command, folder)
			if err != nil {
				return err
			}
			more := 0
			if limit > 0 && len(entries) > limit {
				entries, more = entries[:limit], len(entries)-limit
			}
			return f.target.show(command, entries, func(out io.Writer) error { return printEntries(out, entries, more) })
		},
	}
	f.registerFilters(command)
	command.Flags().BoolVar(&f.dead, "dead", false, "only dead letters")
	command.Flags().IntVar(&limit, "limit", 0, "`number` of entries at most; 0 for all")
	return command
}

func printEntries(out io.Writer, entries []spool.Entry, more int) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "nothing")
		return err
	}
	err := columns(out, "ID\tSTATE\tRECEIVED\tSERVICE\tKEY\tOCTETS\tREASON", func(row func(...any)) {
		for _, e := range entries {
			row(e.ID, e.State, e.Received.Local().Format(time.DateTime), e.Service, e.KeyID, e.Bytes, e.Reason)
		}
	})
	if err == nil && more > 0 {
		_, err = fmt.Fprintf(out, "and %d more\n", more)
	}
	return err
}

// shownEntry is an entry with its body.
type shownEntry struct {
	spool.Entry
	Body []byte `json:"body,omitempty"` // base64
}

func newSpoolShow(f *spoolFlags) *cobra.Command {
	body := false
	command := &cobra.Command{
		Use: "show POP ID", Short: "Show an envelope or a dead letter", Args: cobra.ExactArgs(2), ValidArgsFunction: f.completePoPs,
		Long: `Shows what is known of an envelope. With --body its body is printed too: as it is, and nothing else, in
the form of a table; in base64 as JSON and YAML.`,
		RunE: func(command *cobra.Command, args []string) error {
			folder, rest, err := f.folder(args)
			if err != nil {
				return err
			}
			entries, err := f.entries(command, folder)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(entries, func(e spool.Entry) bool { return e.ID == rest[0] })
			if i < 0 {
				taken := "a cluster has acknowledged it"
				if f.agent {
					taken = "a PoP has accepted it"
				}
				return fmt.Errorf("%s has no envelope %q: %s, or it never came here", folder, rest[0], taken)
			}
			shown := shownEntry{Entry: entries[i]}
			if body {
				if shown.Body, err = shown.Entry.Body(folder); err != nil {
					return err
				}
			}
			return f.target.show(command, shown, func(out io.Writer) error {
				if body {
					_, err := out.Write(shown.Body)
					return err
				}
				return printEntry(out, &shown.Entry)
			})
		},
	}
	command.Flags().BoolVar(&body, "body", false, "print the body")
	return command
}

func printEntry(out io.Writer, e *spool.Entry) error {
	return columns(out, "FIELD\tVALUE", func(row func(...any)) {
		row("id", e.ID)
		row("state", e.State)
		if e.Reason != "" {
			row("reason", e.Reason)
			row("buried", e.Buried.Local().Format(time.RFC3339))
		}
		row("received", e.Received.Local().Format(time.RFC3339Nano))
		row("service", e.Service)
		row("key", e.KeyID)
		row("window", e.Window)
		row("content type", e.ContentType)
		row("octets", e.Bytes)
		row("sha256", e.SHA256)
		traceparent, kept, _ := strings.Cut(e.Traceparent, "\n")
		for field := range strings.Lines(kept) { // that an agent sends on
			row("header", strings.TrimSpace(field))
		}
		if traceparent != "" {
			row("traceparent", traceparent)
		}
		row("file", e.File)
	})
}

func newSpoolReplay(f *spoolFlags) *cobra.Command {
	all := false
	command := &cobra.Command{
		Use: "replay POP [ID...]", Short: "Send dead letters again", Args: cobra.MinimumNArgs(1), ValidArgsFunction: f.completePoPs,
		Long: `Puts dead letters back into the queue of their PoP, which delivers them as if they had just come: those
named, or with --all those that the other flags choose. A PoP that runs takes them within a second, one
that does not when it starts. A letter leaves the folder of dead letters only when its envelope is on disk
in the queue. One that a cluster refuses again is a dead letter again.`,
		Example: `  isochrone spool replay sin1 --all --older 1h`,
		RunE: func(command *cobra.Command, args []string) error {
			folder, rest, err := f.folder(args)
			if err != nil {
				return err
			}
			if all == (len(rest) > 0) {
				return errors.New("say which dead letters: their ids, or --all")
			}
			return f.replay(command, folder, rest)
		},
	}
	f.registerFilters(command)
	command.Flags().BoolVar(&all, "all", false, "all that the other flags choose")
	return command
}

// replayed is what "spool replay" says.
type replayed struct {
	Replayed []string `json:"replayed"`
}

func (f *spoolFlags) replay(command *cobra.Command, folder string, ids []string) error {
	f.dead = true
	entries, err := f.entries(command, folder)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(entries, func(e spool.Entry) bool { return e.ID == id }) {
			return fmt.Errorf("%q is no dead letter here", id)
		}
	}
	said := replayed{Replayed: []string{}}
	bar := startProgress(command.ErrOrStderr(), "putting back", 0, counted("dead letters"))
	defer bar.end()
	for i, e := range entries {
		bar.at(int64(i), int64(len(entries)))
		if e.State != spool.EntryDead || len(ids) > 0 && !slices.Contains(ids, e.ID) {
			continue
		}
		err := spool.Replay(folder, filepath.Base(e.File))
		if errors.Is(err, os.ErrNotExist) { // another command was faster
			continue
		}
		if err != nil {
			return fmt.Errorf("after %d dead letters: %w", len(said.Replayed), err)
		}
		said.Replayed = append(said.Replayed, e.ID)
	}
	bar.end()
	return f.target.show(command, said, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%d dead letters go back into the queue\n", len(said.Replayed))
		return err
	})
}
