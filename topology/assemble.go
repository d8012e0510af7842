package topology

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// Assembler makes snapshots of stored values, as they come and go. Keys are those of the store, without its root:
// topology/KIND/NAME, overrides/NAME, keys/ID, secrets/NAME and dnssec/ZONE; others are disregarded. It keeps the last good topology
// while what is stored is invalid; overrides, keys and secrets are taken or ignored one by one, and of a zone's signing the last
// valid one stays in force. An Assembler is not safe for concurrent use.
type Assembler struct {
	objects   map[Ref]parsed[Object]
	overrides map[string]parsed[*Override]
	keys      keySetEditor
	badKeys   map[string][]Fault // by id
	secrets   map[string]parsed[*Sealed]
	signing   map[string]parsed[*Signing] // the last valid one, and the faults of what is stored now
	awaited   map[string]bool             // zones of signing that was in force before and has not been read again yet

	touched bool // a topology value changed since the last snapshot
	last    *Snapshot
}

// parsed is a stored value, or why it is not valid.
type parsed[T any] struct {
	value  T
	faults []Fault
}

// NewAssembler returns an Assembler for which nothing is stored. The last good topology may be given, nil stands for an
// empty one.
func NewAssembler(good *Topology, revision int64) *Assembler {
	if good == nil {
		good = &Topology{}
	}
	return &Assembler{
		objects: map[Ref]parsed[Object]{}, overrides: map[string]parsed[*Override]{}, badKeys: map[string][]Fault{},
		secrets: map[string]parsed[*Sealed]{}, signing: map[string]parsed[*Signing]{}, awaited: map[string]bool{},
		last: &Snapshot{Topology: good, Good: revision, Signing: map[string]*Signing{}}, touched: true,
	}
}

// KeepSigning tells a new Assembler what signing was in force before, and since which revision. Of each zone it is taken in
// place of a stored value that is invalid; a zone for which nothing is stored by the next snapshot is no longer signed.
func (a *Assembler) KeepSigning(signing map[string]*Signing, since int64) {
	if signing == nil {
		return
	}
	for zone, s := range signing {
		a.signing[zone] = parsed[*Signing]{value: s}
		a.awaited[zone] = true
	}
	a.last.Signing, a.last.Signed = signing, since
}

// Put takes a stored value.
func (a *Assembler) Put(key string, value []byte) {
	switch parts := strings.Split(key, "/"); {
	case parts[0] == "topology" && len(parts) == 3:
		r := Ref{Kind(parts[1]), parts[2]}
		o, faults := ParseObject(r, value)
		a.objects[r] = parsed[Object]{o, faults}
		a.touched = true
	case parts[0] == "topology":
		r := Ref{Kind(strings.Join(parts[1:], "/")), ""}
		a.objects[r] = parsed[Object]{faults: []Fault{{Path: key, Message: "is no key of an object: want topology/KIND/NAME"}}}
		a.touched = true
	case parts[0] == "overrides" && len(parts) == 2:
		o, faults := ParseOverride(parts[1], value)
		a.overrides[parts[1]] = parsed[*Override]{o, faults}
	case parts[0] == "keys" && len(parts) == 2:
		a.putKey(parts[1], value)
	case parts[0] == "secrets" && len(parts) == 2:
		s, faults := ParseSealed(parts[1], value)
		a.secrets[parts[1]] = parsed[*Sealed]{s, faults}
	case parts[0] == "dnssec" && len(parts) == 2:
		a.putSigning(parts[1], value)
	}
}

// Delete takes note that a value is no longer stored.
func (a *Assembler) Delete(key string) {
	switch parts := strings.Split(key, "/"); {
	case parts[0] == "topology" && len(parts) == 3:
		delete(a.objects, Ref{Kind(parts[1]), parts[2]})
		a.touched = true
	case parts[0] == "topology":
		delete(a.objects, Ref{Kind(strings.Join(parts[1:], "/")), ""})
		a.touched = true
	case parts[0] == "overrides" && len(parts) == 2:
		delete(a.overrides, parts[1])
	case parts[0] == "keys" && len(parts) == 2:
		a.keys.remove(parts[1])
		delete(a.badKeys, parts[1])
	case parts[0] == "secrets" && len(parts) == 2:
		delete(a.secrets, parts[1])
	case parts[0] == "dnssec" && len(parts) == 2:
		delete(a.signing, parts[1])
	}
}

func (a *Assembler) putKey(id string, value []byte) {
	delete(a.badKeys, id)
	k, faults := ParseKey(id, value)
	if len(faults) > 0 {
		a.badKeys[id] = faults
		a.keys.remove(id)
		return
	}
	a.keys.put(id, k)
}

