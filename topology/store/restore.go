package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/isochrone/isochrone/topology"
)

// ErrNotEmpty is returned when a backup is to be restored into a store that has something in it.
var ErrNotEmpty = errors.New("the store is not empty")

// RestoreOptions say how a backup is restored.
type RestoreOptions struct {
	Replace bool   // also into a store that is not empty: all that the backup does not have is deleted
	Author  string // who does it, for history and audit
}

// Restore makes the store what a backup says; what is of the moment it leaves alone. The whole backup is checked before anything is
// written. It can be repeated when it was broken off.
//
// It takes more than one transaction. So that nobody ever has half a topology, a marker that makes the topology invalid is written
// before it and deleted with the last write: until then the last good one stays in force. Whatever else there is, such as keys and
// signing, is written before that, and what the backup does not have is deleted after: a node that has lived through the loss of etcd
// reads a store that has a topology, though an invalid one, and must find its keys then.
//
// Where the store's revision is below the backup's, as in a new etcd, the entries of the history get revisions of the new count, and
// keep their order.
func (s *Store) Restore(ctx context.Context, r io.Reader, options RestoreOptions) (Summary, error) {
	file, done, err := rewindable(r)
	if err != nil {
		return Summary{}, err
	}
	defer done()
	job := restoring{s: s, options: options, has: map[string]bool{}}
	header, summary, err := readBackup(file, job.check)
	if err != nil {
		return Summary{}, err
	}
	if err := job.begin(ctx, header); err != nil {
		return Summary{}, err
	}
	if err := job.write(ctx, file, func(key string) bool { return !strings.HasPrefix(key, "topology/") }); err != nil {
		return Summary{}, err
	}
	if err := job.mark(ctx); err != nil {
		return Summary{}, err
	}
	if err := job.write(ctx, file, func(key string) bool { return strings.HasPrefix(key, "topology/") }); err != nil {
		return Summary{}, err
	}
	if err := job.deleteOthers(ctx); err != nil {
		return Summary{}, err
	}
	summary.Revision, err = job.end(ctx)
	return summary, err
}

// rewindable returns a backup that can be read more than once: what comes through a pipe is kept in a file meanwhile.
func rewindable(r io.Reader) (io.ReadSeeker, func(), error) {
	if file, ok := r.(io.ReadSeeker); ok {
		if _, err := file.Seek(0, io.SeekCurrent); err == nil {
			return file, func() {}, nil
		}
	}
	file, err := os.CreateTemp("", "isochrone-restore-*") // of mode 0600
	if err != nil {
		return nil, nil, err
	}
	done := func() { file.Close(); os.Remove(file.Name()) }
	if _, err := io.Copy(file, r); err != nil {
		done()
		return nil, nil, fmt.Errorf("read the backup: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		done()
		return nil, nil, err
	}
	return file, done, nil
}

// restoring is one call of Restore.
type restoring struct {
	s       *Store
	options RestoreOptions
	header  backupHeader
	has     map[string]bool // the keys that the store is to have
	edits   []int64         // the revisions of the history, in the old count

	began    int64          // the revision of the first write
	renumber bool           // the history gets new revisions, from began+1 on
	marked   []clientv3.Cmp // nobody else restores
}

// mark writes the marker that makes the topology invalid.
func (j *restoring) mark(ctx context.Context) error {
	_, err := j.commit(ctx, clientv3.OpPut(j.s.root+"topology/"+restoringMarker, j.note()))
	return err
}

func (j *restoring) note() string {
	return string(topology.MarshalValue(map[string]any{
		"author": j.options.Author, "backup_revision": j.header.Revision, "backup_time": j.header.Time, "time": j.s.now().UTC(),
		"note": "a backup is being restored; if nobody is at it any more, run isochrone restore again",
	}))
}

// check takes note of a line of the backup.
func (j *restoring) check(header backupHeader, line backupLine) error {
	if strings.HasPrefix(line.Key, "history/") {
		j.edits = append(j.edits, revisionOf(line))
	} else {
		j.has[line.Key] = true
	}
	return nil
}

// revisionOf returns the revision of an edit in the old count.
func revisionOf(line backupLine) int64 {
	var e struct {
		Revision int64 `yaml:"revision"`
	}
	if err := yaml.Unmarshal([]byte(line.Value), &e); err == nil && e.Revision != 0 {
		return e.Revision
	}
	return line.Revision
}

// begin claims the store.
func (j *restoring) begin(ctx context.Context, header backupHeader) error {
	j.header = header
	revision, err := j.s.Revision(ctx)
	if err != nil {
		return err
	}
	brokenOff, err := j.s.exists(ctx, inProgressKey)
	if err != nil {
		return err
	}
	if !j.options.Replace && !brokenOff {
		err := j.s.walk(ctx, 0, true, func(key string, _ int64, _ []byte) error {
			return fmt.Errorf("%w: it has %s; --replace deletes all that the backup does not have", ErrNotEmpty, key)
		})
		if err != nil {
			return err
		}
	}
	response, err := j.s.commit(ctx, nil, []clientv3.Op{
		clientv3.OpPut(j.s.root+inProgressKey, j.note()),
		clientv3.OpPut(j.s.root+quotaClosedKey, j.s.now().Add(quotaMargin).UTC().Format(time.RFC3339)), // before there is a key
	})
	if err != nil {
		return err
	}
	j.began, j.renumber = response, header.Revision > revision
	j.marked = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(j.s.root+inProgressKey), "=", j.began)}
	slices.Sort(j.edits)
	return nil
}

