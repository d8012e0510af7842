package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// replay puts back into the queue the dead letters that are marked for that. A letter's file is removed when its envelope is on
// disk in the queue; a crash between the two costs a second delivery at most.
func (s *Spool) replay() {
	d := s.dead
	changed, err := d.disk.Changed()
	if err != nil || changed == d.changed {
		return
	}
	names, err := d.disk.List()
	if err != nil {
		d.log.Error("the folder of dead letters cannot be read", "error", err)
		return
	}
	left := false
	for _, name := range names {
		if !strings.HasSuffix(name, replaySuffix) {
			continue
		}
		if err := s.replayOne(name); err != nil {
			left = true // the next tick tries again
			d.log.Warn("a dead letter cannot be put back into the queue now", "file", name, "error", err)
			break
		}
	}
	if !left && time.Since(time.Unix(0, changed)) > time.Second { // so that no later change has the same time
		d.changed = changed
	}
}

func (s *Spool) replayOne(name string) error {
	d := s.dead
	size, err := d.sizeOf(name)
	if err != nil {
		return err
	}
	text, err := readFile(d.disk, name)
	if err != nil {
		return err
	}
	var e *Envelope
	letter, err := parseLetter(text)
	if err == nil {
		e, err = letter.Envelope()
	}
	if err != nil {
		d.log.Error("a dead letter is damaged, and is not put back", "file", name, "error", err)
		return d.disk.Rename(name, strings.TrimSuffix(name, replaySuffix)+damagedSuffix)
	}
	e.Replayed = time.Now()
	if known, ok := s.Lookup(e.ID); !ok || known.State != Pending || known.SHA256 != e.SHA256 {
		if err := s.append(e, nil, size); err != nil {
			return err
		}
	}
	if err := d.disk.Remove(name); err != nil {
		return err
	}
	d.mu.Lock()
	d.files--
	d.bytes -= size
	d.added++
	d.mu.Unlock()
	return d.disk.SyncNames()
}

// Replay marks a dead letter of a spool's folder to be put back into the queue: by the PoP within a second if it runs, else when
// it starts. The name is that of an Entry.
func Replay(dir, name string) error {
	dead := filepath.Join(dir, "dead")
	if !strings.HasSuffix(name, letterSuffix) || strings.ContainsAny(name, `/\`) {
		return errors.New("it is no dead letter's file")
	}
	if err := os.Rename(filepath.Join(dead, name), filepath.Join(dead, strings.TrimSuffix(name, letterSuffix)+replaySuffix)); err != nil {
		return err
	}
	return syncFolder(dead)
}
