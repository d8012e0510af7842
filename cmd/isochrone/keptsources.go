package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// keptSources are copies of the last good files that clients are placed by, in a folder. A nil one keeps nothing.
type keptSources struct {
	dir string
	log *slog.Logger
}

// sourceFile is one of the files, and what its copy is called.
type sourceFile struct {
	flag string
	path *string
}

func (f *sourceFlags) files() []sourceFile {
	return []sourceFile{{"geoip", &f.geo.Places}, {"geoip-asn", &f.geo.ASNs}, {"geo-table", &f.geo.Table}, {"rtt-csv", &f.rttCSV}}
}

// alone returns flags with one of the files and no other.
func (f *sourceFlags) alone(flag string) *sourceFlags {
	lone := *f
	for _, file := range lone.files() {
		if file.flag != flag {
			*file.path = ""
		}
	}
	return &lone
}

// keep copies the files of some flags, which were just read without a fault, unless one has been written since they had a version.
func (k *keptSources) keep(f sourceFlags, version string, flags []string) {
	if k == nil {
		return
	}
	unchanged := func() bool {
		places, pings := f.versions()
		return version == places || version == pings
	}
	for _, file := range f.files() {
		if *file.path == "" || !slices.Contains(flags, file.flag) {
			continue
		}
		if err := k.copy(*file.path, file.flag, unchanged); err != nil {
			k.log.Error("a file cannot be kept for a start without it", "flag", file.flag, "error", err)
		}
	}
}

// copy copies a file, whole or not at all, if it still is as it was. A copy of the same size and time is not made again.
func (k *keptSources) copy(path, name string, unchanged func() bool) error {
	source, err := os.Open(path)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	target := filepath.Join(k.dir, name)
	if have, err := os.Stat(target); err == nil && have.Size() == info.Size() && have.ModTime().Equal(info.ModTime()) {
		return nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	temporary, err := os.OpenFile(fmt.Sprintf("%s.%d.tmp", target, os.Getpid()), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(temporary, source)
	if closed := temporary.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Chtimes(temporary.Name(), info.ModTime(), info.ModTime())
	}
	if err != nil || !unchanged() {
		os.Remove(temporary.Name())
		return err
	}
	return os.Rename(temporary.Name(), target)
}

// load reads the files, those that are broken from their copies; one whose copy is broken too is done without.
func (k *keptSources) load(f sourceFlags) (*placing, error) {
	instead := map[string]string{}
	for _, file := range f.files() {
		if *file.path == "" {
			continue
		}
		_, broken := f.alone(file.flag).load()
		if broken == nil {
			continue
		}
		*file.path = filepath.Join(k.dir, file.flag)
		used := "the last good copy"
		if _, err := f.alone(file.flag).load(); err != nil {
			*file.path, used = "", "nothing"
			if file.flag == "geoip" {
				used = "the built-in database"
			}
		}
		instead[file.flag] = used
		k.log.Error("a file that clients are placed by is broken", "flag", file.flag, "used instead", used, "error", broken)
	}
	p, err := f.load()
	if err == nil {
		p.instead = instead
	}
	return p, err
}
