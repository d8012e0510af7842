package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// snapshotOf returns a snapshot with the example world, an override, and some keys with all that a key can have.
func snapshotOf(t *testing.T, keys int) (*topology.Assembler, *topology.Snapshot) {
	t.Helper()
	a := topology.NewAssembler(nil, 0)
	for _, r := range example().Refs() {
		a.Put("topology/"+r.String(), topology.MarshalValue(example().Object(r)))
	}
	a.Put("overrides/o", []byte("{schema: 1, kind: pin, share: 0.25, pop: sin1, reason: r, author: a, expires: 2030-01-01T00:00:00Z}"))
	for i := range keys {
		a.Put(fmt.Sprintf("keys/k%d", i), topology.MarshalValue(&topology.Key{
			Schema: 1, SHA256: topology.HashKey(fmt.Sprint(i)), PreviousSHA256: topology.HashKey("before"), PreviousUntil: time.Unix(int64(i), 0).UTC(),
			Services: []string{"a.example"}, From: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, QuotaPerMinute: int64(1 + i), Probe: i%2 == 0,
			Note: []string{"", "plain", "two\nlines: # 'and' \"more\"", "10\n5\n"}[i%4], Created: time.Unix(0, int64(i)).UTC(), Expires: time.Unix(1e10, 0).UTC(),
		}))
	}
	snap := a.Snapshot(7)
	if len(snap.Faults)+len(snap.Ignored) > 0 || snap.Keys.Len() != keys {
		t.Fatal(snap.Faults, snap.Ignored)
	}
	return a, snap
}

func TestSnapshotsAreReadAsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "last-good.yaml")
	_, snap := snapshotOf(t, 200)
	if err := Save(path, snap); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || hashesOf(got) != hashesOf(snap) || got.Revision != 0 || got.Good != snap.Good {
		t.Fatalf("got %s, want %s, %v", hashesOf(got), hashesOf(snap), err)
	}
	for id, k := range snap.Keys.All() {
		if !reflect.DeepEqual(got.Keys.Lookup(id), k) {
			t.Errorf("got %+v, want %+v", got.Keys.Lookup(id), k)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 {
		t.Fatalf("there are %v, %v, want two files", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// TestKeysAreWrittenWhenTheyHaveChanged keeps snapshots that differ in one thing or another.
func TestKeysAreWrittenWhenTheyHaveChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	a, snap := snapshotOf(t, 3)
	keeper := NewKeeper(path)
	var before os.FileInfo
	save := func(what string, rewritten bool) {
		t.Helper()
		if err := keeper.Save(snap); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path + ".keys")
		if err != nil {
			t.Fatal(err)
		}
		if got := before == nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()); got != rewritten {
			t.Errorf("%s: the file of keys is written: %v, want %v", what, got, rewritten)
		}
		before = after
		if got, err := Load(path); err != nil || hashesOf(got) != hashesOf(snap) {
			t.Errorf("%s: got %s, want %s, %v", what, hashesOf(got), hashesOf(snap), err)
		}
	}
	save("the first", true)
	a.Delete("overrides/o")
	snap = a.Snapshot(8)
	save("another override", false)
	a.Delete("keys/k1")
	snap = a.Snapshot(9)
	save("a key less", true)
	text, err := os.ReadFile(path + ".keys")
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(filepath.Dir(path), "other")
	if err := errors.Join(os.WriteFile(other, bytes.ToUpper(text), 0o600), os.Rename(other, path+".keys")); err != nil {
		t.Fatal(err)
	}
	save("somebody else's file", true)
	keeper = NewKeeper(path)
	save("another process", true)
	save("nothing", false)
}

// TestDamagedFilesAreRefused changes files in all places, and cuts them off.
func TestDamagedFilesAreRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	_, snap := snapshotOf(t, 3)
	if err := Save(path, snap); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", ".keys"} {
		whole, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		damage := [][]byte{nil, whole[:10], whole[:len(whole)-1], append(bytes.Clone(whole), '\n'), append(bytes.Clone(whole), whole...)}
		for at := 0; at < len(whole); at += 1 + len(whole)/50 {
			flipped := bytes.Clone(whole)
			flipped[at] ^= 1
			damage = append(damage, flipped, whole[:at])
		}
		for i, text := range damage {
			if err := os.WriteFile(path+suffix, text, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Load(path)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path+suffix) || !strings.Contains(err.Error(), "delete it") {
				t.Errorf("%q, damage %d: got %v", suffix, i, err)
			}
			if suffix == "" && got != nil || suffix != "" && (got.Hash != snap.Hash || got.Keys.Len() != 0) {
				t.Errorf("%q, damage %d: got %+v", suffix, i, got)
			}
		}
		if err := os.WriteFile(path+suffix, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path + ".keys"); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || got.Hash != snap.Hash || got.Keys.Len() != 0 {
		t.Errorf("without a file of keys: %+v, %v", got, err)
	}
}

// TestFailedWritesLeaveTheFileBefore fails in the middle.
func TestFailedWritesLeaveTheFileBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := writeWhole(path, func(w io.Writer) error { _, err := io.WriteString(w, "first"); return err }); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := writeWhole(path, func(w io.Writer) error {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the writer", err)
	}
	if got, err := readWhole(path); string(got) != "first" || err != nil {
		t.Errorf("got %q, %v, want the file before", got, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// BenchmarkKeeper keeps 100,000 keys, and loads them.
func BenchmarkKeeper(b *testing.B) {
	path := filepath.Join(b.TempDir(), "last-good.yaml")
	a := topology.NewAssembler(nil, 0)
	for _, r := range example().Refs() {
		a.Put("topology/"+r.String(), topology.MarshalValue(example().Object(r)))
	}
	for i := range 100_000 {
		id := fmt.Sprintf("key%07d", i)
		a.Put("keys/"+id, topology.MarshalKey(&topology.Key{
			Schema: 1, SHA256: topology.HashKey(id), Services: []string{topology.ExampleService}, QuotaPerMinute: 6000, Note: fmt.Sprintf("customer %d", i),
			Created: time.Unix(1e9+int64(i), 0).UTC(), Expires: time.Unix(2e9, 0).UTC(),
		}))
	}
	revision := int64(1)
	b.Run("save, keys changed", func(b *testing.B) {
		keeper := NewKeeper(path)
		for b.Loop() {
			revision++
			a.Put("keys/new", topology.MarshalKey(&topology.Key{Schema: 1, SHA256: topology.HashKey("x"), QuotaPerMinute: revision}))
			if err := keeper.Save(a.Snapshot(revision)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("save, keys unchanged", func(b *testing.B) {
		keeper, snap := NewKeeper(path), a.Snapshot(revision)
		if err := keeper.Save(snap); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := keeper.Save(snap); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if snap, err := Load(path); err != nil || snap.Keys.Len() != 100_001 {
				b.Fatal(snap, err)
			}
		}
	})
}
