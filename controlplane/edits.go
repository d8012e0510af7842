package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// Topology returns the topology as it is stored, which may not be in force.
func (s *Service) Topology(ctx context.Context) (*Stored, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	t, faults, revision, err := store.Stored(ctx)
	if err != nil {
		return nil, err
	}
	return &Stored{Revision: revision, Topology: t, Faults: some(faults), Warnings: some(t.Warnings())}, nil
}

// tag is the entity tag of a whole topology: of what it says, since the store's revision goes on for other reasons.
func (s *Stored) tag() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%v\n%v\n", s.Faults, s.Warnings)
	sum.Write(s.Topology.Marshal())
	return `"` + hex.EncodeToString(sum.Sum(nil)[:16]) + `"`
}

// Object returns one object as it is stored. The error is ErrNotFound if there is none.
func (s *Service) Object(ctx context.Context, r topology.Ref) (*StoredObject, error) {
	store, err := s.store()
	if err != nil {
		return nil, err
	}
	if r, err = ref(string(r.Kind), r.Name); err != nil {
		return nil, err
	}
	text, changed, _, err := store.StoredObject(ctx, r)
	if err != nil {
		return nil, err
	}
	stored := &StoredObject{Revision: changed, Text: string(text)}
	if o, faults := topology.ParseObject(r, text); len(faults) == 0 {
		stored.Value = o
	}
	return stored, nil
}

// Apply carries out an edit, or tells what it would do. The errors are ErrInvalid with all faults, ErrConflict, ErrNotFound for a
// deletion of nothing, and ErrTooLarge.
func (s *Service) Apply(ctx context.Context, request ApplyRequest) (*Applied, error) {
	change, err := changeOf(request)
	if err != nil {
		return nil, err
	}
	return s.apply(ctx, change, request)
}

// changeOf reads an edit: its objects, and what it deletes by name.
func changeOf(request ApplyRequest) (*store.Change, error) {
	change := &store.Change{Put: map[topology.Ref]topology.Object{}, Base: request.Base, Message: request.Message}
	if request.Base < 0 {
		return nil, fmt.Errorf("%w: base %d is no revision", ErrInvalid, request.Base)
	}
	if request.Document != "" {
		document, err := topology.Parse([]byte(request.Document))
		if err != nil {
			return nil, refused(err)
		}
		for _, r := range document.Refs() {
			change.Put[r] = document.Object(r)
		}
	} else if request.Replace {
		return nil, fmt.Errorf("%w: replace needs a document: an empty one would delete everything", ErrInvalid)
	}
	for _, name := range request.Delete {
		r, err := topology.ParseRef(name)
		if err != nil {
			return nil, fmt.Errorf("%w: delete: %w", ErrInvalid, err)
		}
		if change.Put[r] != nil {
			return nil, fmt.Errorf("%w: %v is in the document and is to be deleted", ErrInvalid, r)
		}
		change.Delete = append(change.Delete, r)
	}
	return change, nil
}

// apply leaves out of a change what is stored already, and carries the rest out.
func (s *Service) apply(ctx context.Context, change *store.Change, request ApplyRequest) (*Applied, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	if request.Replace {
		stored, err := st.At(ctx, 0)
		if err != nil {
			return nil, err
		}
		for name := range stored.Values {
			if r, err := topology.ParseRef(name); err == nil && change.Put[r] == nil {
				change.Delete = append(change.Delete, r)
			}
		}
	}
	change.RevertInvalid, change.Author = request.RevertInvalid, author(ctx)
	planned, err := st.Plan(ctx, *change)
	if err != nil {
		return nil, refused(err)
	}
	return s.carryOut(ctx, planned, request.DryRun, func() (int64, error) { return st.Apply(ctx, *change) })
}

