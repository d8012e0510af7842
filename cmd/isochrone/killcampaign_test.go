package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

var kills = flag.Int("kills", 5, "how often the program is killed under load")

// TestKilledUnderLoad posts while "isochrone up", with its PoPs, is killed with SIGKILL at arbitrary moments and started again.
// What a client was told 202 for must be in a cluster's own log under its id, with the hash of what the client sent.
//
//	go test ./cmd/isochrone -run TestKilledUnderLoad -kills 1000 -timeout 3h
func TestKilledUnderLoad(t *testing.T) {
	r := startUp(t, "")
	roots, err := readRoots(r.CA)
	if err != nil {
		t.Fatal(err)
	}
	p := &poster{roots: roots, hashes: map[string]string{}}
	another := func() { // a PoP that ends forfeits what it was granted of a key's quota, so each life has a key of its own
		key := strings.TrimSpace(r.run(t, "key", "create", "--quota", "100000000"))
		p.newKey.Store(&key)
	}
	another()
	p.server.Store(&r.DNS)
	var posting sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer posting.Wait()
	defer cancel()
	for i := range 16 {
		posting.Go(func() { p.run(ctx, i) })
	}
	for life := range *kills {
		enough := p.accepted() + 20 + rand.IntN(400)
		eventually(t, fmt.Sprintf("%d accepted posts in life %d", enough, life), func() error {
			if n := p.accepted(); n < enough {
				return fmt.Errorf("%d so far, the last error is: %v", n, p.lastError.Load())
			}
			return nil
		})
		r.kill()
		r = startUp(t, r.dir)
		p.server.Store(&r.DNS)
		another()
		if life%50 == 49 {
			t.Logf("%s: killed %d times, %d accepted", time.Now().Format(time.TimeOnly), life+1, p.accepted())
		}
	}
	cancel()
	posting.Wait()
	again := p.reached(t, r)
	t.Logf("killed %d times, %d accepted, %d attempts failed, %d envelopes in more than one cluster", *kills, len(p.hashes), p.failed.Load(), again)
}

// reached waits until all that was accepted is in a cluster's log, with its hash, and returns how often something came to two.
func (p *poster) reached(t *testing.T, r *running) (again int) {
	t.Helper()
	var received map[string][]string
	eventually(t, "all that was accepted to reach a cluster", func() error {
		received = envelopes(t, r.dir)
		missing := 0
		for id := range p.hashes {
			if len(received[id]) == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing; the spools hold %s", missing, len(p.hashes), r.run(t, "status"))
		}
		return nil
	})
	for id, hash := range p.hashes {
		for _, got := range received[id] {
			if got != hash {
				t.Errorf("request %s: sent %s, a cluster has %s", id, hash, got)
			}
		}
		again += len(received[id]) - 1
	}
	return again
}
