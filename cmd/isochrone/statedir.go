package main

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// stateDir is the folder of one machine's state; these are the places in it. Files with secrets have mode 0600.
//
//	lock            held by "isochrone up"
//	last-good.yaml  the last good topology, with overrides and keys (as hashes)
//	up.json         how commands find it, while it runs
//	dns/            a DNS node's lock, its last good topology, and in geo/ its copies of the files that clients are placed by
//	dnssec-keys/    private keys of signed zones
//	etcd/           the embedded etcd's data and log
//	ca.pem          the development CA's certificate; ca-key.pem is its key
//	api.token       a token of the control API, of the role admin
//	api.key         the example world's API key
//	probe.key       the key of the health checker's probes
//	secrets.key     the key of sealed secrets, of an "isochrone up" that gets certificates by ACME
//	service.secret  the key of the request ids' HMAC
//	peers.secret    by which PoPs know each other that share this folder
//	clusters/NAME/  a reference cluster's log of envelopes, and its token
//	pops/NAME/      a PoP's spool
type stateDir string

func (d stateDir) path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// lock takes the folder, creating it where it is missing, until the returned function is called or the process ends.
func (d stateDir) lock(elements ...string) (unlock func(), err error) {
	file, err := d.lockFile(elements...)
	if err != nil {
		return nil, err
	}
	return func() { file.Close() }, nil
}

// lockFile takes the folder as lock does, until the file is closed here and in each process that it was passed to.
func (d stateDir) lockFile(elements ...string) (*os.File, error) {
	path := d.path(append(elements, "lock")...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s is in use by another isochrone: end that one, or choose another folder with --dir", filepath.Dir(path))
	}
	return file, nil
}

// secret reads a file with a secret, and makes it of 160 random bits where it is missing.
func (d stateDir) secret(elements ...string) (string, error) {
	value, err := d.read(elements...)
	if !errors.Is(err, fs.ErrNotExist) {
		return value, err
	}
	random := make([]byte, 20)
	rand.Read(random)
	value = strings.ToLower(base32.StdEncoding.EncodeToString(random))
	return value, writeSecret(d.path(elements...), value)
}

// writeSecret writes a file that its owner alone can read, whole or not at all.
func writeSecret(path, value string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", []byte(value+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// read reads a file with a secret.
func (d stateDir) read(elements ...string) (string, error) {
	text, err := os.ReadFile(d.path(elements...))
	return strings.TrimSpace(string(text)), err
}
