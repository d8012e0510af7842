package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// Planned is what an edit would do.
type Planned struct {
	Revision int64                 // at which the store was read
	Before   *topology.Topology    // as it is stored; objects that cannot be read are left out
	Faults   []topology.Fault      // of Before
	After    *topology.Topology    // valid
	Changes  []topology.ObjectDiff // what differs; empty when there is nothing to do
	Reverted []*Entry              // edits that are taken back, the oldest first; see Change.RevertInvalid

	action Action
	stored *values
	values map[string]*string // what is to be put by KIND/NAME; nil is to be deleted
}

// Plan returns what Apply would do now, without doing it. The errors are those of Apply.
func (s *Store) Plan(ctx context.Context, change Change) (*Planned, error) {
	p, assembler, err := s.planOn(ctx, change.Base, Applied)
	if err != nil {
		return nil, err
	}
	if change.RevertInvalid && len(p.Faults) > 0 {
		if err := s.planRevert(ctx, p); err != nil {
			return nil, err
		}
	}
	for r, object := range change.Put {
		text := string(topology.MarshalValue(object))
		p.values[r.String()] = &text
	}
	for _, r := range change.Delete {
		value, planned := p.values[r.String()]
		if _, stored := p.stored.texts[r.String()]; (!planned && !stored) || (planned && value == nil) {
			return nil, fmt.Errorf("%v: %w", r, ErrNotFound)
		}
		p.values[r.String()] = nil
	}
	return p, s.finish(ctx, p, assembler)
}

// PlanRollback returns what Rollback would do now, without doing it. The errors are those of Rollback.
func (s *Store) PlanRollback(ctx context.Context, revision, base int64) (*Planned, error) {
	past, err := s.At(ctx, revision)
	if err != nil {
		return nil, err
	}
	if len(past.Doubts) > 0 {
		return nil, fmt.Errorf("revision %d: %w: %s; apply a document instead, such as what is left of it", revision, ErrUncertain, strings.Join(past.Doubts, "; "))
	}
	if len(past.Faults) > 0 {
		return nil, fmt.Errorf("revision %d was not valid itself: %w", revision, &topology.InvalidError{Faults: past.Faults})
	}
	p, assembler, err := s.planOn(ctx, base, RolledBack)
	if err != nil {
		return nil, err
	}
	p.restore(past.Values)
	return p, s.finish(ctx, p, assembler)
}

