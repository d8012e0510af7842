package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/topology"
)

// Diagnosis says whether the stored topology is valid, and which edits made it invalid.
type Diagnosis struct {
	Revision int64
	Topology *topology.Topology // as it is stored; objects that cannot be read are left out
	Faults   []topology.Fault   // empty when it is valid
	Ignored  []topology.Fault   // overrides, keys and others that have no effect
	LastGood int64              // the newest revision with a valid topology; 0 when the history has none
	Culprits []*Entry           // the edits since, the oldest first
	Notes    []string           // what else explains it, each a sentence

	good map[string]string // the values at LastGood
}

// maxCulprits bounds how far back a valid topology is looked for.
const maxCulprits = 10_000

// Doctor says what is wrong with the stored topology and which edits did it.
func (s *Store) Doctor(ctx context.Context) (*Diagnosis, error) {
	all := topology.NewAssembler(nil, 0)
	if _, err := s.assemble(ctx, all, nil); err != nil {
		return nil, err
	}
	stored, err := s.values(ctx, 0)
	if err != nil {
		return nil, err
	}
	x, faults := assemble(stored.texts).Stored()
	d := &Diagnosis{Revision: stored.revision, LastGood: stored.revision}
	if len(faults) > 0 {
		if d, err = s.diagnose(ctx, stored, faults); err != nil {
			return nil, err
		}
	}
	if restoring, err := s.exists(ctx, inProgressKey); err != nil {
		return nil, err
	} else if restoring && len(d.Notes) == 0 {
		d.Notes = append(d.Notes, ErrRestoring.Error())
	}
	d.Topology, d.Ignored = x, all.Snapshot(stored.revision).Ignored
	return d, nil
}

// diagnose goes back from an invalid topology, edit by edit, until it is valid.
func (s *Store) diagnose(ctx context.Context, stored *values, faults []topology.Fault) (*Diagnosis, error) {
	d := &Diagnosis{Revision: stored.revision, Faults: faults}
	if _, restoring := stored.texts[restoringMarker]; restoring {
		d.Notes = append(d.Notes, ErrRestoring.Error()+"; until then the last good topology stays in force on each node")
		return d, nil
	}
	edits, err := s.unrecorded(ctx, stored)
	if err != nil {
		return nil, err
	}
	texts, assembler := maps.Clone(stored.texts), assemble(stored.texts)
	back := func(e *Entry, check bool) bool { // reports whether it was valid before, if that is to be checked
		undoEntry(texts, e)
		for _, name := range e.Objects() {
			if text, ok := texts[name]; ok {
				assembler.Put("topology/"+name, []byte(text))
			} else {
				assembler.Delete("topology/" + name)
			}
		}
		d.Culprits = append(d.Culprits, e)
		if !check {
			return false
		}
		_, faults := assembler.Stored()
		return len(faults) == 0
	}
	seen := map[int64]bool{}
	for before := stored.revision + 1; len(d.Culprits) < maxCulprits; {
		page, err := s.History(ctx, before, pageOfHistory)
		if err != nil {
			return nil, err
		}
		last := len(page) < pageOfHistory
		if !last {
			before = page[len(page)-1].Revision
		}
		merged := merge(&edits, page, last)
		for i, e := range merged {
			if seen[e.Revision] || len(e.Objects()) == 0 {
				continue
			}
			seen[e.Revision] = true
			if len(e.Omitted) > 0 {
				d.Notes = append(d.Notes, fmt.Sprintf("the history does not have what was before revision %d: %s were too large", e.Revision, strings.Join(e.Omitted, ", ")))
				return d, nil
			}
			wasInvalid := i+1 < len(merged) && merged[i+1].Invalid // as who recorded the edit before has found
			if back(e, !wasInvalid) {
				d.LastGood, d.good = e.Revision-1, texts
				slices.Reverse(d.Culprits)
				return d, nil
			}
		}
		if last {
			break
		}
	}
	d.Culprits = nil
	d.Notes = append(d.Notes, "no valid topology was found in the history: mend the faults, or restore a backup")
	return d, nil
}

// merge puts the unrecorded edits that are newer than the end of a page between its entries, and takes them off their list.
func merge(edits *[]*Entry, page []*Entry, last bool) []*Entry {
	n := len(*edits)
	if !last {
		if n = slices.IndexFunc(*edits, func(e *Entry) bool { return e.Revision < page[len(page)-1].Revision }); n < 0 {
			n = len(*edits)
		}
	}
	merged := append(slices.Clone(page), (*edits)[:n]...)
	*edits = (*edits)[n:]
	slices.SortStableFunc(merged, func(a, b *Entry) int { return int(b.Revision - a.Revision) })
	return merged
}

// ErrNoneGood is returned when edits are to be taken back, and there is no valid topology to go back to.
var ErrNoneGood = errors.New("the history has no valid topology")

// planRevert plans to take back the edits since the last good topology.
func (s *Store) planRevert(ctx context.Context, p *Planned) error {
	d, err := s.diagnose(ctx, p.stored, p.Faults)
	if err != nil {
		return err
	}
	if d.good == nil {
		return fmt.Errorf("take back what made the stored topology invalid: %w", ErrNoneGood)
	}
	p.action, p.Reverted = Reverted, d.Culprits
	p.restore(d.good)
	return nil
}