// exists reports whether there is a key.
func (s *Store) exists(ctx context.Context, key string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+key, clientv3.WithCountOnly())
	if err != nil {
		return false, fmt.Errorf("read the store: %w", err)
	}
	return response.Count > 0, nil
}

// commit writes, unless another restoring has begun.
func (j *restoring) commit(ctx context.Context, ops ...clientv3.Op) (int64, error) {
	revision, err := j.s.commit(ctx, j.marked, ops)
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("somebody else restores a backup since: %w", err)
	}
	return revision, err
}

// numbered returns a revision of the old count in the new one: that of the newest edit that is not newer.
func (j *restoring) numbered(old int64) int64 {
	if !j.renumber || old == 0 {
		return old
	}
	place, found := slices.BinarySearch(j.edits, old)
	if found {
		place++
	}
	return j.began + int64(place)
}

// The bounds of what is written at once.
const (
	restoreKeys    = 50
	restoreBytes   = 1 << 20
	restoreWriters = 16
)

// write puts those keys of the backup that are wanted, many writers at once: one key is in one group only. Of the history each entry is
// a group, so that the store's count of revisions passes those that it is given.
func (j *restoring) write(ctx context.Context, file io.ReadSeeker, wanted func(key string) bool) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	writers, ctx := errgroup.WithContext(ctx)
	writers.SetLimit(restoreWriters)
	var group []clientv3.Op
	size := 0
	flush := func() {
		if ops := group; len(ops) > 0 {
			writers.Go(func() error { _, err := j.commit(ctx, ops...); return err })
		}
		group, size = nil, 0
	}
	_, _, err := readBackup(file, func(_ backupHeader, line backupLine) error {
		if !wanted(line.Key) {
			return ctx.Err()
		}
		section, _, _ := strings.Cut(line.Key, "/")
		key, value := line.Key, string(line.Value)
		switch section {
		case "history":
			key, value = j.entry(line)
			flush()
			defer flush()
		case "audit":
			value = j.auditEntry(line)
		}
		if len(group) == restoreKeys || size+len(value) > restoreBytes {
			flush()
		}
		group, size = append(group, clientv3.OpPut(j.s.root+key, value)), size+len(value)
		return ctx.Err()
	})
	flush()
	return errors.Join(writers.Wait(), err)
}

// entry returns an entry of the history as it is to be stored: with a revision that is its own no more.
func (j *restoring) entry(line backupLine) (key, value string) {
	old := revisionOf(line)
	e, err := unmarshalEntry([]byte(line.Value), line.Revision)
	if err != nil {
		e = &Entry{Schema: topology.SchemaVersion, Author: "unknown", Message: fmt.Sprintf("could not be read when it was restored: %v", err)}
	}
	e.Revision, e.Since = j.numbered(old), j.numbered(e.Since)
	if j.renumber && e.Was == 0 {
		e.Was = old
	}
	key = j.s.number("history/", e.Revision)[len(j.s.root):] + editSuffix
	if text, err := e.marshal(); err == nil {
		value = string(text)
	}
	return key, value
}

// auditEntry returns an entry of the audit log with the revision that it had.
func (j *restoring) auditEntry(line backupLine) string {
	var a AuditEntry
	if err := yaml.Unmarshal([]byte(line.Value), &a); err != nil {
		return string(line.Value)
	}
	if a.Revision == 0 {
		a.Revision = line.Revision
	}
	a.Revision = j.numbered(a.Revision)
	return string(topology.MarshalValue(a))
}

// deleteOthers deletes what the backup does not have.
func (j *restoring) deleteOthers(ctx context.Context) error {
	for _, revision := range j.edits {
		j.has[j.s.number("history/", j.numbered(revision))[len(j.s.root):]+editSuffix] = true
	}
	j.has["topology/"+restoringMarker] = true
	var others []clientv3.Op
	err := j.s.walk(ctx, 0, true, func(key string, _ int64, _ []byte) error {
		if !j.has[key] {
			others = append(others, clientv3.OpDelete(j.s.root+key))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for group := range slices.Chunk(others, restoreKeys) {
		if _, err := j.commit(ctx, group...); err != nil {
			return err
		}
	}
	return nil
}

// end has the restored topology take effect.
func (j *restoring) end(ctx context.Context) (int64, error) {
	s := j.s
	through, err := s.Revision(ctx)
	if err != nil {
		return 0, err
	}
	now := s.now().UTC()
	e := Entry{
		Schema: topology.SchemaVersion, Action: Restored, Author: j.options.Author, Time: now,
		Message: fmt.Sprintf("a backup of revision %d, taken %s", j.header.Revision, j.header.Time.Format(time.RFC3339)),
	}
	r := recording{Schema: topology.SchemaVersion, Since: j.numbered(j.header.Since), Through: through, Trimmed: j.numbered(j.header.Trimmed)}
	if j.renumber { // what has lower numbers is of before this store
		r.Trimmed = max(r.Trimmed, j.began)
	}
	done := restoration{
		Schema: topology.SchemaVersion, Began: j.began, Time: now, Author: j.options.Author, Backup: j.header.Revision, Taken: j.header.Time,
	}
	return j.commit(ctx,
		clientv3.OpDelete(s.root+"topology/"+restoringMarker), clientv3.OpDelete(s.root+inProgressKey),
		clientv3.OpPut(s.root+restoredKey, string(topology.MarshalValue(done))),
		clientv3.OpPut(s.root+recordingKey, string(topology.MarshalValue(r))),
		clientv3.OpPut(s.number("history/", through)+editSuffix, string(topology.MarshalValue(e))),
		s.audit(j.options.Author, string(Restored), "topology"),
	)
}
