package spool

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// crashDisk is a disk in memory that can fail and crash. A crash loses what was not synced: the content of files, and
// separately their names. Folders share what they are in.
type crashDisk struct {
	*crashWorld
	under string // what the names of this folder begin with
}

type crashWorld struct {
	mu                  sync.Mutex
	rng                 *rand.Rand
	names, durable      map[string]*crashFile
	changes             []nameChange // that are not durable
	failSync, failWrite bool
	noSync, noNames     bool // Sync and SyncNames do nothing: what a crash then loses must be noticed
	steps               int  // done so far
	crashAt             int  // the step that a crash comes before or in; 0 for none
	crashed             bool
}

// nameChange is the creation, renaming or removal of a file.
type nameChange struct {
	old, new string // empty for none
	file     *crashFile
}

type crashFile struct {
	disk   *crashWorld
	data   []byte
	synced int
}

// survival is what a crash leaves of that which was not synced.
type survival int

const (
	nothing    survival = iota
	everything          // as when only the process has ended
	anything            // an arbitrary part, and sectors that are half written
)

func newCrashDisk(seed uint64) *crashDisk {
	return &crashDisk{crashWorld: &crashWorld{
		rng: rand.New(rand.NewPCG(seed, 1)), names: map[string]*crashFile{}, durable: map[string]*crashFile{},
	}}
}

var (
	errDisk  = errors.New("input/output error")
	errCrash = errors.New("the machine has crashed")
)

// crash ends a life.
func (d *crashWorld) crash(left survival) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.changes {
		if left == everything || left == anything && d.rng.IntN(2) == 0 {
			if c.old != "" && d.durable[c.old] == c.file {
				delete(d.durable, c.old)
			}
			if c.new != "" {
				d.durable[c.new] = c.file
			}
		}
	}
	d.names, d.changes = map[string]*crashFile{}, nil
	for name, f := range d.durable {
		d.names[name] = f
		kept := f.synced
		switch left {
		case everything:
			kept = len(f.data)
		case anything:
			kept += d.rng.IntN(len(f.data) - f.synced + 1)
		}
		whole := f.data
		f.data = slices.Clone(f.data[:kept])
		if left == anything && kept > f.synced && d.rng.IntN(2) == 0 { // the last sector is not what was written
			for i := max(f.synced, (kept-1)/512*512); i < kept; i++ {
				f.data[i] = byte(d.rng.IntN(2)) * whole[i]
			}
		}
		f.synced = len(f.data)
	}
	d.crashed, d.crashAt, d.steps = false, 0, 0
}

// step counts what could be the last thing that is done. The caller holds mu.
func (d *crashWorld) step() error {
	d.steps++
	if d.crashed || d.steps == d.crashAt {
		d.crashed = true
		return errCrash
	}
	return nil
}

func (d *crashWorld) count(suffix string) (n int) {
	for name := range d.names {
		if strings.HasSuffix(name, suffix) {
			n++
		}
	}
	return n
}

func (d *crashDisk) Sub(name string) disk { return &crashDisk{d.crashWorld, d.under + name + "/"} }

func (d *crashDisk) Create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[d.under+name] != nil {
		return nil, fs.ErrExist
	}
	if err := d.step(); err != nil {
		return nil, err
	}
	f := &crashFile{disk: d.crashWorld}
	d.names[d.under+name] = f
	d.changes = append(d.changes, nameChange{"", d.under + name, f})
	return f, nil
}

func (d *crashDisk) Open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.names[d.under+name]; f != nil {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

func (d *crashDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name := range d.names {
		if rest, ok := strings.CutPrefix(name, d.under); ok && !strings.Contains(rest, "/") {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *crashDisk) Rename(old, new string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	f := d.names[d.under+old]
	if f == nil {
		return fs.ErrNotExist
	}
	delete(d.names, d.under+old)
	d.names[d.under+new] = f
	d.changes = append(d.changes, nameChange{d.under + old, d.under + new, f})
	return nil
}

func (d *crashDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	f := d.names[d.under+name]
	if f == nil {
		return fs.ErrNotExist
	}
	delete(d.names, d.under+name)
	d.changes = append(d.changes, nameChange{d.under + name, "", f})
	return nil
}

func (d *crashDisk) SyncNames() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil || d.noNames {
		return err
	}
	in := func(name string) bool {
		rest, ok := strings.CutPrefix(name, d.under)
		return ok && name != "" && !strings.Contains(rest, "/")
	}
	d.changes = slices.DeleteFunc(d.changes, func(c nameChange) bool {
		if !in(c.old) && !in(c.new) {
			return false
		}
		if c.old != "" && d.durable[c.old] == c.file {
			delete(d.durable, c.old)
		}
		if c.new != "" {
			d.durable[c.new] = c.file
		}
		return true
	})
	return nil
}

func (d *crashDisk) Changed() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(d.steps) + 1, nil
}

func (f *crashFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.disk.step()
	if f.disk.failWrite {
		err = errDisk
	}
	if err != nil {
		n := 0
		if f.disk.failWrite || f.disk.steps == f.disk.crashAt { // a part may have been written
			n = f.disk.rng.IntN(len(p) + 1)
		}
		f.data = append(f.data, p[:n]...)
		return n, err
	}
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *crashFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	if f.disk.failSync {
		return errDisk
	}
	if !f.disk.noSync {
		f.synced = len(f.data)
	}
	return nil
}

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(p, off)
}

func (f *crashFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.crashed {
		return errCrash
	}
	if size < int64(len(f.data)) { // never asked for where a write has not failed
		f.data = f.data[:size]
		f.synced = min(f.synced, len(f.data))
	}
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *crashFile) Reserve(int64) error { return nil }
func (f *crashFile) Close() error        { return nil }