// putSigning takes a zone's signing. A typo must not make a zone unsigned, which its parent says is signed: to validators it
// would be bogus.
func (a *Assembler) putSigning(zone string, text []byte) {
	delete(a.awaited, zone)
	value, faults := ParseSigning(zone, text)
	if last := a.signing[zone].value; last != nil && (value == nil || bytes.Equal(MarshalValue(value), MarshalValue(last))) {
		value = last
	}
	a.signing[zone] = parsed[*Signing]{value, faults}
}

// signed fills in the signing of a snapshot: the very map of the last one, unless something has changed.
func (a *Assembler) signed(next *Snapshot) {
	for zone := range a.awaited {
		delete(a.signing, zone)
	}
	clear(a.awaited)
	signing := make(map[string]*Signing, len(a.signing))
	for zone, s := range a.signing {
		next.Ignored = append(next.Ignored, s.faults...)
		if s.value != nil {
			signing[zone] = s.value
		}
	}
	if next.Signing, next.Signed = a.last.Signing, a.last.Signed; !maps.Equal(signing, a.last.Signing) {
		next.Signing, next.Signed = signing, next.Revision
	}
}

// Stored returns the topology as it is stored, whether it is valid or not, and its faults. Objects that cannot be read are
// left out of it.
func (a *Assembler) Stored() (*Topology, []Fault) {
	t, faults := &Topology{}, []Fault(nil)
	for r, o := range a.objects {
		if o.value != nil {
			t.put(r, o.value)
		}
		faults = append(faults, o.faults...)
	}
	return t, sortFaults(append(faults, t.Validate()...))
}

// Snapshot returns what is in force at a revision of the store.
func (a *Assembler) Snapshot(revision int64) *Snapshot {
	next := &Snapshot{
		Revision: revision, Topology: a.last.Topology, Good: a.last.Good, Faults: a.last.Faults,
		Overrides: make(map[string]*Override, len(a.overrides)), Keys: a.keys.set(), Secrets: make(map[string]*Sealed, len(a.secrets)),
	}
	if a.touched {
		t, faults := a.Stored()
		if next.Faults = faults; len(faults) == 0 && !t.equals(a.last.Topology) {
			next.Topology, next.Good = t, revision
		}
		a.touched = false
	}
	for name, o := range a.overrides {
		next.Ignored = append(next.Ignored, o.faults...)
		if o.value == nil {
			continue
		}
		next.Overrides[name] = o.value
		if o.value.PoP != "" && next.Topology.PoPs[o.value.PoP] == nil {
			next.Ignored = append(next.Ignored, Fault{Path: "overrides." + name + ".pop", Message: "there is no PoP " + o.value.PoP})
		}
		if o.value.Cluster != "" && next.Topology.Clusters[o.value.Cluster] == nil {
			next.Ignored = append(next.Ignored, Fault{Path: "overrides." + name + ".cluster", Message: "there is no cluster " + o.value.Cluster})
		}
	}
	for _, faults := range a.badKeys {
		next.Ignored = append(next.Ignored, faults...)
	}
	for name, s := range a.secrets {
		next.Ignored = append(next.Ignored, s.faults...)
		if s.value != nil {
			next.Secrets[name] = s.value
		}
	}
	a.signed(next)
	sortFaults(next.Ignored)
	a.last = next
	return next
}

// equals reports whether two topologies have the same objects, so that nothing is to be made anew of one that has been read again, such
// as after a loss of the store.
func (t *Topology) equals(o *Topology) bool {
	refs := t.Refs()
	if !slices.Equal(refs, o.Refs()) {
		return false
	}
	for _, r := range refs {
		if x, y := t.Object(r), o.Object(r); x != y && !bytes.Equal(MarshalValue(x), MarshalValue(y)) {
			return false
		}
	}
	return true
}

func sortFaults(faults []Fault) []Fault {
	slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.String(), b.String()) })
	return faults
}

// With returns a copy of the topology in which objects are put and deleted. The objects themselves are shared.
func (t *Topology) With(put map[Ref]Object, remove []Ref) *Topology {
	changed := &Topology{
		Zones: maps.Clone(t.Zones), Services: maps.Clone(t.Services), PoPs: maps.Clone(t.PoPs), Clusters: maps.Clone(t.Clusters),
	}
	for _, r := range remove {
		switch r.Kind {
		case Zones:
			delete(changed.Zones, r.Name)
		case Services:
			delete(changed.Services, r.Name)
		case PoPs:
			delete(changed.PoPs, r.Name)
		case Clusters:
			delete(changed.Clusters, r.Name)
		}
	}
	for r, o := range put {
		changed.put(r, o)
	}
	return changed
}
