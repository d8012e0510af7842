package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A backup is text: a header, one line for each key in the order of keys, and a trailer with the SHA-256 of all lines before it, each
// of them JSON.

// backupFormat is the version of the form of backups.
const backupFormat = 1

// backedUp are the sections that a backup has, in order. They are read one by one, since that is how roles may read them. ofTheMoment
// are those that it leaves out: what they hold is about processes and seconds, and wrong in another store.
var (
	backedUp = []string{
		"acme/", "audit/", "dnssec/", "history/", "keys/", "overrides/", "rttmap/", "secrets/", "shares/", "tickets/", "tokens/", "topology/",
	}
	ofTheMoment = []string{"leader/", "nodes/", "quota/", "reports/", "announces/"}
)

// Summary says what a backup holds.
type Summary struct {
	Revision int64          // of the store, at which it was read; of what was restored, at which that ended
	Time     time.Time      // when it was taken
	Version  string         // of the program that took it
	Keys     int            // all of them
	Sections map[string]int // by the first part of the key, such as topology
}

// backupHeader is the first line.
type backupHeader struct {
	Format   int       `json:"isochrone_backup"`
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	Version  string    `json:"version"`
	Since    int64     `json:"recorded_since,omitempty"` // as in recording
	Trimmed  int64     `json:"trimmed,omitempty"`
}

// backupLine is a key below the root, with the revision at which it was written.
type backupLine struct {
	Key      string `json:"key"`
	Revision int64  `json:"revision"`
	Value    blob   `json:"value"`
}

// backupTrailer is the last line.
type backupTrailer struct {
	Keys   int    `json:"keys"`
	SHA256 string `json:"sha256"`
}

// Backup writes all that stands below the root, as it is at one revision, except for what is of the moment, and what is in no section. Secrets are in it as they are
// in etcd: sealed, or as hashes. Names of clients, addresses and notes are in it, too.
func (s *Store) Backup(ctx context.Context, w io.Writer) (Summary, error) {
	if restoring, err := s.exists(ctx, inProgressKey); err != nil {
		return Summary{}, err
	} else if restoring {
		return Summary{}, ErrRestoring
	}
	revision, err := s.Revision(ctx)
	if err != nil {
		return Summary{}, err
	}
	r, _, err := s.recording(ctx)
	if err != nil {
		return Summary{}, err
	}
	header := backupHeader{backupFormat, revision, s.now().UTC(), programVersion(), r.Since, r.Trimmed}
	summary := Summary{Revision: revision, Time: header.Time, Version: header.Version, Sections: map[string]int{}}
	sum, buffer := sha256.New(), bufio.NewWriterSize(w, 64<<10)
	lines := json.NewEncoder(io.MultiWriter(buffer, sum))
	lines.SetEscapeHTML(false)
	if err := lines.Encode(header); err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	err = s.walk(ctx, revision, false, func(key string, at int64, value []byte) error {
		summary.add(key)
		return lines.Encode(backupLine{key, at, blob(value)})
	})
	if errors.Is(err, rpctypes.ErrCompacted) {
		return Summary{}, fmt.Errorf("etcd was compacted while it was read: try again: %w", err)
	} else if err != nil {
		return Summary{}, fmt.Errorf("back up: %w", err)
	}
	trailer := backupTrailer{summary.Keys, hex.EncodeToString(sum.Sum(nil))}
	if err := errors.Join(json.NewEncoder(buffer).Encode(trailer), buffer.Flush()); err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	return summary, nil
}

func (s *Summary) add(key string) {
	section, _, _ := strings.Cut(key, "/")
	s.Keys++
	s.Sections[section]++
}

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// pageOfKeys is how many keys are read at once.
const pageOfKeys = 200

// walk calls each with all keys that belong into a backup, in order, as they are at one revision, 0 for now. It may leave out the values.
func (s *Store) walk(ctx context.Context, revision int64, keysOnly bool, each func(key string, at int64, value []byte) error) error {
	for _, section := range backedUp {
		end := clientv3.GetPrefixRangeEnd(s.root + section)
		options := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(pageOfKeys)}
		if keysOnly {
			options = append(options, clientv3.WithKeysOnly())
		}
		for from, more := s.root+section, true; more; {
			asking, cancel := context.WithTimeout(ctx, requestTimeout)
			page, err := s.client.Get(asking, from, options...)
			cancel()
			if err != nil {
				return fmt.Errorf("read %s: %w", section, err)
			}
			for _, kv := range page.Kvs {
				if err := each(strings.TrimPrefix(string(kv.Key), s.root), kv.ModRevision, kv.Value); err != nil {
					return err
				}
				from = string(kv.Key) + "\x00"
			}
			more = page.More
		}
	}
	return nil
}

// ErrDamagedBackup is returned for a backup that is not whole.
var ErrDamagedBackup = errors.New("the backup is damaged")

// maxBackupLine bounds a line: etcd's largest value with all of it escaped.
const maxBackupLine = 16 << 20

// readBackup checks a backup, and calls each with its lines; what it was called with counts only if there is no error in the end.
func readBackup(r io.Reader, each func(backupHeader, backupLine) error) (backupHeader, Summary, error) {
	var header backupHeader
	summary := Summary{Sections: map[string]int{}}
	damaged := func(format string, args ...any) (backupHeader, Summary, error) {
		return header, summary, fmt.Errorf("%w: "+format, append([]any{ErrDamagedBackup}, args...)...)
	}
	lines, sum := bufio.NewScanner(r), sha256.New()
	lines.Buffer(make([]byte, 0, 64<<10), maxBackupLine)
	if !lines.Scan() {
		return damaged("it has no header: %v", lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &header); err != nil || header.Format == 0 {
		return header, summary, errors.New("this is no backup: want a file that \"isochrone backup\" wrote")
	}
	if header.Format > backupFormat {
		return header, summary, fmt.Errorf("the backup has form %d, this program knows %d: upgrade it", header.Format, backupFormat)
	}
	summary.Revision, summary.Time, summary.Version = header.Revision, header.Time, header.Version
	for {
		sum.Write(lines.Bytes())
		sum.Write([]byte("\n"))
		if !lines.Scan() {
			return damaged("it ends before its trailer: %v", lines.Err())
		}
		var line struct {
			backupLine
			backupTrailer
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return damaged("line %d: %v", summary.Keys+2, err)
		}
		if line.SHA256 != "" {
			switch {
			case line.SHA256 != hex.EncodeToString(sum.Sum(nil)):
				return damaged("its checksum is wrong")
			case line.Keys != summary.Keys:
				return damaged("it has %d keys of %d", summary.Keys, line.Keys)
			case lines.Scan():
				return damaged("something follows its trailer")
			}
			return header, summary, nil
		}
		if section, _, ok := strings.Cut(line.Key, "/"); !ok || slices.Contains(ofTheMoment, section+"/") || line.Key == "topology/"+restoringMarker {
			return damaged("line %d: %q is no key of a backup", summary.Keys+2, line.Key)
		}
		summary.add(line.Key)
		if err := each(header, line.backupLine); err != nil {
			return header, summary, err
		}
	}
}
