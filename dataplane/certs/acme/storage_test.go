package acme

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

func identities(t *testing.T) []age.Identity {
	t.Helper()
	text, _, err := sealed.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	made, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestStorage(t *testing.T) {
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close) // after the clients are closed
	connect := func() *clientv3.Client {
		client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
	key := identities(t)
	one, two := &Storage{Client: connect(), Root: "/isochrone/", Identities: key}, &Storage{Client: connect(), Root: "/isochrone", Identities: key}
	t.Run("values", func(t *testing.T) { values(t, one, two) })
	t.Run("locks", func(t *testing.T) { locks(t, one, two) })
}

func values(t *testing.T, one, two *Storage) {
	ctx, secret := t.Context(), []byte("-----BEGIN PRIVATE KEY-----")
	for key, value := range map[string][]byte{
		"acme/ca/users/a@b.c/a.key": secret, "acme/ca/users/a@b.c/a.json": []byte("{}"), "certificates/ca/x/x.crt": {}, "top": secret,
	} {
		if err := one.Store(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		if got, err := two.Load(ctx, key); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%s: got %q, %v", key, got, err)
		}
	}
	for _, test := range []struct {
		path      string
		recursive bool
		want      []string
	}{
		{"acme", false, []string{"acme/ca"}},
		{"acme/ca/users/a@b.c", false, []string{"acme/ca/users/a@b.c/a.json", "acme/ca/users/a@b.c/a.key"}},
		{"certificates", true, []string{"certificates/ca", "certificates/ca/x", "certificates/ca/x/x.crt"}},
		{"", false, []string{"acme", "certificates", "top"}},
	} {
		if got, err := one.List(ctx, test.path, test.recursive); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("list %q: got %v, %v, want %v", test.path, got, err, test.want)
		}
	}
	if info, err := one.Stat(ctx, "top"); err != nil || !info.IsTerminal || time.Since(info.Modified) > time.Minute {
		t.Errorf("stat: got %+v, %v", info, err)
	}
	if info, err := one.Stat(ctx, "acme/ca"); err != nil || info.IsTerminal {
		t.Errorf("stat of a folder: got %+v, %v", info, err)
	}
	all, err := one.Client.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if bytes.Contains(kv.Value, secret) || !bytes.Contains(kv.Value, []byte("AGE ENCRYPTED")) {
			t.Errorf("%s is not sealed", kv.Key)
		}
	}
	stranger := &Storage{Client: one.Client, Root: one.Root, Identities: identities(t)}
	if got, err := stranger.Load(ctx, "top"); !errors.Is(err, sealed.ErrNotOurs) {
		t.Errorf("with another key: got %q, %v", got, err)
	}
	moved, err := one.Client.Get(ctx, one.at("top")) // by who can write to etcd
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Client.Put(ctx, one.at("moved"), string(moved.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	if got, err := one.Load(ctx, "moved"); err == nil {
		t.Errorf("a value of another key: got %q", got)
	}
	if err := one.Delete(ctx, "acme"); err != nil || two.Exists(ctx, "acme/ca/users/a@b.c/a.key") || !two.Exists(ctx, "top") {
		t.Errorf("a folder was not deleted, or more than it: %v", err)
	}
	if _, err := two.Load(ctx, "acme/ca/users/a@b.c/a.key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is none", err)
	}
	if err := one.Delete(ctx, "never there"); err != nil {
		t.Error(err)
	}
}

// locks has two control planes want the same lock.
func locks(t *testing.T, one, two *Storage) {
	ctx := t.Context()
	if err := one.Lock(ctx, "issue_x"); err != nil {
		t.Fatal(err)
	}
	if got, err := two.TryLock(ctx, "issue_x"); got || err != nil {
		t.Errorf("a lock that another has: got %v, %v", got, err)
	}
	impatient, cancel := context.WithCancel(ctx)
	given := make(chan error, 1)
	go func() { given <- two.Lock(impatient, "issue_x") }()
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up waiting gets %v", err)
	}
	go func() { given <- two.Lock(ctx, "issue_x") }()
	select {
	case err := <-given:
		t.Fatalf("two have the lock: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := one.Unlock(ctx, "issue_x"); err != nil {
		t.Fatal(err)
	}
	if err := <-given; err != nil {
		t.Fatal(err)
	}
	if err := one.Unlock(ctx, "issue_x"); err == nil {
		t.Error("what is not locked here was unlocked")
	}
	two.mu.Lock()
	held := two.locks["issue_x"]
	two.mu.Unlock()
	held.session.Orphan() // it dies, and its lease is revoked in place of running out
	if _, err := one.Client.Revoke(ctx, held.session.Lease()); err != nil {
		t.Fatal(err)
	}
	if got, err := one.TryLock(ctx, "issue_x"); !got || err != nil {
		t.Errorf("the lock of one who died: got %v, %v", got, err)
	}
	if err := one.Unlock(ctx, "issue_x"); err != nil {
		t.Fatal(err)
	}
}
