package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/topology"
)

// TestTellsOfFaults has edits that are invalid, in one way, in another one too, and taken back: the log has each fault once, and the end.
func TestTellsOfFaults(t *testing.T) {
	var log bytes.Buffer
	n := &node{log: slog.New(slog.NewTextHandler(&log, nil))}
	snap := func(good int64, faults ...string) *topology.Snapshot {
		s := &topology.Snapshot{Revision: good, Good: good}
		for _, path := range faults {
			s.Faults = append(s.Faults, topology.Fault{Path: path, Message: "is wrong"})
		}
		return s
	}
	var before *topology.Snapshot
	for _, step := range []struct {
		name string
		snap *topology.Snapshot
		want []string
	}{
		{"the first", snap(7), nil},
		{"a fault", snap(7, "pops.a"), []string{"ERROR msg=\"the newest topology is invalid, the last good one stays in force\" good=7 fault=\"pops.a: is wrong\""}},
		{"the same", snap(7, "pops.a"), nil},
		{"another one too", snap(7, "pops.a", "pops.b"), []string{"fault=\"pops.b: is wrong\""}},
		{"taken back", snap(7), []string{"INFO msg=\"the newest topology is valid again, and is the one in force\" good=7"}},
		{"nothing", snap(7), nil},
		{"an edit", snap(8), []string{"INFO msg=\"new topology in force\" revision=8"}},
	} {
		log.Reset()
		n.tell(before, step.snap)
		before = step.snap
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if log.Len() == 0 {
			lines = nil
		}
		ok := len(lines) == len(step.want)
		for i := range min(len(lines), len(step.want)) {
			ok = ok && strings.Contains(lines[i], step.want[i])
		}
		if !ok {
			t.Errorf("%s: got %q, want %q", step.name, lines, step.want)
		}
	}
}
