package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// hashWorld is a store of values, and nodes that read it in different ways.
type hashWorld struct {
	stored   map[string][]byte
	revision int64
	nodes    []*hashNode
}

// hashNode follows a store: each step at once, or some steps late; it may be started again in between.
type hashNode struct {
	assembler *topology.Assembler
	snap      *topology.Snapshot
	pending   []string // keys that have changed
}

func newHashNode() *hashNode {
	return &hashNode{assembler: topology.NewAssembler(nil, 0), snap: topology.NewAssembler(nil, 0).Snapshot(0)}
}

func hashesOf(s *topology.Snapshot) string {
	return "topology " + s.Hash + " signing " + s.SigningHash + " keys " + s.KeysHash
}

// read takes what has changed, in an order that maps have.
func (n *hashNode) read(w *hashWorld) {
	for _, key := range n.pending {
		if value, ok := w.stored[key]; ok {
			n.assembler.Put(key, value)
		} else {
			n.assembler.Delete(key)
		}
	}
	n.pending, n.snap = nil, n.assembler.Snapshot(w.revision)
}

// restart starts with what is on disk, and reads all.
func (n *hashNode) restart(t *testing.T, w *hashWorld, path string) {
	t.Helper()
	if err := Save(path, n.snap); err != nil {
		t.Fatal(err)
	}
	last, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if hashesOf(last) != hashesOf(n.snap) {
		t.Fatalf("loaded %s, saved %s", hashesOf(last), hashesOf(n.snap))
	}
	n.assembler = topology.NewAssembler(last.Topology, last.Good)
	n.assembler.KeepSigning(last.Signing, last.Signed)
	n.pending = slices.Collect(maps.Keys(w.stored))
	n.read(w)
}

// randomValue returns a key with a value, valid or not, or nil for a deletion. Some values are those of others, written otherwise.
func randomValue(r *rand.Rand, world *topology.Topology) (key string, value []byte) {
	switch r.IntN(10) {
	case 0, 1, 2, 3:
		refs := world.Refs()
		ref := refs[r.IntN(len(refs))]
		object := topology.MarshalValue(world.Object(ref))
		switch r.IntN(6) {
		case 0:
			return "topology/" + ref.String(), nil
		case 1:
			return "topology/" + ref.String(), []byte("schema: 1\nstate: asleep\n")
		case 2:
			return "topology/" + ref.String(), append([]byte("# the same, with a comment\n"), object...)
		case 3:
			return "topology/" + ref.String(), bytes.Replace(object, []byte("capacity_rps: 2000"), fmt.Appendf(nil, "capacity_rps: %d", 1000*r.IntN(3)), 1)
		case 4:
			return "topology/" + ref.String(), []byte("schema: 9\nwhat: nobody knows yet\n")
		}
		return "topology/" + ref.String(), object
	case 4, 5, 6:
		key = fmt.Sprintf("overrides/o%d", r.IntN(5))
		switch r.IntN(4) {
		case 0:
			return key, nil
		case 1:
			return key, []byte("kind: drian")
		}
		pop := []string{"sin1", "fra1", "mars1"}[r.IntN(3)]
		return key, fmt.Appendf(nil, `{"schema": 1, "kind": "drain", "pop": %q, "reason": "r", "author": "a", "expires": "20%d0-01-01T00:00:00Z"}`, pop, 1+r.IntN(3))
	case 7, 8:
		key = fmt.Sprintf("keys/k%d", r.IntN(20))
		switch r.IntN(4) {
		case 0:
			return key, nil
		case 1:
			return key, []byte("sha256: x")
		}
		return key, fmt.Appendf(nil, "schema: 1\nsha256: %s\nquota_per_minute: %d\nfrom: []\n", topology.HashKey("k"), r.IntN(3))
	}
	if r.IntN(3) == 0 {
		return "dnssec/a.example", nil
	}
	return "dnssec/a.example", []byte(fmt.Sprintf("schema: 1\nkeys: []\n%s\n", []string{"", "# again", "kes: []"}[r.IntN(3)]))
}

