package peer

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
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

// TestKeeper has the leader make the secret once, and seal it for the PoPs that there are.
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
	k := NewKeeper(s, control, nil, slog.New(slog.NewTextHandler(&log, nil)))
	open := func(identities []age.Identity) []byte {
		t.Helper()
		stored, _, err := s.Sealed(t.Context(), Secret)
		if err != nil {
			t.Fatal(err)
		}
		text, err := sealed.Open(Secret, stored, identities)
		if err != nil && !errors.Is(err, sealed.ErrNotOurs) {
			t.Fatal(err)
		}
		return text
	}
	once := func(k *keeper.Keeper) {
		t.Helper()
		if err := k.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	once(k)
	made := open(control)
	if secrets, err := ParseSecrets(made); err != nil || len(secrets) != 1 || open(pops) != nil {
		t.Errorf("got %d secrets, %v", len(secrets), err)
	}
	k.Recipients = []string{toPoPs}
	for range 2 {
		once(k)
		if !bytes.Equal(open(control), made) || !bytes.Equal(open(pops), made) {
			t.Error("the secret is another one, or is not sealed for PoPs")
		}
	}
	stored, revision, err := s.Sealed(t.Context(), Secret)
	if err != nil || len(stored.Recipients) != 2 || !slices.Contains(stored.Recipients, toPoPs) {
		t.Errorf("got %+v, %v", stored, err)
	}
	others, _ := role(t)
	once(NewKeeper(s, others, nil, k.Log))
	if _, now, err := s.Sealed(t.Context(), Secret); err != nil || now != revision {
		t.Errorf("what cannot be opened was replaced: %v", err)
	}
	if !strings.Contains(log.String(), "cannot be opened here") || strings.Contains(log.String(), string(made)) {
		t.Errorf("the log says %s", &log)
	}
}
