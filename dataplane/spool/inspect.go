package spool

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Entry is an envelope or a dead letter in a spool's folder, as Inspect finds it.
type Entry struct {
	ID          string    `json:"id"`
	State       string    `json:"state"` // pending, dead-lettered, or to be replayed
	Service     string    `json:"service"`
	KeyID       string    `json:"key_id"`
	SHA256      string    `json:"sha256"`
	ContentType string    `json:"content_type"`
	Bytes       int       `json:"bytes"` // of the body
	Window      int64     `json:"window"`
	Traceparent string    `json:"traceparent,omitempty"`
	Received    time.Time `json:"received"`
	Buried      time.Time `json:"buried,omitzero"` // when it became a dead letter
	Reason      string    `json:"reason,omitempty"`
	File        string    `json:"file"` // in the spool's folder

	offset int64
	length int
}

// The states of an Entry.
const (
	EntryPending = "pending"
	EntryDead    = "dead-lettered"
	EntryReplay  = "to be replayed"
)

// Contents is what is in a spool's folder.
type Contents struct {
	Entries []Entry  // pending envelopes in the order of their acceptance, then dead letters
	Faults  []string // what could not be read
}

// Inspect reads a spool's folder and changes nothing in it. The PoP may run: then what it settles meanwhile, and a quarter of a second
// before, may still be told as pending. Progress, which may be nil, is called with the octets that are read, and of how many.
// Bodies are not kept in memory.
func Inspect(dir string, progress func(read, of int64)) (*Contents, error) {
	i := &inspection{dir: dir, found: map[uint64]Entry{}, progress: progress}
	if err := i.segments(); err != nil {
		return nil, err
	}
	if err := i.letters(); err != nil {
		return nil, err
	}
	return &i.Contents, nil
}

type inspection struct {
	Contents
	dir      string
	found    map[uint64]Entry
	progress func(read, of int64)
	read, of int64
}

func (i *inspection) fault(format string, arguments ...any) {
	i.Faults = append(i.Faults, fmt.Sprintf(format, arguments...))
}

func (i *inspection) segments() error {
	files, err := os.ReadDir(i.dir)
	if err != nil {
		return err
	}
	var names []string
	for _, f := range files {
		if _, ok := segmentNumber(f.Name()); ok {
			names = append(names, f.Name())
			if info, err := f.Info(); err == nil {
				i.of += info.Size()
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := i.segment(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	var order []uint64
	for seq := range i.found {
		order = append(order, seq)
	}
	slices.Sort(order)
	for _, seq := range order {
		i.Entries = append(i.Entries, i.found[seq])
	}
	return nil
}

func (i *inspection) segment(name string) error {
	opened, err := os.Open(filepath.Join(i.dir, name))
	if err != nil {
		return err
	}
	defer opened.Close()
	size, format, err := header(diskFile{opened})
	if err != nil || size < int64(segmentHeader) {
		return err
	}
	if format.version == 0 {
		i.fault("%s is no segment, or of a newer version", name)
		return nil
	}
	before := i.read
	lost, err := format.scan(opened, size, func(offset int64, content []byte) {
		seq := binary.BigEndian.Uint64(content[1:])
		switch content[0] {
		case kindEnvelope:
			if e, err := format.parseEnvelope(content[contentHeader:]); err == nil {
				i.found[seq] = entryOf(e, name, offset, len(content))
			}
		case kindSettled:
			delete(i.found, seq)
			for rest := content[contentHeader:]; len(rest) >= settledLength; rest = rest[settledLength:] {
				delete(i.found, binary.BigEndian.Uint64(rest))
			}
		}
		if i.progress != nil {
			i.progress(before+offset, i.of)
		}
	})
	i.read = before + size
	if lost > 0 {
		i.fault("%s has %d octets that are no record, as after a crash or while it is written", name, lost)
	}
	return err
}

func entryOf(e *Envelope, file string, offset int64, content int) Entry {
	return Entry{
		ID: e.ID, State: EntryPending, Service: e.Service, KeyID: e.KeyID, SHA256: hex.EncodeToString(e.SHA256[:]),
		ContentType: e.ContentType, Bytes: len(e.Body), Window: e.Window, Traceparent: e.Traceparent, Received: e.Received.UTC(),
		File: file, offset: offset, length: recordHeader + content,
	}
}

func (i *inspection) letters() error {
	dead := filepath.Join(i.dir, "dead")
	files, err := os.ReadDir(dead)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for n, f := range files {
		if i.progress != nil {
			i.progress(int64(n), int64(len(files)))
		}
		name := f.Name()
		replayed := strings.HasSuffix(name, replaySuffix)
		if !replayed && !strings.HasSuffix(name, letterSuffix) {
			if strings.HasSuffix(name, damagedSuffix) {
				i.fault("%s is damaged", filepath.Join("dead", name))
			}
			continue
		}
		text, err := os.ReadFile(filepath.Join(dead, name))
		if errors.Is(err, fs.ErrNotExist) { // put back meanwhile
			continue
		}
		var letter *DeadLetter
		if err == nil {
			letter, err = parseLetter(text)
		}
		if err != nil {
			i.fault("%s: %v", filepath.Join("dead", name), err)
			continue
		}
		entry := Entry{
			ID: letter.ID, State: EntryDead, Service: letter.Service, KeyID: letter.KeyID, SHA256: letter.SHA256,
			ContentType: letter.ContentType, Bytes: len(letter.Body), Window: letter.Window, Traceparent: letter.Traceparent,
			Received: letter.Received, Buried: letter.Buried, Reason: letter.Reason, File: filepath.Join("dead", name),
		}
		if replayed {
			entry.State = EntryReplay
		}
		i.Entries = append(i.Entries, entry)
	}
	return nil
}

// Body reads the body of an entry that Inspect has found in a folder, and checks that it has the SHA-256.
func (e *Entry) Body(dir string) ([]byte, error) {
	path := filepath.Join(dir, e.File)
	if e.State != EntryPending {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		letter, err := parseLetter(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		envelope, err := letter.Envelope()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return envelope.Body, nil
	}
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	f := diskFile{opened}
	_, format, err := header(f)
	if err != nil {
		return nil, err
	}
	envelope, err := (&segment{name: path, file: f, format: format}).read(e.offset, e.length)
	if err != nil {
		return nil, err
	}
	return envelope.Body, nil
}
