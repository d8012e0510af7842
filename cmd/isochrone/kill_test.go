package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/cluster"
	"github.com/isochrone/isochrone/internal/intakeclient"
)

var posts = flag.Int("posts", 2500, "how many posts TestNothingAcceptedIsLost has accepted, with an event after every few hundred; 10000 and more by hand")

// TestNothingAcceptedIsLost posts while a cluster and then "isochrone up" itself are killed with SIGKILL and started again.
// What a client was told 202 for must be in a cluster's own log, with the hash of what the client sent. It runs alone, so that
// nobody else takes the addresses of what is dead.
func TestNothingAcceptedIsLost(t *testing.T) {
	r := startUp(t, "", "--without", "ap")
	regional := func() *process { return start(t, "cluster ap takes", "cluster", "ap", "--dir", r.dir) }
	ap := regional()
	key := strings.TrimSpace(r.run(t, "key", "create", "--quota", "10000000"))
	roots, err := readRoots(r.CA)
	if err != nil {
		t.Fatal(err)
	}

	p := &poster{key: key, roots: roots, hashes: map[string]string{}}
	p.server.Store(&r.DNS)
	var posting sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer posting.Wait()
	defer cancel()
	for i := range 32 {
		posting.Go(func() { p.run(ctx, i) })
	}
	restart := func() {
		r.kill()
		r = startUp(t, r.dir, "--without", "ap")
		p.server.Store(&r.DNS)
	}
	for _, step := range []struct {
		after int // accepted posts
		do    func()
	}{
		{*posts / 5, func() { ap.kill() }},
		{*posts * 7 / 20, func() { ap = regional() }},
		{*posts / 2, restart},
		{*posts * 3 / 4, func() { ap.kill(); restart(); ap = regional() }},
		{*posts, cancel},
	} {
		eventually(t, fmt.Sprintf("%d accepted posts", step.after), func() error {
			if n := p.accepted(); n < step.after {
				return fmt.Errorf("%d so far, the last error is: %v", n, p.lastError.Load())
			}
			return nil
		})
		step.do()
	}
	posting.Wait()

	again := p.reached(t, r)
	t.Logf("%d accepted, %d attempts failed, %d envelopes in more than one cluster", len(p.hashes), p.failed.Load(), again)
}

// poster posts payloads that are all different, and notes what was accepted.
type poster struct {
	key       string
	newKey    atomic.Pointer[string] // instead of key, if there is one
	roots     *x509.CertPool
	server    atomic.Pointer[string] // DNS
	pause     time.Duration          // between a post that is accepted and the next
	failed    atomic.Int64
	lastError atomic.Value

	mu     sync.Mutex
	hashes map[string]string // by request id
}

// accepted returns how many posts have been accepted.
func (p *poster) accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.hashes)
}

// run posts as one client from one place, until ctx ends.
func (p *poster) run(ctx context.Context, client int) {
	config := intakeclient.Config{Roots: p.roots, TCP: client%4 == 0, HandshakeTimeout: time.Second}
	places := []string{"singapore", "frankfurt", "tokyo", "virginia", "johannesburg", "sao-paulo"}
	subnet, err := clientSubnet(places[client%len(places)])
	if err != nil {
		panic(err)
	}
	c := intakeclient.New(config)
	defer func() { c.Close() }()
	for n := 0; ctx.Err() == nil; n++ {
		body := fmt.Appendf(nil, `{"hash": "0x%x", "sender":"client %d",  "amount":"%d"}%s`, sha256.Sum256(fmt.Append(nil, client, n)), client, n, "\n")
		id, err := p.post(ctx, c, &intakeclient.Resolver{Server: *p.server.Load(), Subnet: subnet}, body)
		if err != nil {
			p.failed.Add(1)
			p.lastError.Store(err.Error())
			rest(ctx, 20*time.Millisecond)
			continue
		}
		rest(ctx, p.pause)
		sum := sha256.Sum256(body)
		p.mu.Lock()
		p.hashes[id] = hex.EncodeToString(sum[:])
		p.mu.Unlock()
	}
}

// rest waits for a while, or until ctx ends.
func rest(ctx context.Context, pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

func (p *poster) post(ctx context.Context, c *intakeclient.Client, resolver *intakeclient.Resolver, body []byte) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	const service = "intake.isochrone.test"
	endpoints, err := resolver.Resolve(ctx, service)
	if err != nil {
		return "", err
	}
	key := p.key
	if newer := p.newKey.Load(); newer != nil {
		key = *newer
	}
	answer, err := c.Post(ctx, endpoints, &intakeclient.Request{
		Service: service, Path: dataplane.Path, Header: http.Header{"X-Api-Key": {key}, "Content-Type": {"application/json"}}, Body: body,
	})
	if err != nil {
		return "", err
	}
	if answer.Status != http.StatusAccepted {
		return "", fmt.Errorf("%d: %s", answer.Status, answer.Body)
	}
	var accepted dataplane.Accepted
	if err := json.Unmarshal(answer.Body, &accepted); err != nil {
		return "", err
	}
	if accepted.ID == "" {
		return "", errors.New("a 202 without an id")
	}
	return accepted.ID, nil
}

// envelopes reads the clusters' logs: the hashes with which each request id came.
func envelopes(t *testing.T, dir string) map[string][]string {
	t.Helper()
	received := map[string][]string{}
	logs, err := filepath.Glob(filepath.Join(dir, "clusters", "*", cluster.LogFile))
	if err != nil || len(logs) != 3 {
		t.Fatalf("got logs %q, %v", logs, err)
	}
	for _, path := range logs {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 3 || slices.Contains(fields, "conflict") {
				t.Errorf("%s: line %q", path, lines.Text())
				continue
			}
			received[fields[0]] = append(received[fields[0]], fields[1])
		}
		file.Close()
	}
	return received
}
