package topology

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// Assembler makes snapshots of stored values, as they come and go. Keys are those of the store, without its root:
// topology/KIND/NAME, overrides/NAME, keys/ID, secrets/NAME, dnssec/ZONE and acme/challenges/NAME; others are disregarded. It keeps the last good topology
// while what is stored is invalid; overrides, keys, secrets and challenges are taken or ignored one by one, and of a zone's signing the last
// valid one stays in force. An Assembler is not safe for concurrent use.
type Assembler struct {
	objects    map[Ref]parsed[Object]
	overrides  map[string]parsed[*Override]
	keys       keySetEditor
	badKeys    map[string][]Fault // by id
	secrets    map[string]parsed[*Sealed]
	signing    map[string]parsed[*Signing] // the last valid one, and the faults of what is stored now
	challenges map[string]parsed[*Challenge]
	awaited    map[string]bool // zones of signing that was in force before and has not been read again yet

	touched  bool // a topology value changed since the last snapshot
	last     *Snapshot
	good     digest  // of the last snapshot's topology …
	known    bool    // … once it has been found out
	warnings []Fault // of that topology
}

// parsed is a stored value, or why it is not valid.
type parsed[T any] struct {
	value  T
	faults []Fault
	digest digest // of a valid value; that of an object is found out when it is first wanted
	known  bool   // the digest is
	tooNew bool   // the schema is newer than this program knows
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
		challenges: map[string]parsed[*Challenge]{},
		last:       &Snapshot{Topology: good, Good: revision, Signing: map[string]*Signing{}}, touched: true,
	}
}

// KeepSigning tells a new Assembler what signing was in force before, and since which revision. Of each zone it is taken in
// place of a stored value that is invalid; a zone for which nothing is stored by the next snapshot is no longer signed.
func (a *Assembler) KeepSigning(signing map[string]*Signing, since int64) {
	if signing == nil {
		return
	}
	for zone, s := range signing {
		a.signing[zone] = parsed[*Signing]{value: s, digest: digestOfSigning(zone, s)}
		a.awaited[zone] = true
	}
	a.last.Signing, a.last.Signed = signing, since
}

// Put takes a stored value.
func (a *Assembler) Put(key string, value []byte) {
	switch parts := strings.Split(key, "/"); {
	case parts[0] == "topology" && len(parts) == 3:
		r := Ref{Kind(parts[1]), parts[2]}
		a.objects[r] = parseStored(r, value)
		a.touched = true
	case parts[0] == "topology":
		r := Ref{Kind(strings.Join(parts[1:], "/")), ""}
		a.objects[r] = parsed[Object]{faults: []Fault{{Path: key, Message: "is no key of an object: want topology/KIND/NAME"}}}
		a.touched = true
	case parts[0] == "overrides" && len(parts) == 2:
		o, faults := ParseOverride(parts[1], value)
		a.overrides[parts[1]] = parsed[*Override]{value: o, faults: faults, digest: digestOfOverride(parts[1], o)}
	case parts[0] == "keys" && len(parts) == 2:
		a.putKey(parts[1], value)
	case parts[0] == "secrets" && len(parts) == 2:
		s, faults := ParseSealed(parts[1], value)
		a.secrets[parts[1]] = parsed[*Sealed]{value: s, faults: faults}
	case parts[0] == "dnssec" && len(parts) == 2:
		a.putSigning(parts[1], value)
	case parts[0] == "acme" && len(parts) == 3 && parts[1] == "challenges":
		a.putChallenge(parts[2], value)
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
	case parts[0] == "acme" && len(parts) == 3 && parts[1] == "challenges":
		delete(a.challenges, parts[2])
	}
}

// parseStored reads an object. One that is not valid has no value.
func parseStored(r Ref, text []byte) parsed[Object] {
	o, faults := parseObject(r, text)
	if len(faults) > 0 {
		return parsed[Object]{faults: faults, tooNew: o != nil && IsTooNew(schemaOf(o))}
	}
	return parsed[Object]{value: o}
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
	a.signing[zone] = parsed[*Signing]{value: value, faults: faults, digest: digestOfSigning(zone, value)}
}

