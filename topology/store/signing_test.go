package store

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// signing returns a valid signing; its two keys are those of RFC 8080 section 6.1 and the generator of the curve.
func signing() *topology.Signing {
	s := &topology.Signing{Schema: 1, Keys: []topology.SigningKey{
		{Role: topology.KSK, Algorithm: topology.ED25519, State: topology.KeyActive, Public: "l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4="},
		{Role: topology.ZSK, Algorithm: topology.ED25519, State: topology.KeyActive, Public: "zPnZ/QwEe7S8C5SPz2OfS5RR40ATk2/rYnE9xHIEijs="},
	}}
	for i := range s.Keys {
		s.Keys[i].Tag = s.Keys[i].DNSKEY("example.net", 0).KeyTag()
	}
	return s
}

func TestSigningIsComparedAndFollowed(t *testing.T) {
	s, client := open(t)
	f := follow(t, s)
	f.until("the example world", func(snap *topology.Snapshot) bool { return len(snap.Topology.PoPs) == 6 })
	if _, _, err := s.Signing(t.Context(), "example.net"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, err := s.PutSigning(t.Context(), "example.net", signing(), 7, "a"); !errors.Is(err, ErrConflict) {
		t.Errorf("a base of nothing: got %v, want ErrConflict", err)
	}
	first, err := s.PutSigning(t.Context(), "example.net", signing(), 0, "a")
	if err != nil {
		t.Fatal(err)
	}
	f.until("the keys", func(snap *topology.Snapshot) bool { return len(snap.Signing) == 1 && snap.Signed == first })
	if _, err := s.PutSigning(t.Context(), "example.net", signing(), 0, "a"); !errors.Is(err, ErrConflict) {
		t.Errorf("a second first one: got %v, want ErrConflict", err)
	}
	got, base, err := s.Signing(t.Context(), "example.net")
	if err != nil || base != first || len(got.Keys) != 2 {
		t.Fatalf("got %+v at %d, %v", got, base, err)
	}
	spoiled := signing()
	spoiled.Keys[0].Tag++
	if _, err := s.PutSigning(t.Context(), "example.net", spoiled, base, "a"); !errors.Is(err, topology.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	got.Keys = append(got.Keys, got.Keys[1])
	got.Keys[2].Public, got.Keys[2].State = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", topology.KeyPublished
	got.Keys[2].Tag = got.Keys[2].DNSKEY("example.net", 0).KeyTag()
	second, err := s.PutSigning(t.Context(), "example.net", got, base, "ops@example")
	if err != nil {
		t.Fatal(err)
	}
	f.until("the third key", func(snap *topology.Snapshot) bool {
		return len(snap.Signing["example.net"].Keys) == 3 && snap.Signed == second
	})
	if _, err := s.DeleteSigning(t.Context(), "example.net", base, "a"); !errors.Is(err, ErrConflict) {
		t.Errorf("a deletion of what has changed: got %v", err)
	}
	audit, err := client.Get(t.Context(), "/isochrone/audit/", clientv3.WithLastKey()...)
	if err != nil || len(audit.Kvs) != 1 {
		t.Fatal(audit, err)
	}
	for _, want := range []string{"author: ops@example", "action: put", "dnssec/example.net"} {
		if entry := string(audit.Kvs[0].Value); !strings.Contains(entry, want) {
			t.Errorf("the audit has no %q:\n%s", want, entry)
		}
	}
	if _, err := s.DeleteSigning(t.Context(), "example.net", second, "a"); err != nil {
		t.Error(err)
	}
	f.until("no keys", func(snap *topology.Snapshot) bool { return len(snap.Signing) == 0 })
}

// TestSigningOutlivesARestart follows a store whose signing is broken, with what was saved before.
func TestSigningOutlivesARestart(t *testing.T) {
	s, client := open(t)
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	revision, err := s.PutSigning(t.Context(), "example.net", signing(), 0, "a")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, Change{Put: pop("sin1", draining)})
	if last, err := s.Read(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		last.Signed = revision // as a follower that saw it come has it
		if err := Save(path, last); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Put(t.Context(), "/isochrone/dnssec/example.net", "schema: 1\nkeys: [{tag: 1}]\n"); err != nil {
		t.Fatal(err)
	}
	last, err := Load(path)
	if err != nil || last.Signed != revision || len(last.Signing) != 1 {
		t.Fatalf("got %+v, %v, want what was saved", last, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first *topology.Snapshot
	_ = s.Follow(ctx, last, func(snap *topology.Snapshot) { first = snap; cancel() })
	if first == nil || first.Signing["example.net"] == nil || first.Signed != revision || len(first.Ignored) == 0 {
		t.Errorf("got %+v, want the saved signing in force and the faults of the stored one", first)
	}
}
