package spool

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is a folder of a spool. A test has another one that crashes.
type disk interface {
	Create(name string) (file, error) // a new file, whose name survives a crash once SyncNames has returned
	Open(name string) (file, error)   // to read, and to cut
	List() ([]string, error)
	Rename(old, new string) error
	Remove(name string) error
	SyncNames() error        // makes all that was created, renamed and removed survive a crash
	Sub(name string) disk    // a folder in this one
	Changed() (int64, error) // a number that is another one after names have changed
}

type file interface {
	io.Writer
	io.ReaderAt
	Sync() error               // makes all that was written survive a crash
	Reserve(bytes int64) error // takes room for a file of this length, where the file system can
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// create makes a file whose name is on disk.
func create(d disk, name string) (file, error) {
	f, err := d.Create(name)
	if err != nil {
		return nil, err
	}
	if err := d.SyncNames(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readFile returns the content of a file that is known to be small.
func readFile(d disk, name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, err
	}
	return data, nil
}

// folder is a disk on the file system.
type folder string

func (d folder) Create(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d folder) Open(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d folder) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, makeFolder(string(d))
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (d folder) Rename(old, new string) error {
	return os.Rename(filepath.Join(string(d), old), filepath.Join(string(d), new))
}

func (d folder) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }
func (d folder) SyncNames() error         { return syncFolder(string(d)) }
func (d folder) Sub(name string) disk     { return folder(filepath.Join(string(d), name)) }

func (d folder) Changed() (int64, error) {
	info, err := os.Stat(string(d))
	if err != nil {
		return 0, err
	}
	return info.ModTime().UnixNano(), nil
}

// makeFolder makes a folder whose name, and those of the folders above it that were missing, survive a crash.
func makeFolder(path string) error {
	parent := filepath.Dir(path)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

// syncFolder makes the names in a folder survive a crash.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
