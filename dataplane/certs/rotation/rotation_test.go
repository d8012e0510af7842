package rotation

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane/certs"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology/sealed"
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

func TestRotation(t *testing.T) {
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
	control, _ := role(t)
	pop, toPoP := role(t)
	var log bytes.Buffer
	now := time.Now()
	s := store.New(client, "/isochrone/")
	r := rotating(s, control, []string{toPoP}, slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	keys := func(identities []age.Identity) certs.Generations {
		t.Helper()
		stored, _, err := s.Sealed(t.Context(), Secret)
		if err != nil {
			t.Fatal(err)
		}
		text, err := sealed.Open(Secret, stored, identities)
		if err != nil {
			t.Fatal(err)
		}
		g, err := certs.ParseGenerations(text)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	once := func() certs.Generations {
		t.Helper()
		if err := r.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		return keys(pop)
	}
	first := once()
	now = now.Add(certs.RotationPeriod - time.Minute)
	if got := once(); got != first {
		t.Error("rotated before it was due")
	}
	now = now.Add(2 * time.Minute)
	second := once()
	if second.Current != first.Next || second.Previous != first.Current || second.Next == first.Next {
		t.Error("not rotated when it was due")
	}

	// Two leaders for a moment: one of them rotates.
	now = now.Add(certs.RotationPeriod)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := rotating(s, control, []string{toPoP}, nil, func() time.Time { return now }).Once(t.Context()); err != nil && !errors.Is(err, store.ErrConflict) {
				t.Error(err)
			}
		})
	}
	both.Wait()
	third := keys(control)
	if third.Current != second.Next {
		t.Error("two leaders have rotated twice")
	}

	// Another role of PoPs, and one that cannot open what there is.
	other, toOther := role(t)
	r.Recipients = []string{toOther}
	if once := r.Once(t.Context()); once != nil || keys(other) != third {
		t.Errorf("sealed for others: %v", once)
	}
	r.Identities = other
	r.Recipients = []string{toPoP}
	if got := once(); got != third {
		t.Error("made anew though it can be opened")
	}
	r.Identities, _ = role(t)
	if got := once(); got.Current == third.Current {
		t.Error("keys that cannot be opened are still there")
	}

	all, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if bytes.Contains(kv.Value, first.Marshal()[60:]) || bytes.Contains(kv.Value, []byte(`"current"`)) {
			t.Errorf("%s has keys in clear", kv.Key)
		}
	}
	if strings.Contains(log.String(), "current") {
		t.Errorf("keys were logged: %s", &log)
	}
}
