// Package privatefile reads and writes files with secrets: those that nobody but their owner may read.
package privatefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Read reads a file of at most so many octets. A file that others can read or write is refused, as is what is no regular file: to
// open a pipe would wait. Errors begin with what was tried or with the path, and do not tell what stands in the file.
func Read(path string, most int64) ([]byte, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat() // of what was opened, whatever has been put in its place meanwhile
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o, and so others can read it: want 0600 (chmod 600 %[1]s)", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(text)) > most:
		return nil, fmt.Errorf("%s has more than %d octets, which no file of this kind has", path, most)
	}
	return text, nil
}

// Write writes a file that its owner alone can read, whole or not at all, and its folder where that is missing.
func Write(path string, text []byte) error { return write(path, text, 0o600) }

// WritePublic writes a file that all may read as Write does.
func WritePublic(path string, text []byte) error { return write(path, text, 0o644) }

func write(path string, text []byte, mode os.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
