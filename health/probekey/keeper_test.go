package probekey

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/sealed/keeper"
	"github.com/isochrone/isochrone/topology/store"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

func role(t *testing.T) ([]age.Identity, string) {
	t.Helper()
	text, recipient, err := sealed.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	identities, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return identities, recipient
}

// TestKeeper has the leader make a key once, seal it for those that there are, and make another when it is revoked.
func TestKeeper(t *testing.T) {
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var log bytes.Buffer
	control, _ := role(t)
	pops, toPoPs := role(t)
	s := store.New(client, "/isochrone/")
	k := newKeeper(s, control, nil, slog.New(slog.NewTextHandler(&log, nil)), time.Millisecond)
	once := func(k *keeper.Keeper) (*topology.Sealed, string) {
		t.Helper()
		if err := k.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		stored, _, err := s.Sealed(t.Context(), Secret)
		if err != nil {
			t.Fatal(err)
		}
		key, err := sealed.Open(Secret, stored, control)
		if err != nil {
			t.Fatal(err)
		}
		return stored, string(key)
	}
	lookup := func(key string) *topology.Key {
		t.Helper()
		snap, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id, _ := topology.KeyID(key)
		return snap.Keys.Lookup(id)
	}
	_, made := once(k)
	if record := lookup(made); record == nil || !record.Probe || !record.Matches(made, time.Now()) {
		t.Errorf("the store has %+v", record)
	}
	k.Recipients = []string{toPoPs}
	for range 2 {
		stored, key := once(k)
		opened, err := sealed.Open(Secret, stored, pops)
		if key != made || err != nil || string(opened) != made || len(stored.Recipients) != 2 || !slices.Contains(stored.Recipients, toPoPs) {
			t.Errorf("got another key, or none for PoPs: %v", err)
		}
	}
	others, _ := role(t)
	if _, key := once(NewKeeper(s, others, nil, k.Log)); key != made {
		t.Error("what cannot be opened was replaced")
	}
	id, _ := topology.KeyID(made)
	if _, err := s.DeleteKey(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	_, next := once(k)
	if record := lookup(next); next == made || record == nil || !record.Probe {
		t.Errorf("after the key was revoked, the store has %+v", record)
	}
	if text := log.String(); !strings.Contains(text, "cannot be opened here") || strings.Contains(text, made) || strings.Contains(text, next) {
		t.Errorf("the log says %s", text)
	}
}
