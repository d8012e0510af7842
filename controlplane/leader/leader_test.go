package leader

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/topology/store/embedded"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

func start(t *testing.T, dir, listen string) *embedded.Etcd {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	return etcd
}

func connect(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// control is a control plane whose only task counts how many do it.
type control struct {
	client *clientv3.Client
	works  atomic.Bool
	terms  atomic.Int32
	stop   func()
}

func stand(t *testing.T, endpoint, name string, busy *atomic.Int32) *control {
	c := &control{client: connect(t, endpoint)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Candidate{Client: c.client, Prefix: "/isochrone", Name: name}, Task{"count", func(ctx context.Context) error {
			if n := busy.Add(1); n > 1 {
				t.Errorf("%d do the task at once", n)
			}
			c.works.Store(true)
			c.terms.Add(1)
			<-ctx.Done()
			c.works.Store(false)
			busy.Add(-1)
			return ctx.Err()
		}})
	}()
	c.stop = func() {
		cancel()
		if err, ok := <-done; ok && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		close(done)
		c.stop = func() {}
	}
	t.Cleanup(func() { c.stop() })
	return c
}

func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			t.Fatalf("in vain waited %v for %s", limit, what)
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Since(began)
}

func leads(t *testing.T, client *clientv3.Client) string {
	t.Helper()
	name, _, err := Leader(t.Context(), client, "/isochrone/")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLeadership(t *testing.T) {
	etcd := start(t, t.TempDir(), "127.0.0.1:0")
	var busy atomic.Int32
	client := connect(t, etcd.Endpoint())
	if name := leads(t, client); name != "" {
		t.Errorf("before all: %q leads", name)
	}
	first := stand(t, etcd.Endpoint(), "first", &busy)
	within(t, 10*time.Second, "a leader", first.works.Load)
	second := stand(t, etcd.Endpoint(), "second", &busy)
	within(t, 10*time.Second, "a second candidate", func() bool {
		there, err := client.Get(t.Context(), "/isochrone/leader/election/", clientv3.WithPrefix())
		return err == nil && len(there.Kvs) == 2
	})
	if name := leads(t, client); name != "first" || second.works.Load() {
		t.Errorf("%q leads, want first", name)
	}

	first.stop()
	if took := within(t, 10*time.Second, "the second to take over", second.works.Load); took > time.Second {
		t.Errorf("a resignation took %v", took)
	}
	if name := leads(t, client); name != "second" {
		t.Errorf("%q leads, want second", name)
	}

	// A kill: nothing more is heard of it, and its lease is not revoked. The task does not end there, so it is counted off here.
	third := stand(t, etcd.Endpoint(), "third", &busy)
	within(t, 10*time.Second, "a third candidate", func() bool {
		there, err := client.Get(t.Context(), "/isochrone/leader/election/", clientv3.WithPrefix())
		return err == nil && len(there.Kvs) == 2
	})
	second.client.Close()
	took := within(t, 10*time.Second, "the third to take over", third.works.Load)
	if t.Logf("a kill took %v", took); took > 5*time.Second {
		t.Errorf("a kill took %v, want 5 s at most", took)
	}
	if second.works.Load() {
		t.Error("who has lost contact still works")
	}

	// Somebody deletes the leader's key: it stands again.
	before := third.terms.Load()
	if _, err := client.Delete(t.Context(), "/isochrone/leader/election/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "a new term", func() bool { return third.terms.Load() > before && third.works.Load() })
}

func TestLeadershipOutlivesEtcd(t *testing.T) {
	dir := t.TempDir()
	etcd := start(t, dir, "127.0.0.1:0")
	endpoint := etcd.Endpoint()
	var busy atomic.Int32
	c := stand(t, endpoint, "only", &busy)
	within(t, 10*time.Second, "a leader", c.works.Load)
	etcd.Close()
	within(t, 5*time.Second, "the task to end without etcd", func() bool { return !c.works.Load() })
	start(t, dir, endpoint[len("http://"):])
	within(t, 20*time.Second, "a leader again", c.works.Load)
	if c.terms.Load() < 2 {
		t.Errorf("got %d terms, want 2", c.terms.Load())
	}
}

func TestTasksAreRunAgain(t *testing.T) {
	etcd := start(t, t.TempDir(), "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	runs := 0
	err := Run(ctx, Candidate{Client: connect(t, etcd.Endpoint()), Prefix: "/isochrone/", Name: "n"},
		Every(time.Millisecond, "fails at first", func(context.Context) error {
			if runs++; runs == 1 {
				return errors.New("at first")
			}
			if runs == 5 {
				cancel()
			}
			return nil
		}))
	if !errors.Is(err, context.Canceled) || runs < 5 {
		t.Errorf("got %v after %d runs", err, runs)
	}
}
