//go:build linux

package etcdtest

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestCutOff cuts the leader off: the others elect another one and go on; it itself can write no more, until it has rejoined.
func TestCutOff(t *testing.T) {
	c := Start(t)
	old := c.Leader(t)
	var others []*Member
	for _, m := range c.Members {
		if m != old {
			others = append(others, m)
		}
	}
	alone, rest := c.NewClient(t, old), c.NewClient(t, others...)
	put := func(client *clientv3.Client, within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := client.Put(ctx, "k", "v")
		return err
	}
	if err := put(alone, patience); err != nil {
		t.Fatal(err)
	}
	old.CutOff()
	for deadline := time.Now().Add(patience); put(rest, time.Second) != nil; pause() {
		if time.Now().After(deadline) {
			t.Fatal("the others do not go on")
		}
	}
	if err := put(alone, 2*time.Second); err == nil {
		t.Error("the member that is cut off takes a write")
	}
	old.Rejoin()
	if err := put(alone, patience); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("after it has rejoined: %v", err)
	}
	killed := c.Leader(t)
	killed.Kill()
	if now := c.Leader(t); now == killed {
		t.Error("a killed member leads")
	}
	killed.Restart(t)
}
