package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
)

func newTopologyEdit(t *target) *cobra.Command {
	var message string
	command := &cobra.Command{
		Use:   "edit KIND/NAME",
		Short: "Edit one object in $VISUAL or $EDITOR",
		Long: `Opens an object in the editor of $VISUAL, of $EDITOR, or vi, and puts what was saved into the store.
What is wrong with it is told at the top of the file, and the editor opens again. Nothing is lost:
when it cannot be put, the file stays, and its path is told.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: t.complete(""),
		RunE: func(command *cobra.Command, args []string) error {
			r, err := topology.ParseRef(args[0])
			if err != nil {
				return err
			}
			e := &editing{target: t, command: command, ref: r, message: message}
			return e.run()
		},
	}
	command.Flags().StringVarP(&message, "message", "m", "", "why, in a sentence, for the history")
	return command
}

// editing is one object in an editor.
type editing struct {
	target  *target
	command *cobra.Command
	ref     topology.Ref
	message string

	path     string
	original string // as it is stored
	revision int64  // at which it was changed last
	base     int64  // at which the store was read
}

// notePrefix begins the lines at the top of the file that tell what is wrong. They are taken out again.
const notePrefix = "#! "

func (e *editing) run() error {
	if err := e.target.with(e.command, e.read); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "isochrone-*.yaml") // of mode 0600
	if err != nil {
		return err
	}
	e.path = file.Name()
	if err := file.Close(); err != nil {
		return err
	}
	kept, err := e.edit()
	if err != nil && kept {
		return fmt.Errorf("%w\nwhat you wrote is in %s", err, e.path)
	}
	return errors.Join(err, os.Remove(e.path))
}

// read takes what is stored.
func (e *editing) read(ctx context.Context, ops controlplane.Operations) error {
	all, err := ops.Topology(ctx)
	if err != nil {
		return err
	}
	stored, err := ops.Object(ctx, e.ref)
	if err != nil {
		return err
	}
	e.original, e.revision, e.base = stored.Text, stored.Revision, all.Revision
	if stored.Value != nil {
		e.original = string(topology.MarshalValue(stored.Value))
	}
	return nil
}

// edit opens the editor until what was saved could be put. It reports whether there is something to keep when it fails.
func (e *editing) edit() (kept bool, err error) {
	text, notes := e.original, []string(nil)
	for last := ""; ; last = text {
		if err := os.WriteFile(e.path, []byte(withNotes(notes, text)), 0o600); err != nil {
			return true, err
		}
		failed := e.open()
		saved, err := os.ReadFile(e.path)
		if failed != nil {
			return err != nil || withoutNotes(string(saved)) != e.original, fmt.Errorf("the editor failed, and nothing was changed: %w", failed)
		}
		if err != nil {
			return true, err
		}
		text = withoutNotes(string(saved))
		if text == e.original {
			fmt.Fprintln(e.command.OutOrStdout(), "nothing to change")
			return false, nil
		}
		if len(notes) > 0 && text == last {
			return true, errors.New("nothing was changed: " + strings.Join(notes, "\n  "))
		}
		if notes, err = e.put(text); err != nil || len(notes) == 0 {
			return err != nil, err
		}
	}
}

// open runs the editor. It is a command line, such as "code --wait".
func (e *editing) open() error {
	editor := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if value := os.Getenv(name); value != "" {
			editor = value
		}
	}
	command := exec.CommandContext(e.command.Context(), "sh", "-c", editor+` "$1"`, "sh", e.path)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}

// put puts what was saved into the store, or returns what is wrong with it.
func (e *editing) put(text string) (wrong []string, err error) {
	o, faults := topology.ParseObject(e.ref, []byte(text))
	if len(faults) > 0 {
		return notesOf(faults), nil
	}
	document, err := json.Marshal(new(topology.Topology).With(map[topology.Ref]topology.Object{e.ref: o}, nil))
	if err != nil {
		return nil, err
	}
	err = e.target.with(e.command, func(ctx context.Context, ops controlplane.Operations) error {
		applied, err := e.apply(ctx, ops, string(document))
		if err != nil {
			return err
		}
		return e.target.showApplied(e.command, applied, false)
	})
	if invalid := (*topology.InvalidError)(nil); errors.As(err, &invalid) {
		return notesOf(invalid.Faults), nil
	}
	return nil, err
}

// apply puts the object unless somebody has changed it meanwhile; other objects may have been.
func (e *editing) apply(ctx context.Context, ops controlplane.Operations, document string) (*controlplane.Applied, error) {
	for attempt := 0; ; attempt++ {
		applied, err := ops.Apply(ctx, controlplane.ApplyRequest{Document: document, Base: e.base, Message: e.message})
		if !errors.Is(err, controlplane.ErrConflict) || attempt == 5 {
			return applied, err
		}
		all, readErr := ops.Topology(ctx)
		if readErr != nil {
			return nil, errors.Join(err, readErr)
		}
		now, readErr := ops.Object(ctx, e.ref)
		if readErr != nil {
			return nil, errors.Join(err, readErr)
		}
		if now.Revision != e.revision {
			return nil, fmt.Errorf("nothing was changed: %w\n%v is now:\n%s", err, e.ref, now.Text)
		}
		e.base = all.Revision
	}
}

func notesOf(faults []topology.Fault) []string {
	var notes []string
	for _, fault := range faults {
		notes = append(notes, fault.String())
	}
	return notes
}

// withNotes puts what is wrong above a text.
func withNotes(notes []string, text string) string {
	if len(notes) == 0 {
		return text
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%sThis cannot be put into the store (lines are counted without these notes):\n", notePrefix)
	for _, note := range notes {
		fmt.Fprintf(&out, "%s%s\n", notePrefix, note)
	}
	return out.String() + text
}

// withoutNotes takes the notes out again.
func withoutNotes(text string) string {
	for strings.HasPrefix(text, notePrefix) {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}
