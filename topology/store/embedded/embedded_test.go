package embedded

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestDataOutlivesARestart(t *testing.T) {
	config := Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}
	for run := range 2 {
		etcd, err := Start(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Get(t.Context(), "key")
		if err != nil || len(got.Kvs) != run {
			t.Errorf("run %d: got %v, %v", run, got, err)
		}
		if _, err := client.Put(t.Context(), "key", "value"); err != nil {
			t.Error(err)
		}
		client.Close()
		etcd.Close()
		etcd.Close()
	}
}

func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Listen: l.Addr().String()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

// TestPortTakenMeanwhile has another process take the port that was free.
func TestPortTakenMeanwhile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tries := 0
	etcd, err := startFree(t.Context(), Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}, func(address string) (string, error) {
		if tries++; tries < 3 {
			return l.Addr().String(), nil
		}
		return freeAddress(address)
	})
	if err != nil || tries != 3 {
		t.Fatalf("got %v after %d tries", err, tries)
	}
	etcd.Close()
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	etcd, err := Start(ctx, Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err == nil { // it may be ready before it looks
		etcd.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func BenchmarkStart(b *testing.B) {
	config := Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"}
	for b.Loop() {
		etcd, err := Start(b.Context(), config)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		etcd.Close()
		b.StartTimer()
	}
}
