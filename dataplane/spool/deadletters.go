package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// deadLetters is a folder of envelopes that a cluster has refused for good, one JSON file each. An operator may read, send
// again and remove them. One whose name ends in ".replay" is to be put back into the queue; ".new" is one that a crash has kept
// from being written.
type deadLetters struct {
	disk disk
	log  *slog.Logger

	mu      sync.Mutex
	files   int
	bytes   int64
	counted time.Time // when the files were counted last
	adding  int       // letters that are being written
	added   int       // letters that have been
	changed int64     // of the folder, when it was last searched for what to replay
}

// The ends of names of dead letters.
const (
	letterSuffix  = ".json"
	replaySuffix  = ".replay"
	damagedSuffix = ".damaged"
	newSuffix     = ".new"
)

// DeadLetter is the content of such a file.
type DeadLetter struct {
	ID          string    `json:"id"`
	Reason      string    `json:"reason"`
	SHA256      string    `json:"sha256"`
	KeyID       string    `json:"key_id"`
	Service     string    `json:"service"`
	ContentType string    `json:"content_type"`
	Window      int64     `json:"window"`
	Traceparent string    `json:"traceparent,omitempty"`
	Received    time.Time `json:"received"`
	Buried      time.Time `json:"buried"`
	Body        []byte    `json:"body"` // base64
}

// Envelope returns what the letter was made of.
func (l *DeadLetter) Envelope() (*Envelope, error) {
	e := &Envelope{
		ID: l.ID, KeyID: l.KeyID, Service: l.Service, ContentType: l.ContentType, Window: l.Window, Traceparent: l.Traceparent,
		Received: l.Received, Body: l.Body, SHA256: sha256.Sum256(l.Body),
	}
	if l.ID == "" || l.SHA256 != hex.EncodeToString(e.SHA256[:]) {
		return nil, fmt.Errorf("dead letter %.80q: its SHA-256 is not that of its body", l.ID)
	}
	return e, nil
}

func parseLetter(text []byte) (*DeadLetter, error) {
	letter := new(DeadLetter)
	if err := json.Unmarshal(text, letter); err != nil {
		return nil, err
	}
	return letter, nil
}

func openDeadLetters(d disk, log *slog.Logger) (*deadLetters, error) {
	l := &deadLetters{disk: d, log: log}
	names, err := d.List() // makes the folder
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, newSuffix) {
			if err := d.Remove(name); err != nil {
				return nil, err
			}
		}
	}
	l.files, l.bytes, err = l.look()
	return l, err
}

// look counts the files.
func (d *deadLetters) look() (files int, bytes int64, err error) {
	names, err := d.disk.List()
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		size, err := d.sizeOf(name)
		if err != nil {
			continue // removed meanwhile
		}
		files++
		bytes += size
	}
	return files, bytes, nil
}

func (d *deadLetters) sizeOf(name string) (int64, error) {
	f, err := d.disk.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size()
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

// letterName returns a name for the dead letter of an envelope.
func letterName(e *Envelope) string {
	return fmt.Sprintf("%s.%d%s", strings.ReplaceAll(e.ID, "/", "_"), e.Received.UnixNano(), letterSuffix)
}

// add returns when the letter is on disk.
func (d *deadLetters) add(e *Envelope, reason string) error {
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
		ID: e.ID, Reason: reason, SHA256: hex.EncodeToString(e.SHA256[:]), KeyID: e.KeyID, Service: e.Service,
		ContentType: e.ContentType, Window: e.Window, Traceparent: e.Traceparent, Received: e.Received.UTC(), Buried: time.Now().UTC(),
		Body: e.Body,
	}, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err := d.store(letterName(e), text); err != nil {
		return err
	}
	d.mu.Lock()
	d.files++
	d.bytes += int64(len(text))
	d.mu.Unlock()
	return nil
}

// store writes a file that is there whole or not at all.
func (d *deadLetters) store(name string, text []byte) error {
	beginning := name + newSuffix
	f, err := d.disk.Create(beginning)
	if errors.Is(err, fs.ErrExist) { // of an attempt that has failed
		if err := d.disk.Remove(beginning); err != nil {
			return err
		}
		f, err = d.disk.Create(beginning)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, d.disk.Remove(beginning))
	}
	if err := d.disk.Rename(beginning, name); err != nil {
		return err
	}
	return d.disk.SyncNames()
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
