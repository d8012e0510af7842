package spool

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSyncAsksTheDisk syncs what cannot be synced, a pipe: the file system is really asked, and its error is told.
func TestSyncAsksTheDisk(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := (diskFile{w}).Sync(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v, want EINVAL", err)
	}
}
