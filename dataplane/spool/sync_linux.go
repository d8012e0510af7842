package spool

import (
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
