//go:build !linux

package spool

// Sync waits until the file is on disk.
func (f diskFile) Sync() error { return f.File.Sync() }

// Reserve does nothing: a write tells that the file system is full.
func (f diskFile) Reserve(int64) error { return nil }
