package store

import (
	"context"
	"errors"
	"time"
)

// restoringMarker is a key under topology/ that is no object's, so that the topology is invalid, and the last good one in force, while
// a backup is being restored.
const restoringMarker = "restoring"

// inProgressKey says that a backup is being restored, also while no topology has been touched yet.
const inProgressKey = "leader/restoring"

// ErrRestoring is returned for an edit while a backup is being restored.
var ErrRestoring = errors.New("a backup is being restored, or its restoring was broken off: if nobody is at it, run \"isochrone restore\" again")

// quotaClosedKey says until when nothing is granted of the quota of API keys: see package dataplane/quota. What was granted before etcd
// lost its data is not known any more.
const quotaClosedKey = "quota/closed"

// quotaMargin is by how much the clocks of PoPs may be ahead.
const quotaMargin = 5 * time.Second

// restoredKey tells of the last restoring of a backup.
const restoredKey = "leader/restored"

// errHalfRestored is returned for a revision at which a backup was being restored: what etcd has of it was never in force.
var errHalfRestored = errors.New("a backup was being restored")

// restoration is what Restore leaves behind.
type restoration struct {
	Schema   int       `yaml:"schema"`
	Revision int64     `yaml:"-"`     // at which it ended
	Began    int64     `yaml:"began"` // the revision of its first write
	Time     time.Time `yaml:"time"`
	Author   string    `yaml:"author"`
	Backup   int64     `yaml:"backup_revision"`
	Taken    time.Time `yaml:"backup_time"`
}

// restoration reads it; it is zero when nothing was ever restored.
func (s *Store) restoration(ctx context.Context) (restoration, error) {
	var r restoration
	var err error
	r.Revision, err = s.record(ctx, restoredKey, &r)
	return r, err
}

// covers reports whether the store was being restored at a revision.
func (r restoration) covers(revision int64) bool { return r.Began <= revision && revision < r.Revision }