// planOn begins a plan on what is stored now, if nobody has edited since the base.
func (s *Store) planOn(ctx context.Context, base int64, action Action) (*Planned, *topology.Assembler, error) {
	stored, err := s.values(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	if _, restoring := stored.texts[restoringMarker]; restoring {
		return nil, nil, ErrRestoring
	}
	if base != 0 {
		if err := s.conflict(ctx, stored, base); err != nil {
			return nil, nil, err
		}
	}
	p := &Planned{Revision: stored.revision, stored: stored, action: action, values: map[string]*string{}}
	assembler := assemble(stored.texts)
	p.Before, p.Faults = assembler.Stored()
	return p, assembler, nil
}

// restore plans to make all values what they were.
func (p *Planned) restore(texts map[string]string) {
	for name := range p.stored.texts {
		if _, ok := texts[name]; !ok {
			p.values[name] = nil
		}
	}
	for name, text := range texts {
		p.values[name] = &text
	}
}

// finish leaves out what is no change and validates the result.
func (s *Store) finish(ctx context.Context, p *Planned, assembler *topology.Assembler) error {
	before, after := map[string]string{}, map[string]string{}
	for name, value := range p.values {
		stored, is := p.stored.texts[name]
		switch {
		case value == nil && !is, value != nil && is && *value == stored:
			delete(p.values, name)
			continue
		case value == nil:
			assembler.Delete("topology/" + name)
		default:
			assembler.Put("topology/"+name, []byte(*value))
			after[name] = *value
		}
		if is {
			before[name] = stored
		}
	}
	var faults []topology.Fault
	if p.After, faults = assembler.Stored(); len(faults) > 0 {
		return s.refusal(ctx, p, faults)
	}
	p.Changes = changes(before, after, p.Before.Object, p.After.Object)
	return s.checkSchemas(ctx, p)
}

// refusal tells why the result would be invalid, and who made it so when it was before.
func (s *Store) refusal(ctx context.Context, p *Planned, faults []topology.Fault) error {
	invalid := &topology.InvalidError{Faults: faults}
	old := map[string]bool{}
	for _, f := range p.Faults {
		old[f.Path+f.Message] = true
	}
	if !slices.ContainsFunc(faults, func(f topology.Fault) bool { return old[f.Path+f.Message] }) || len(p.Reverted) > 0 {
		return invalid
	}
	d, err := s.diagnose(ctx, p.stored, p.Faults)
	if err != nil || len(d.Culprits) == 0 {
		return fmt.Errorf("the stored topology is invalid, too, which \"isochrone topology doctor\" explains: %w", invalid)
	}
	lines := make([]string, len(d.Culprits))
	for i, e := range d.Culprits {
		lines[i] = e.String()
	}
	return fmt.Errorf("%w\nthe stored topology is invalid since an edit before this one:\n  %s\n--revert-invalid takes that back, to revision %d, in the same transaction",
		invalid, strings.Join(lines, "\n  "), d.LastGood)
}

// String tells in a line who changed what, when and why.
func (e *Entry) String() string {
	objects := e.Objects()
	if more := len(objects) - 5; more > 0 {
		objects = append(objects[:5], fmt.Sprintf("%d more", more))
	}
	text := fmt.Sprintf("revision %d, %s: %s changed %s", e.Revision, e.Time.Format(time.DateTime), e.Author, strings.Join(objects, ", "))
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// ConflictError tells what somebody else changed since the revision that an edit was made on. errors.Is(err, ErrConflict) is true
// for it.
type ConflictError struct {
	Base    int64
	Objects []string // what changed, by KIND/NAME
	Entries []*Entry // by whom and when, as far as it is known, the newest first
}

func (e *ConflictError) Error() string {
	text := fmt.Sprintf("%v: since revision %d somebody changed %s", ErrConflict, e.Base, strings.Join(e.Objects, ", "))
	for _, entry := range e.Entries {
		text += "\n  " + entry.String()
	}
	return text
}

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// conflict returns an error if somebody has edited since a revision.
func (s *Store) conflict(ctx context.Context, stored *values, base int64) error {
	if base > stored.revision {
		return fmt.Errorf("%w: revision %d is to come yet, the store is at %d: it was restored from a backup, or is another one", ErrConflict, base, stored.revision)
	}
	changed := map[string]bool{}
	for name, revision := range stored.modified {
		if revision > base {
			changed[name] = true
		}
	}
	gone, err := s.goneSince(ctx, stored, base)
	if err != nil {
		return err
	}
	for _, name := range gone {
		changed[name] = true
	}
	entries, _, err := s.since(ctx, base, pageOfHistory)
	if err != nil {
		return err
	}
	conflict := &ConflictError{Base: base}
	for _, e := range entries {
		if len(e.Objects()) == 0 {
			continue
		}
		for _, name := range e.Objects() {
			changed[name] = true
		}
		conflict.Entries = append(conflict.Entries, e)
	}
	if len(changed) == 0 {
		return nil
	}
	conflict.Objects = slices.SortedFunc(maps.Keys(changed), compareObjects)
	return conflict
}

// goneSince names what was stored at a revision and is no more, if etcd still knows it; else the history must.
func (s *Store) goneSince(ctx context.Context, stored *values, base int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"topology/", clientv3.WithPrefix(), clientv3.WithRev(base), clientv3.WithKeysOnly())
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	var gone []string
	for _, kv := range response.Kvs {
		name := strings.TrimPrefix(string(kv.Key), s.root+"topology/")
		if _, ok := stored.texts[name]; !ok {
			gone = append(gone, name)
		}
	}
	return gone, nil
}

// firstSchema is what every node knows.
const firstSchema = 1

// checkSchemas refuses objects that a live node could not read: it would keep its last good topology, and no later edit would reach
// it.
func (s *Store) checkSchemas(ctx context.Context, p *Planned) error {
	newest := map[string]int{}
	for name, value := range p.values {
		var schema struct {
			Schema int `yaml:"schema"`
		}
		if value == nil {
			continue
		}
		if err := yaml.Unmarshal([]byte(*value), &schema); err == nil && schema.Schema > firstSchema {
			newest[name] = schema.Schema
		}
	}
	if len(newest) == 0 {
		return nil
	}
	node, known, err := s.oldestNode(ctx)
	if err != nil || node == "" {
		return err
	}
	var faults []topology.Fault
	for _, name := range slices.SortedFunc(maps.Keys(newest), compareObjects) {
		if newest[name] > known {
			faults = append(faults, topology.Fault{
				Path:    strings.Replace(name, "/", ".", 1) + ".schema",
				Message: fmt.Sprintf("%d is newer than node %s knows (%d): upgrade it first", newest[name], node, known),
			})
		}
	}
	if len(faults) > 0 {
		return &topology.InvalidError{Faults: faults}
	}
	return nil
}

// oldestNode returns the live node that knows the oldest schema, none if none is alive. Records of nodes that cannot be read are
// disregarded: they must not stand in the way of edits.
func (s *Store) oldestNode(ctx context.Context) (name string, known int, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"nodes/", clientv3.WithPrefix())
	if err != nil {
		return "", 0, fmt.Errorf("read the store: %w", err)
	}
	for _, kv := range response.Kvs {
		var node struct {
			Name  string `yaml:"name"`
			Known int    `yaml:"schema_known"`
		}
		if err := yaml.Unmarshal(kv.Value, &node); err != nil || node.Known < 1 {
			continue
		}
		if name == "" || node.Known < known {
			if name, known = node.Name, node.Known; name == "" {
				name = strings.TrimPrefix(string(kv.Key), s.root+"nodes/")
			}
		}
	}
	return name, known, nil
}
