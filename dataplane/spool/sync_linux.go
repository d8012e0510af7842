package spool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Sync waits until the file's content is on disk, and its size; times may come later.
func (f diskFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == unix.EINTR {
			continue
		}
		return os.NewSyscallError("fdatasync", err)
	}
}

// Reserve takes room without making the file longer. A file system that cannot is well too: then a write tells that it is full.
func (f diskFile) Reserve(bytes int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, bytes)
		switch {
		case err == unix.EINTR:
			continue
		case errors.Is(err, errors.ErrUnsupported):
			return nil
		}
		return os.NewSyscallError("fallocate", err)
	}
}
