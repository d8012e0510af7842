package controlplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/topology/store/embedded"
)

// TestTokensAfterRestore puts an etcd of a lower revision in the place of the one that is followed, as a restored backup does: a token that
// it does not have is good no more.
func TestTokensAfterRestore(t *testing.T) {
	t.Parallel()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { etcd.Close() }()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 20 {
		if _, err := client.Put(t.Context(), "/other", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	tokens := NewTokens(client, "/isochrone/")
	made, err := tokens.Create(t.Context(), TokenRequest{Name: "alice", Role: Viewer}, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = tokens.Follow(ctx, nil) })
	eventually := func(what string, check func(error) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; <-time.After(5 * time.Millisecond) {
			_, err := tokens.Authenticate(made.Secret)
			if check(err) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	eventually("the token is good", func(err error) bool { return err == nil })
	etcd.Close()
	at := strings.TrimPrefix(etcd.Endpoint(), "http://")
	if etcd, err = embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: at}); err != nil {
		t.Fatal(err)
	}
	eventually("a token that is not stored is good no more", func(err error) bool { return errors.Is(err, ErrUnauthorized) })
}
