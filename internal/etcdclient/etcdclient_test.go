package etcdclient

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestComesBackSoon has an etcd that hangs up on everybody. It is tried again so often that hardly anything is lost once it does not: the
// pauses do not grow beyond three seconds, as they would to two minutes.
func TestComesBackSoon(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{}, 64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
			tried <- struct{}{}
		}
	}()
	defer listener.Close()
	client, err := Connect(clientv3.Config{Endpoints: []string{"http://" + listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { _, _ = client.Get(ctx, "key") }) // connects
	defer asking.Wait()
	defer cancel()
	const tries = 7 // after 0.2+0.3+0.5+0.8+1.3+2.1 s, and not 1+1.6+2.6+4.1+6.6+10.5 s
	late := time.After(15 * time.Second)
	for i := range tries {
		select {
		case <-tried:
		case <-late:
			t.Fatalf("tried %d times in 15 s, want %d", i, tries)
		}
	}
}
