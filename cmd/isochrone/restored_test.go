//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/isochrone/isochrone/internal/intakeclient"
)

// scarceQuota is the quota of the key that must not be admitted again after etcd has lost its data.
const scarceQuota = 20

// spend posts with the scarce key until it is refused, and returns how many posts were accepted.
func (w *pairWorld) spend(dir string) (accepted int) {
	w.Helper()
	roots, err := readRoots(filepath.Join(dir, "ca.pem"))
	if err != nil {
		w.Fatal(err)
	}
	client := intakeclient.New(intakeclient.Config{Roots: roots, HandshakeTimeout: time.Second})
	defer client.Close()
	subnet, err := clientSubnet("singapore")
	if err != nil {
		w.Fatal(err)
	}
	p := &poster{key: w.scarce}
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(w.Context(), patience)
		_, err := p.post(ctx, client, &intakeclient.Resolver{Server: w.dns.DNS, Subnet: subnet}, fmt.Appendf(nil, `{"hash":"%d","sender":"s","amount":"1"}`, n))
		cancel()
		switch {
		case err == nil:
			accepted++
		case strings.HasPrefix(err.Error(), "429"):
			return accepted
		case n > 1000:
			w.Fatalf("the scarce key is not refused for its quota: %v", err)
		}
	}
}

// restores backs etcd up, destroys it, and restores it in place, while clients ask and post all the time. The whole of a minute's quota
// is used before: in that minute no more of it is to be had, and in the next one it is.
func (w *pairWorld) restores(dir string, goesOn func(what string)) {
	w.Helper()
	backup, etcd := filepath.Join(w.TempDir(), "backup"), strings.Join(w.etcd.Endpoints(), ",")
	mustRun(w.T, "backup", backup, "--etcd", etcd)
	before, err := w.store.Read(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if left := time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)); left < 30*time.Second {
		<-time.After(left + time.Second) // all that follows is to be in one minute
	}
	minute := time.Now().Truncate(time.Minute)
	if got := w.spend(dir); got == 0 || got > scarceQuota {
		w.Errorf("accepted %d of a quota of %d", got, scarceQuota)
	}
	w.etcd.Destroy(w.T)
	if err := w.edit(w.Context()); err == nil {
		w.Error("an edit without etcd succeeds")
	}
	w.etcd.Rebuild(w.T)
	if _, err := pairAnswer(w.dns.DNS); err != nil {
		w.Errorf("with an empty etcd: %v", err)
	}
	// A PoP that begins anew does not know what it was granted.
	w.pop.interrupt(w.T)
	w.pop = start(w.T, "PoP sin1", "pop", "sin1", "--dir", dir, "--etcd", etcd)
	early := w.spend(dir)
	w.pop.interrupt(w.T)
	mustRun(w.T, "restore", backup, "--etcd", etcd)
	w.takesEffect("after the backup was restored")
	w.pop = start(w.T, "PoP sin1", "pop", "sin1", "--dir", dir, "--etcd", etcd)
	again := w.spend(dir)
	if now := time.Now().Truncate(time.Minute); now.Equal(minute) {
		if early+again > 0 {
			w.Errorf("accepted %d more before the restoring and %d after it, in the same minute", early, again)
		}
	} else {
		w.Logf("the minute was over when the backup was restored: of quota it shows nothing")
	}
	eventuallyIn(w, "quota in the next minute", 2*time.Minute, func() error {
		if w.spend(dir) == 0 {
			return errors.New("still refused")
		}
		return nil
	})
	goesOn("after the backup was restored")
	after, err := w.store.Read(w.Context())
	if err != nil || after.KeysHash != before.KeysHash || len(after.Topology.PoPs) != len(before.Topology.PoPs) {
		w.Errorf("restored: %v, %v", after, err)
	}
	entries, err := w.store.History(w.Context(), 0, 1000)
	if err != nil || len(entries) < w.edits {
		w.Errorf("the history has %d entries of %d edits: %v", len(entries), w.edits, err)
	}
}

// eventuallyIn is eventually for what takes long.
func eventuallyIn(w *pairWorld, what string, within time.Duration, check func() error) {
	w.Helper()
	deadline := time.Now().Add(within)
	for err := check(); err != nil; err = check() {
		if time.Now().After(deadline) {
			w.Fatalf("%s: %v", what, err)
		}
		<-time.After(time.Second)
	}
}
