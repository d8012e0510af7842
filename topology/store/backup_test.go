package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// startAt starts an etcd at an address, and returns an end for it and a client.
func startAt(t *testing.T, listen string) (*embedded.Etcd, *clientv3.Client) {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return etcd, client
}

// contentsOf returns all keys and values of the sections that a backup is to bring back as they are.
func contentsOf(t *testing.T, s *Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := s.walk(t.Context(), 0, false, func(key string, _ int64, value []byte) error {
		if !strings.HasPrefix(key, "history/") && !strings.HasPrefix(key, "audit/") {
			all[key] = string(value)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fill makes edits of all kinds, and returns the topologies that they made, the newest first.
func fill(t *testing.T, s *Store, client *clientv3.Client) (states []map[string]string) {
	t.Helper()
	stop := background(t, s.RecordOutside)
	defer stop()
	recordedFrom(t, s)
	note := func(int64) { states = append([]map[string]string{at(t, s, 0).Values}, states...) }
	for i := range 5 {
		note(apply(t, s, Change{Put: capacity(i + 1), Author: "ops"}))
	}
	note(put(t, client, "topology/pops/fra1", string(topology.MarshalValue(pop("fra1", draining)[ref("pops/fra1")]))))
	note(apply(t, s, Change{Delete: []topology.Ref{ref("pops/jnb1")}, Author: "ops"}))
	eventually(t, "the entries", func() bool { return len(history(t, s, 0, 10)) == 8 })
	id, _, key, err := topology.NewKey(strings.NewReader(strings.Repeat("x", 25)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutKey(t.Context(), id, key, "ops"); err != nil {
		t.Fatal(err)
	}
	o := &topology.Override{Schema: 1, Kind: topology.Drain, PoP: "sin1", Reason: "r", Author: "a", Created: time.Now().UTC(), Expires: time.Now().UTC().Add(time.Hour)}
	if _, err := s.PutOverride(t.Context(), "drain-sin1", o); err != nil {
		t.Fatal(err)
	}
	put(t, client, "tickets/now", "\xff\x00binary")
	for _, momentary := range []string{"nodes/a", "reports/a", "quota/a"} {
		put(t, client, momentary, "of the moment")
	}
	return states
}

// TestBackupDrill loses etcd under a follower and restores a backup into a new one.
func TestBackupDrill(t *testing.T) {
	t.Parallel()
	etcd, client := startAt(t, "127.0.0.1:0")
	s := New(client, "/isochrone")
	apply(t, s, Change{Put: objects(example())})
	states := fill(t, s, client)
	for range 200 { // so that the new etcd's revisions stay below these
		put(t, client, "quota/a", "1")
	}
	f := follow(t, s)
	before := f.until("all", func(snap *topology.Snapshot) bool { return snap.Keys.Len() == 1 && len(snap.Overrides) == 1 })
	want := contentsOf(t, s)
	var backup bytes.Buffer
	summary, err := s.Backup(t.Context(), &backup)
	if err != nil || summary.Sections["topology"] != len(at(t, s, 0).Values) || summary.Sections["nodes"] != 0 || summary.Sections["history"] != 8 {
		t.Fatalf("got %+v, %v", summary, err)
	}
	if strings.Contains(backup.String(), "of the moment") {
		t.Error("the backup has what is of the moment")
	}

	etcd.Close()
	_, other := startAt(t, etcd.Endpoint()[len("http://"):])
	restored := New(other, "/isochrone")
	result, err := restored.Restore(t.Context(), io.MultiReader(bytes.NewReader(backup.Bytes())), RestoreOptions{Author: "ops"})
	if err != nil || result.Keys != summary.Keys {
		t.Fatalf("got %+v, %v", result, err)
	}
	if difference := cmp.Diff(want, contentsOf(t, restored)); difference != "" {
		t.Error(difference)
	}
	// The follower may have nothing to say, as all is as it was; so it is asked about an edit.
	edited := apply(t, restored, Change{Put: pop("nrt1", draining), Author: "ops"})
	after := f.until("an edit of the restored topology", func(snap *topology.Snapshot) bool {
		if snap.Keys.Len() != 1 || len(snap.Overrides) != 1 || !slices.Equal(snap.Topology.Refs(), before.Topology.Refs()) {
			t.Errorf("in between: %d keys, %d overrides, objects %v", snap.Keys.Len(), len(snap.Overrides), snap.Topology.Refs())
		}
		return snap.Topology.PoPs["nrt1"].State == topology.Draining
	})
	if whole, err := restored.Read(t.Context()); err != nil || len(topology.Diff(whole.Topology, after.Topology)) > 0 || after.Good != edited || len(after.Faults) > 0 {
		t.Errorf("the follower has another topology of revision %d, %v", after.Good, err)
	}
	if _, err := restored.Rollback(t.Context(), result.Revision, 0, "ops", ""); err != nil {
		t.Fatal(err)
	}

	// The history goes on.
	entries := history(t, restored, 0, 100)[2:]
	if len(entries) != 9 || entries[0].Action != Restored || entries[1].Was == 0 || entries[1].Author != "ops" || entries[2].Author != OutsideAuthor {
		t.Fatalf("got %v", entries)
	}
	for i, state := range states {
		past := at(t, restored, entries[i+1].Revision)
		if !maps.Equal(past.Values, state) || len(past.Doubts) > 0 || past.Made != entries[i+1].Revision {
			t.Errorf("%v: got %v, doubts %q", entries[i+1], past.Topology.PoPs["sin1"], past.Doubts)
		}
	}
	if _, err := restored.Rollback(t.Context(), entries[3].Revision, 0, "ops", ""); err != nil {
		t.Error(err)
	}
	if now := at(t, restored, 0).Values; !maps.Equal(now, states[2]) {
		t.Error("the rollback went elsewhere")
	}
	stop := background(t, restored.RecordOutside)
	outside := put(t, other, "topology/pops/sin1", "x")
	eventually(t, "an entry", func() bool { return history(t, restored, 0, 1)[0].Revision == outside })
	stop()
	if n := len(history(t, restored, 0, 100)); n != 13 {
		t.Errorf("the history has %d entries, want 13", n)
	}
	if audits, err := restored.Audit(t.Context(), "", 100); err != nil || len(audits) < 11 {
		t.Errorf("got %d audit entries, %v", len(audits), err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	s, client := open(t)
	fill(t, s, client)
	var backup bytes.Buffer
	if _, err := s.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	revision, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(backup.String(), "\n")
	for name, text := range map[string]string{
		"empty":     "",
		"nothing":   "{}\n",
		"cut off":   strings.Join(lines[:len(lines)-2], ""),
		"a line":    strings.Join(slices.Delete(slices.Clone(lines), 3, 4), ""),
		"a letter":  strings.Replace(backup.String(), "active", "Active", 1),
		"and more":  backup.String() + "{}\n",
		"too new":   strings.Replace(backup.String(), `"isochrone_backup":1`, `"isochrone_backup":2`, 1),
		"no backup": "schema: 1\n",
	} {
		if _, err := s.Restore(t.Context(), strings.NewReader(text), RestoreOptions{Replace: true}); err == nil {
			t.Errorf("%s: was restored", name)
		}
	}
	if _, err := s.Restore(t.Context(), bytes.NewReader(backup.Bytes()), RestoreOptions{}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("into a store with something in it: got %v", err)
	}
	if now, err := s.Revision(t.Context()); err != nil || now != revision {
		t.Errorf("what was refused wrote something")
	}
}

// tornFile is a file that ends with an error at the second reading.
type tornFile struct {
	*bytes.Reader
	seeks, limit int
}

func (b *tornFile) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		b.seeks++
	}
	return b.Reader.Seek(offset, whence)
}

func (b *tornFile) Read(p []byte) (int, error) {
	if at := int(b.Size()) - b.Len(); b.seeks == 2 && at >= b.limit {
		return 0, errors.New("pulled out")
	}
	return b.Reader.Read(p[:min(len(p), 1000)])
}

// TestReplaceBrokenOff restores over a store in use, is broken off on the way, and repeated.
func TestReplaceBrokenOff(t *testing.T) {
	s, client := open(t)
	fill(t, s, client)
	want := contentsOf(t, s)
	var backup bytes.Buffer
	if _, err := s.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	past := history(t, s, 0, 1)[0].Revision
	apply(t, s, Change{Put: pop("nrt1", draining)})
	put(t, client, "keys/unwanted", "x")
	f := follow(t, s)
	good := f.until("the edit", func(snap *topology.Snapshot) bool { return snap.Topology.PoPs["nrt1"].State == topology.Draining })

	file := &tornFile{Reader: bytes.NewReader(backup.Bytes()), limit: strings.Index(backup.String(), `"topology/pops/nrt1"`)}
	if _, err := s.Restore(t.Context(), file, RestoreOptions{Replace: true, Author: "ops"}); err == nil {
		t.Fatal("was not broken off")
	}
	d, err := s.Doctor(t.Context())
	if err != nil || len(d.Faults) == 0 || len(d.Notes) == 0 || !strings.Contains(d.Notes[0], "being restored") {
		t.Errorf("doctor: got %+v, %v", d, err)
	}
	if _, err := s.Apply(t.Context(), Change{Put: capacity(3), RevertInvalid: true}); !errors.Is(err, ErrRestoring) {
		t.Errorf("an edit meanwhile: got %v", err)
	}
	if _, err := s.Backup(t.Context(), io.Discard); !errors.Is(err, ErrRestoring) {
		t.Errorf("a backup meanwhile: got %v", err)
	}
	now := f.until("the marker", func(snap *topology.Snapshot) bool { return len(snap.Faults) > 0 })
	if now.Topology != good.Topology {
		t.Error("half a topology is in force")
	}
	result, err := s.Restore(t.Context(), bytes.NewReader(backup.Bytes()), RestoreOptions{Author: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	f.until("the restored topology", func(snap *topology.Snapshot) bool {
		return snap.Revision == result.Revision && len(snap.Faults) == 0 && snap.Topology.PoPs["nrt1"].State == topology.Active
	})
	if difference := cmp.Diff(want, contentsOf(t, s)); difference != "" {
		t.Error(difference)
	}
	if got := at(t, s, past); got.Topology.PoPs["jnb1"] != nil || got.Made != past {
		t.Errorf("revision %d: %+v", past, got)
	}
	if d, err := s.Doctor(t.Context()); err != nil || len(d.Faults)+len(d.Notes) > 0 {
		t.Errorf("doctor: got %+v, %v", d, err)
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	_, client := startAt(t, "127.0.0.1:0")
	s := New(client, "/isochrone")
	day := 24 * time.Hour
	real := time.Now()
	s.now = func() time.Time { return real.Add(-251 * day) }
	apply(t, s, Change{Put: objects(example())})
	for i := range 250 { // entries of 250 days
		s.now = func() time.Time { return real.Add(time.Duration(i-250) * day) }
		apply(t, s, Change{Put: capacity(i + 1)})
	}
	for name, ended := range map[string]time.Duration{"long-ago": 2 * day, "just-now": time.Hour} {
		o := &topology.Override{Schema: 1, Kind: topology.Drain, PoP: "sin1", Reason: "r", Author: "a", Created: real.Add(-3 * day).UTC(), Expires: real.Add(-ended).UTC()}
		put(t, client, "overrides/"+name, string(topology.MarshalValue(o)))
	}
	s.now = func() time.Time { return real }
	if err := s.Trim(t.Context(), Limits{}); err != nil {
		t.Fatal(err)
	}
	entries := history(t, s, 0, 1000)
	if n := len(entries); n < 89 || n > 91 {
		t.Errorf("%d entries are left, want 90", n)
	}
	audits, err := s.Audit(t.Context(), "", 1000)
	if err != nil || len(audits) < 89 || len(audits) > 93 {
		t.Errorf("%d audit entries are left, %v", len(audits), err)
	}
	if audits[0].Action != "delete" || audits[0].Objects[0] != "overrides/long-ago" {
		t.Errorf("got %+v", audits[0])
	}
	if snap, err := s.Read(t.Context()); err != nil || snap.Overrides["long-ago"] != nil || snap.Overrides["just-now"] == nil {
		t.Errorf("got %v, %v", snap.Overrides, err)
	}
	now, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	oldest := entries[len(entries)-1].Revision
	if past := at(t, s, oldest); past.Made != oldest {
		t.Errorf("got %+v", past)
	}
	var trimmed *TrimmedError
	if _, err := s.At(t.Context(), oldest-2); !errors.As(err, &trimmed) || trimmed.Oldest != oldest-1 {
		t.Errorf("got %v, want that %d is the oldest", err, oldest-1)
	}
	if err := s.Trim(t.Context(), Limits{Most: 7}); err != nil {
		t.Fatal(err)
	}
	if n := len(history(t, s, 0, 1000)); n != 7 {
		t.Errorf("%d entries are left, want 7", n)
	}
}

func TestAuditInPages(t *testing.T) {
	s, _ := open(t)
	at := time.Now() // all in one nanosecond, from several writers
	s.now = func() time.Time { return at }
	for i := range 25 {
		apply(t, s, Change{Put: capacity(i + 1), Author: fmt.Sprint(i)})
	}
	seen := map[string]bool{}
	for after := ""; ; {
		page, err := s.Audit(t.Context(), after, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			if seen[a.Key] || a.Action != string(Applied) || !slices.Equal(a.Objects, []string{"pops/sin1"}) && a.Author != "" || a.Revision == 0 {
				t.Errorf("got %+v", a)
			}
			seen[a.Key] = true
		}
		if len(page) < 4 {
			break
		}
		after = page[3].Key
	}
	if len(seen) != 26 {
		t.Errorf("got %d entries, want 26", len(seen))
	}
	if _, err := s.Audit(t.Context(), "x", 4); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadBackup(f *testing.F) {
	f.Add([]byte(`{"isochrone_backup":1,"revision":3,"time":"2030-01-01T00:00:00Z","version":"x"}` + "\n" + `{"key":"topology/pops/a","revision":2,"value":"x"}` + "\n" + `{"keys":1,"sha256":"0"}` + "\n"))
	f.Add([]byte(`{"isochrone_backup":1}` + "\n" + `{"key":"a/b","value":{"base64":"/w=="}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys := 0
		_, summary, err := readBackup(bytes.NewReader(text), func(backupHeader, backupLine) error { keys++; return nil })
		if err == nil && summary.Keys != keys {
			t.Errorf("told %d keys of %d", keys, summary.Keys)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	for _, values := range []map[string]string{{"a": "one\ntwo\nthree"}, {"a": "\xff"}, {}} {
		text, err := pack(values, map[string]string{"a": "one\n2\nthree", "b": ""})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		before, after, err := unpack(text)
		if err != nil {
			return
		}
		again, err := pack(before, after)
		if err != nil {
			t.Fatal(err)
		}
		if b, a, err := unpack(again); err != nil || !maps.Equal(a, after) || !maps.Equal(b, before) {
			t.Errorf("got %v, %v, %v, want %v, %v", b, a, err, before, after)
		}
	})
}

// TestBackupHasAllSections holds the lists of sections to the table of prefixes.
func TestBackupHasAllSections(t *testing.T) {
	var want []string
	for _, p := range Table() {
		want = append(want, p.Prefix)
	}
	slices.Sort(want)
	got := slices.Sorted(slices.Values(append(slices.Clone(backedUp), ofTheMoment...)))
	if difference := cmp.Diff(want, got); difference != "" || !slices.IsSorted(backedUp) {
		t.Errorf("sections of backups: %s", difference)
	}
}

// TestHistoryByRoles does with the rights of an operator and of a control plane what they need of the history.
func TestHistoryByRoles(t *testing.T) {
	g := startGuarded(t, false)
	users := []User{{Role: Operator, Name: "n1"}, {Role: Control, Name: "n1"}}
	if err := SetUp(t.Context(), g.client(t, ca.EtcdRoot, "root"), "/isochrone", Setup{Users: users, Tell: func(string) {}}); err != nil {
		t.Fatal(err)
	}
	operator, control := New(g.client(t, ca.Operator, "n1"), "/isochrone"), New(g.client(t, ca.Control, "n1"), "/isochrone")
	stop := background(t, control.RecordOutside)
	recordedFrom(t, operator)
	first := apply(t, operator, Change{Put: objects(example())})
	apply(t, operator, Change{Put: capacity(7), Base: first})
	put(t, operator.client, "topology/pops/sin1", "x")
	eventually(t, "the entry", func() bool { return len(history(t, operator, 0, 10)) == 3 })
	if d, err := operator.Doctor(t.Context()); err != nil || len(d.Culprits) != 1 {
		t.Errorf("doctor: got %+v, %v", d, err)
	}
	if _, err := operator.Rollback(t.Context(), first, 0, "n1", ""); err != nil {
		t.Error(err)
	}
	if audits, err := operator.Audit(t.Context(), "", 10); err != nil || len(audits) != 4 {
		t.Errorf("audit: got %d entries, %v", len(audits), err)
	}
	stop()
	if err := control.Trim(t.Context(), Limits{Most: 2}); err != nil {
		t.Error(err)
	}
	var backup bytes.Buffer
	if _, err := control.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Restore(t.Context(), &backup, RestoreOptions{Replace: true}); err != nil {
		t.Error(err)
	}
}
