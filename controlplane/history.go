package controlplane

import (
	"context"
	"fmt"
	"strconv"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// History lists the edits of the topology, the newest first.
func (s *Service) History(ctx context.Context, page Page) (*HistoryPage, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	limit, err := page.limit()
	if err != nil {
		return nil, err
	}
	before := int64(0)
	if page.After != "" {
		if before, err = strconv.ParseInt(page.After, 10, 64); err != nil || before < 1 {
			return nil, fmt.Errorf("%w: after %q is no revision", ErrInvalid, page.After)
		}
	}
	entries, err := st.History(ctx, before, limit+1)
	if err != nil {
		return nil, err
	}
	list := &HistoryPage{Entries: []HistoryEntry{}}
	if len(entries) > limit {
		entries = entries[:limit]
		list.Next = strconv.FormatInt(entries[limit-1].Revision, 10) // those before it
	}
	list.Entries = entriesOf(entries)
	return list, nil
}

// entriesOf tells edits in the form of the API.
func entriesOf(entries []*store.Entry) []HistoryEntry {
	list := []HistoryEntry{}
	for _, e := range entries {
		list = append(list, HistoryEntry{
			Revision: e.Revision, Time: e.Time, Author: e.Author, Message: e.Message, Changes: changesOf(e.Changes()), Valid: !e.Invalid,
		})
	}
	return list
}

// At returns the topology as it was at a revision. The error is ErrNotFound if that is not known any more, or yet.
func (s *Service) At(ctx context.Context, revision int64) (*Stored, error) {
	past, err := s.at(ctx, revision)
	if err != nil {
		return nil, err
	}
	return &Stored{
		Revision: past.Revision, Topology: past.Topology, Faults: some(past.Faults), Warnings: some(past.Topology.Warnings()),
	}, nil
}

// at returns the topology of a revision; 0 stands for now.
func (s *Service) at(ctx context.Context, revision int64) (*store.Past, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	if revision < 0 {
		return nil, fmt.Errorf("%w: %d is no revision", ErrInvalid, revision)
	}
	return st.At(ctx, revision)
}

// Diff tells what differs between two revisions.
func (s *Service) Diff(ctx context.Context, request DiffRequest) (*Difference, error) {
	var sides [2]*store.Past
	for i, revision := range []int64{request.From, request.To} {
		past, err := s.at(ctx, revision)
		if err != nil {
			return nil, err
		}
		sides[i] = past
	}
	from, to := sides[0], sides[1]
	d := &Difference{
		From: from.Revision, To: to.Revision, Changes: changesOf(topology.Diff(from.Topology, to.Topology)),
		Text: topology.TextDiff(from.Topology, to.Topology, fmt.Sprintf("@%d", from.Revision), fmt.Sprintf("@%d", to.Revision)),
	}
	var err error
	if request.Effect {
		d.Effect, err = s.effectsBetween(from.Topology, to.Topology)
	}
	return d, err
}

// Rollback makes the topology what it was at a revision, or tells what that would do. The errors are those of Apply, and ErrNotFound for a
// revision that is not known any more.
func (s *Service) Rollback(ctx context.Context, request RollbackRequest) (*Applied, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	if request.Revision < 1 || request.Base < 0 {
		return nil, fmt.Errorf("%w: want a revision to go back to", ErrInvalid)
	}
	planned, err := st.PlanRollback(ctx, request.Revision, request.Base)
	if err != nil {
		return nil, refused(err)
	}
	return s.carryOut(ctx, planned, request.DryRun, func() (int64, error) {
		return st.Rollback(ctx, request.Revision, request.Base, author(ctx), request.Message)
	})
}

// Doctor says what is wrong with the stored topology, and which edits did it.
func (s *Service) Doctor(ctx context.Context) (*Diagnosis, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	d, err := st.Doctor(ctx)
	if err != nil {
		return nil, err
	}
	return &Diagnosis{
		Revision: d.Revision, Valid: len(d.Faults) == 0, Faults: some(d.Faults), Warnings: some(d.Topology.Warnings()), Ignored: some(d.Ignored),
		LastGood: d.LastGood, Culprits: entriesOf(d.Culprits), Notes: d.Notes,
	}, nil
}

// Audit lists all writes, the newest first.
func (s *Service) Audit(ctx context.Context, page Page) (*AuditPage, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	limit, err := page.limit()
	if err != nil {
		return nil, err
	}
	entries, err := st.Audit(ctx, page.After, limit+1)
	if err != nil {
		return nil, err
	}
	list := &AuditPage{Entries: []AuditEntry{}}
	if len(entries) > limit {
		entries = entries[:limit]
		list.Next = entries[limit-1].Key // those after it in the list
	}
	for _, e := range entries {
		list.Entries = append(list.Entries, AuditEntry{e.Revision, e.Time, e.Author, e.Action, some(e.Objects)})
	}
	return list, nil
}