// TestHashesTellWhatIsInForce has nodes read one store in different ways. Those that miss nothing, and are started again now and then, have
// the same hashes at every step; those that miss steps have them as soon as all that is stored is valid, and so has one that is new.
func TestHashesTellWhatIsInForce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 3))
		w := &hashWorld{stored: map[string][]byte{}, nodes: []*hashNode{newHashNode(), newHashNode(), newHashNode(), newHashNode()}}
		every, restarts, late, lateRestarts := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		put := func(key string, value []byte) {
			if w.stored[key] = value; value == nil {
				delete(w.stored, key)
			}
			for _, n := range w.nodes {
				n.pending = append(n.pending, key)
			}
		}
		world, seen := example(), map[string]int{}
		for _, ref := range world.Refs() {
			put("topology/"+ref.String(), topology.MarshalValue(world.Object(ref)))
		}
		for range 100 {
			for range 1 + r.IntN(3) {
				put(randomValue(r, world))
			}
			w.revision++
			for _, n := range []*hashNode{every, restarts} {
				n.read(w)
			}
			if r.IntN(5) == 0 {
				restarts.restart(t, w, path)
			}
			if r.IntN(4) == 0 {
				late.read(w)
			}
			if r.IntN(4) == 0 {
				lateRestarts.restart(t, w, path)
			}
			if hashesOf(every.snap) != hashesOf(restarts.snap) {
				t.Fatalf("seed %d, revision %d: %s, after restarts %s", seed, w.revision, hashesOf(every.snap), hashesOf(restarts.snap))
			}
			seen[every.snap.Hash]++
			if every.snap.TooOld != slices.ContainsFunc(every.snap.Faults, func(f topology.Fault) bool { return strings.HasPrefix(f.Message, "9 is newer than this program knows") }) {
				t.Fatalf("too old: %v, faults %v", every.snap.TooOld, every.snap.Faults)
			}
		}
		if len(seen) < 15 {
			t.Errorf("seed %d: only %d hashes, so nothing was tried", seed, len(seen))
		}
		for _, ref := range world.Refs() { // all that is stored is valid at last
			put("topology/"+ref.String(), topology.MarshalValue(world.Object(ref)))
		}
		put("dnssec/a.example", nil)
		w.revision++
		fresh := newHashNode()
		fresh.pending = slices.Collect(maps.Keys(w.stored))
		for i, n := range append(w.nodes, fresh) {
			if n.read(w); hashesOf(n.snap) != hashesOf(every.snap) || len(n.snap.Faults) > 0 {
				t.Errorf("seed %d, node %d: %s, want %s; faults %v", seed, i, hashesOf(n.snap), hashesOf(every.snap), n.snap.Faults)
			}
		}
	}
}

// TestHashesDifferByEachPart changes one thing after the other.
func TestHashesDifferByEachPart(t *testing.T) {
	a := topology.NewAssembler(nil, 0)
	world := example()
	for _, ref := range world.Refs() {
		a.Put("topology/"+ref.String(), topology.MarshalValue(world.Object(ref)))
	}
	hash := func(s *topology.Snapshot, key string) (of string, others string) {
		switch strings.Split(key, "/")[0] {
		case "keys":
			return s.KeysHash, s.Hash + s.SigningHash
		case "dnssec":
			return s.SigningHash, s.Hash + s.KeysHash
		}
		return s.Hash, s.SigningHash + s.KeysHash
	}
	last := a.Snapshot(1)
	seen := map[string]string{last.Hash: "the beginning"}
	for i, step := range []struct{ key, value string }{
		{"topology/pops/sin1", "{schema: 1, location: {lat: 1, lon: 103, country: SG}, addresses: [127.0.1.1]}"},
		{"topology/clusters/moon", "{schema: 1, location: {lat: 1, lon: 103, country: SG}, endpoints: ['https://moon.example']}"},
		{"topology/clusters/mars", "{schema: 1, location: {lat: 1, lon: 103, country: SG}, endpoints: ['https://mars.example']}"},
		{"overrides/o", "{schema: 1, kind: drain, pop: sin1, reason: r, author: a, expires: " + time.Now().Add(-time.Hour).Format(time.RFC3339) + "}"},
		{"dnssec/isochrone.test", "{schema: 1, keys: []}"},
		{"keys/k", "{schema: 1, sha256: " + topology.HashKey("k") + "}"},
		{"keys/l", "{schema: 1, sha256: " + topology.HashKey("k") + "}"},
		{"keys/l", "{schema: 1, sha256: " + topology.HashKey("k") + ", note: n}"},
	} {
		a.Put(step.key, []byte(step.value))
		snap := a.Snapshot(int64(i + 2))
		if len(snap.Faults)+len(snap.Ignored) > 0 {
			t.Fatal(snap.Faults, snap.Ignored)
		}
		changed, others := hash(snap, step.key)
		_, before := hash(last, step.key)
		if other, known := seen[changed]; known || others != before {
			t.Errorf("%s = %s: hash %s of %q, the other hashes are the same: %v", step.key, step.value, changed, other, others == before)
		}
		seen[changed], last = step.key, snap
	}
}