// signed fills in the signing of a snapshot: the very map of the last one, unless something has changed. It returns the digest.
func (a *Assembler) signed(next *Snapshot) (sum digest) {
	for zone := range a.awaited {
		delete(a.signing, zone)
	}
	clear(a.awaited)
	signing := make(map[string]*Signing, len(a.signing))
	for zone, s := range a.signing {
		next.Ignored = append(next.Ignored, s.faults...)
		if s.value != nil {
			signing[zone] = s.value
			sum = sum.plus(s.digest)
		}
	}
	if next.Signing, next.Signed = a.last.Signing, a.last.Signed; !maps.Equal(signing, a.last.Signing) {
		next.Signing, next.Signed = signing, next.Revision
	}
	return sum
}

// Stored returns the topology as it is stored, whether it is valid or not, and its faults. Objects that cannot be read are
// left out of it.
func (a *Assembler) Stored() (*Topology, []Fault) {
	t, faults, _ := a.stored()
	return t, faults
}

// stored tells also whether there are objects whose schema is too new. Then it tells nothing of how the others fit together, since it
// cannot know that.
func (a *Assembler) stored() (t *Topology, faults []Fault, tooNew bool) {
	t = &Topology{}
	for r, o := range a.objects {
		if o.value != nil {
			t.put(r, o.value)
		}
		faults = append(faults, o.faults...)
		tooNew = tooNew || o.tooNew
	}
	if !tooNew {
		faults = append(faults, t.Validate()...)
	}
	return t, sortFaults(faults), tooNew
}

// Snapshot returns what is in force at a revision of the store.
func (a *Assembler) Snapshot(revision int64) *Snapshot {
	next := &Snapshot{
		Revision: revision, Topology: a.last.Topology, Good: a.last.Good, Faults: a.last.Faults, TooOld: a.last.TooOld,
		Overrides: make(map[string]*Override, len(a.overrides)), Keys: a.keys.set(), Secrets: make(map[string]*Sealed, len(a.secrets)),
	}
	if a.touched {
		a.renew(next)
		a.touched = false
	}
	next.Warnings = slices.Clone(a.warnings)
	sum := a.good
	for name, o := range a.overrides {
		next.Ignored = append(next.Ignored, o.faults...)
		if o.value != nil {
			next.Overrides[name] = o.value
			next.Warnings = append(next.Warnings, o.value.warnings(name, next.Topology)...)
			sum = sum.plus(o.digest)
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
	a.challenged(next)
	next.Hash, next.SigningHash, next.KeysHash = sum.String(), a.signed(next).String(), next.Keys.Hash()
	sortFaults(next.Ignored)
	sortFaults(next.Warnings)
	a.last = next
	return next
}

// renew puts the stored topology in force, if it is valid. One that is the same as before, such as one that has been read again after a
// loss of the store, stays the very one, so that nothing is made anew of it.
func (a *Assembler) renew(next *Snapshot) {
	t, faults, tooNew := a.stored()
	next.Faults, next.TooOld = faults, tooNew
	if !a.known {
		a.good, a.known, a.warnings = a.last.Topology.digest(), true, a.last.Topology.Warnings()
	}
	if len(faults) > 0 {
		return
	}
	if sum := a.digest(); sum != a.good {
		next.Topology, next.Good = t, next.Revision
		a.good, a.warnings = sum, t.Warnings()
	}
}

// digest returns that of the stored objects, which are all valid.
func (a *Assembler) digest() digest {
	var sum digest
	for r, o := range a.objects {
		if !o.known {
			o.digest, o.known = digestOfObject(r, o.value), true
			a.objects[r] = o
		}
		sum = sum.plus(o.digest)
	}
	return sum
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
