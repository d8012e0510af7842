package controlplane

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology/relay"
)

// TestMembers follows who is let in, renews, is turned out and comes back.
func TestMembers(t *testing.T) {
	r, clock := newRegistrar(t)
	ctx, cancel := context.WithCancel(t.Context())
	m := NewMembers(r.Etcd, r.Root, r.CA, clock.Now)
	joined, err := r.Join(ctx, invite(t, r, InviteRequest{Name: "sin1"}))
	if err != nil {
		t.Fatal(err)
	}
	first := certificateOf(t, joined)
	if err := m.Admit(first); !errors.Is(err, relay.ErrUnsure) {
		t.Errorf("before it runs: got %v, want %v", err, relay.ErrUnsure)
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = m.Run(ctx) })
	eventually := func(what string, check func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !check(); <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it does not come to pass: " + what)
			}
		}
	}
	eventually("it has joined", func() bool { return m.Admit(first) == nil })
	stored, err := r.Etcd.Get(ctx, "/isochrone/tokens/node/pop:sin1")
	if err != nil || len(stored.Kvs) != 1 {
		t.Fatal(stored, err)
	}
	record := string(stored.Kvs[0].Value)
	other, err := r.Join(ctx, invite(t, r, InviteRequest{Name: "fra1", Kind: "dns"}))
	if err != nil {
		t.Fatal(err)
	}
	eventually("another has joined", func() bool { return m.Admit(certificateOf(t, other)) == nil })

	shown := first
	for range 2 {
		clock.forward(30 * 24 * time.Hour)
		renewed, err := r.Renew(ctx, shown, csr(t))
		if err != nil {
			t.Fatal(err)
		}
		shown = certificateOf(t, renewed)
		if err := m.Admit(shown); err != nil { // whether its record has been read or not
			t.Errorf("a renewed certificate: %v", err)
		}
	}
	eventually("the certificate before the last is good no more", func() bool { return m.Admit(first) != nil })
	refuse(t, "the certificate before the last", m.Admit(first), ErrNotAdmitted, "newer")
	if _, err := r.Etcd.Put(ctx, "/isochrone/tokens/node/pop:sin1", record); err != nil { // of a backup
		t.Fatal(err)
	}
	eventually("the record is as it was", func() bool { return m.Admit(first) == nil })
	if err := m.Admit(shown); err != nil {
		t.Errorf("a certificate that is newer than the record: %v", err)
	}
	if err := r.Expel(ctx, "pop", "sin1", "alice"); err != nil {
		t.Fatal(err)
	}
	eventually("it is turned out", func() bool { return errors.Is(m.Admit(shown), ErrNotAdmitted) })
	again, err := r.Join(ctx, invite(t, r, InviteRequest{Name: "sin1"}))
	if err != nil {
		t.Fatal(err)
	}
	eventually("it is back", func() bool { return m.Admit(certificateOf(t, again)) == nil })
	clock.forward(91 * 24 * time.Hour)
	refuse(t, "one that has expired", m.Admit(certificateOf(t, again)), ErrNotAdmitted, "expired")
}