// carryOut tells what a plan is, with its effect when it is not to be done, and otherwise does it.
func (s *Service) carryOut(ctx context.Context, p *store.Planned, dryRun bool, do func() (int64, error)) (*Applied, error) {
	applied := &Applied{Changes: changesOf(p.Changes), Effect: []Effect{}, Warnings: some(p.After.Warnings())}
	var err error
	switch {
	case dryRun:
		applied.Effect, err = s.effects(p.After)
	case len(p.Changes) > 0:
		if applied.Revision, err = do(); err == nil {
			s.settle(ctx, applied.Revision)
		}
	default:
		applied.Revision = p.Revision
	}
	if err != nil {
		return nil, refused(err)
	}
	return applied, nil
}

// changesOf tells changes in the form of the API.
func changesOf(diffs []topology.ObjectDiff) []ObjectChange {
	changes := []ObjectChange{}
	for _, d := range diffs {
		change := ObjectChange{Object: d.Object, Kind: d.Kind}
		for _, f := range d.Fields {
			change.Fields = append(change.Fields, FieldChange(f))
		}
		changes = append(changes, change)
	}
	return changes
}

// putObject puts one object, if it is still the one that the edit was made on.
func (s *Service) putObject(ctx context.Context, p putObjectParams) (*Applied, error) {
	r, err := ref(p.Kind, p.Name)
	if err != nil {
		return nil, err
	}
	o, faults := topology.ParseObject(r, []byte(p.Text))
	if len(faults) > 0 {
		return nil, refused(&topology.InvalidError{Faults: faults})
	}
	return s.editObject(ctx, r, p.Match, p.NoMatch, store.Change{Put: map[topology.Ref]topology.Object{r: o}})
}

// deleteObject deletes one object, if it is still the one that the deletion was decided on.
func (s *Service) deleteObject(ctx context.Context, p deleteObjectParams) (*Applied, error) {
	r, err := ref(p.Kind, p.Name)
	if err != nil {
		return nil, err
	}
	return s.editObject(ctx, r, p.Match, "", store.Change{Delete: []topology.Ref{r}})
}

// maxEditAttempts bounds how often an edit of one object is tried again because others were edited meanwhile.
const maxEditAttempts = 5

// editObject carries out an edit of one object on what it was when the preconditions of the request were checked (RFC 9110 section 13).
func (s *Service) editObject(ctx context.Context, r topology.Ref, match, noMatch string, change store.Change) (*Applied, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		_, changed, read, err := st.StoredObject(ctx, r)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err := precondition(r, changed, match, noMatch); err != nil {
			return nil, err
		}
		once := change
		if match != "" || noMatch != "" {
			once.Base = read
		}
		applied, err := s.apply(ctx, &once, ApplyRequest{})
		if errors.Is(err, ErrConflict) && attempt < maxEditAttempts {
			continue
		}
		return applied, err
	}
}

// precondition holds a request's conditions against the revision at which an object was last changed, 0 for one that is not there.
func precondition(r topology.Ref, changed int64, match, noMatch string) error {
	is := fmt.Sprintf(`"%d"`, changed)
	holds := func(field string) bool {
		for _, tag := range tagsOf(field) {
			if changed != 0 && (tag == "*" || tag == is) {
				return true
			}
		}
		return false
	}
	switch {
	case match != "" && !holds(match):
		now := "is not there any more"
		if changed != 0 {
			now = "has the entity tag " + is
		}
		return &conflict{fmt.Errorf("%v %w: it %s", r, ErrPrecondition, now), []string{r.String()}}
	case noMatch != "" && holds(noMatch):
		return &conflict{fmt.Errorf("%v %w: it has the entity tag %s", r, ErrPrecondition, is), []string{r.String()}}
	}
	return nil
}

// conflict is an ErrConflict that names what somebody else has changed.
type conflict struct {
	error
	changed []string
}

func (c *conflict) Unwrap() []error { return []error{c.error, ErrConflict} }

// extensions are what the problem document of an error has besides its detail.
func extensions(err error) map[string]any {
	extra := map[string]any{}
	if faults := (*topology.InvalidError)(nil); errors.As(err, &faults) {
		extra["faults"] = faults.Faults
	}
	if c := (*conflict)(nil); errors.As(err, &c) {
		extra["changed"] = c.changed
	} else if c := (*store.ConflictError)(nil); errors.As(err, &c) {
		extra["changed"] = c.Objects
	}
	return extra
}
