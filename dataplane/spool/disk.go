package spool

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is the folder of a spool. A test has another one that crashes.
type disk interface {
	Create(name string) (file, error) // a new file, whose name survives a crash once its first Sync returns
	Open(name string) (file, error)   // to read
	List() ([]string, error)
	Remove(name string) error
}

type file interface {
	io.Writer
	io.ReaderAt
	Sync() error // makes all that was written survive a crash
	Size() (int64, error)
	Close() error
}

// folder is a disk on the file system.
type folder string

func (d folder) Create(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncFolder(string(d)); err != nil {
		f.Close()
		return nil, err
	}
	return diskFile{f}, nil
}

func (d folder) Open(name string) (file, error) {
	f, err := os.Open(filepath.Join(string(d), name))
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

func (d folder) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

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
