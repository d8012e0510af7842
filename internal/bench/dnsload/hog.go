package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	hogCommand = "idlehog"
	hogWords   = 2
)

// hog is the file that an idlehog shares with us: word 0 is 1 while it shall run, word 1 the nanoseconds that it got.
type hog struct{ words *[hogWords]atomic.Uint64 }

// openHog opens a hog's file; there is none for an empty path, and a nil hog does nothing.
func openHog(path string) (*hog, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size := int(unsafe.Sizeof([hogWords]atomic.Uint64{}))
	if info, err := file.Stat(); err != nil || info.Size() < int64(size) {
		return nil, fmt.Errorf("%s is no file of an idlehog", path)
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &hog{(*[hogWords]atomic.Uint64)(unsafe.Pointer(&memory[0]))}, nil // mapped until the process ends
}

// run lets the hog run, or rest.
func (h *hog) run(on bool) {
	if h == nil {
		return
	}
	if !on {
		h.words[0].Store(0)
		return
	}
	h.words[0].Store(1)
	// It sleeps in futex(FUTEX_WAIT) on the word's lower half.
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.words[0])), futexWake, 1, 0, 0, 0)
}

const futexWake = 1 // FUTEX_WAKE, see futex(2)

// got returns the time that the hog has had the core.
func (h *hog) got() time.Duration {
	if h == nil {
		return 0
	}
	return time.Duration(h.words[1].Load())
}
