package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
)

// showApplied prints what an edit did, or would do.
func (t *target) showApplied(command *cobra.Command, applied *controlplane.Applied, dryRun bool) error {
	return t.show(command, applied, func(out io.Writer) error {
		printChanges(out, applied.Changes)
		printEffects(out, applied.Effect)
		for _, warning := range applied.Warnings {
			fmt.Fprintf(command.ErrOrStderr(), "warning: %v\n", warning)
		}
		switch {
		case len(applied.Changes) == 0:
			fmt.Fprintln(out, "nothing to change")
		case dryRun:
			fmt.Fprintln(out, "nothing was changed: this was a dry run")
		default:
			fmt.Fprintf(out, "applied at revision %d\n", applied.Revision)
		}
		return nil
	})
}

// verbs are what kinds of change are called.
var verbs = map[string]string{"added": "add", "changed": "change", "removed": "delete"}

// maxFields is how many fields of an object are printed; the rest is counted.
const maxFields = 12

func printChanges(out io.Writer, changes []controlplane.ObjectChange) {
	for _, change := range changes {
		fmt.Fprintf(out, "%s %s\n", verbs[change.Kind], change.Object)
		for i, f := range change.Fields {
			if i == maxFields {
				fmt.Fprintf(out, "  and %d more\n", len(change.Fields)-i)
				break
			}
			fmt.Fprintf(out, "  %s: %s → %s\n", f.Path, brief(f.From), brief(f.To))
		}
	}
}

// brief shortens a value in JSON.
func brief(value []byte) string {
	const most = 80
	text := string(value)
	if text == "" || text == "null" {
		return "none"
	}
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// printEffects tells what becomes of clients.
func printEffects(out io.Writer, effects []controlplane.Effect) {
	if len(effects) == 0 {
		return
	}
	fmt.Fprintln(out)
	for _, e := range effects {
		if e.Moved == 0 && e.Unserved == 0 && len(e.Overloaded) == 0 {
			fmt.Fprintf(out, "%s %s: no client is answered otherwise\n", e.Service, e.Family)
			continue
		}
		fmt.Fprintf(out, "%s %s: %.1f %% of clients move; RTT median %.0f → %.0f ms, 95 %% below %.0f → %.0f ms\n",
			e.Service, e.Family, 100*e.Moved, e.P50MS[0], e.P50MS[1], e.P95MS[0], e.P95MS[1])
		for i, m := range e.Moves {
			if i == 5 {
				fmt.Fprintf(out, "  and %d more\n", len(e.Moves)-i)
				break
			}
			fmt.Fprintf(out, "  %s → %s: %.1f %%\n", orNobody(m.From), orNobody(m.To), 100*m.Share)
		}
		if e.Unserved > 0 {
			fmt.Fprintf(out, "  without an answer: %.1f %%\n", 100*e.Unserved)
		}
		if len(e.Overloaded) > 0 {
			fmt.Fprintf(out, "  over their capacity: %s\n", strings.Join(e.Overloaded, ", "))
		}
	}
	fmt.Fprintln(out)
}

func orNobody(pop string) string {
	if pop == "" {
		return "no answer"
	}
	return pop
}

// shortList names the first of many.
func shortList(names []string) string { return shortened(names, 10) }

// shortened lists at most so many names, and counts the others.
func shortened(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
