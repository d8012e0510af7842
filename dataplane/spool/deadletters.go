package spool

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// deadLetters is a folder of envelopes that a cluster has refused for good, one JSON file each. An operator may read, send
// again and remove them.
type deadLetters struct {
	dir string

	mu      sync.Mutex
	files   int
	bytes   int64
	counted time.Time // when the files were counted last
	adding  int       // letters that are being written
	added   int       // letters that have been
}

// DeadLetter is the content of such a file.
type DeadLetter struct {
	ID          string    `json:"id"`
	Reason      string    `json:"reason"`
	SHA256      string    `json:"sha256"`
	KeyID       string    `json:"key_id"`
	Service     string    `json:"service"`
	ContentType string    `json:"content_type"`
	Received    time.Time `json:"received"`
	Body        []byte    `json:"body"` // base64
}

func openDeadLetters(dir string) (*deadLetters, error) {
	d := &deadLetters{dir: dir}
	var err error
	if d.files, d.bytes, err = d.look(); os.IsNotExist(err) {
		return d, makeFolder(dir)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// look counts the files.
func (d *deadLetters) look() (files int, bytes int64, err error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		files++
		bytes += info.Size()
	}
	return files, bytes, nil
}

// recountInterval is how often the files are counted again at the most.
const recountInterval = 10 * time.Second

// recount counts the files again, since operators remove them. Nobody waits for it.
func (d *deadLetters) recount(now time.Time) {
	d.mu.Lock()
	added, due := d.added, d.adding == 0 && now.Sub(d.counted) >= recountInterval
	if due {
		d.counted = now
	}
	d.mu.Unlock()
	if !due {
		return
	}
	files, bytes, err := d.look()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && d.adding == 0 && d.added == added {
		d.files, d.bytes = files, bytes
	}
}

// add returns when the letter is on disk.
func (d *deadLetters) add(item *Item, reason string) error {
	d.mu.Lock()
	d.adding++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.adding--
		d.added++
		d.mu.Unlock()
	}()
	text, err := json.MarshalIndent(DeadLetter{
		ID: item.ID, Reason: reason, SHA256: hex.EncodeToString(item.SHA256[:]), KeyID: item.KeyID, Service: item.Service,
		ContentType: item.ContentType, Received: item.Received.UTC(), Body: item.Body,
	}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir, fmt.Sprintf("%s.%d.json", strings.ReplaceAll(item.ID, "/", "_"), item.Received.UnixNano()))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(text, '\n')); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d.mu.Lock()
	d.files++
	d.bytes += int64(len(text)) + 1
	d.mu.Unlock()
	return syncFolder(d.dir)
}

func (d *deadLetters) size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

func (d *deadLetters) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files
}
