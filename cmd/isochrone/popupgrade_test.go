package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/dataplane"
)

// TestPoPUpgrades replaces a PoP five times under load. No connection may be refused, no request go without an answer, unless the
// server says that it has not looked at it and the client may send it again, and no 202 be lost.
func TestPoPUpgrades(t *testing.T) {
	r := startUp(t, "", "--without", "sin1")
	key := strings.TrimSpace(r.run(t, "key", "create", "--quota", "10000000"))
	p := start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir, "--http", "")
	pid := p.command.Process.Pid
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) }) // the latest one
	roots, err := readRoots(r.CA)
	if err != nil {
		t.Fatal(err)
	}
	c := &constant{url: "https://" + r.PoPs["sin1"] + dataplane.Path, hashes: map[string]string{}, key: key}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	eventually(t, "the key to be known", func() error {
		_, _, err := c.post(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}, []byte(`{"hash":"","sender":"","amount":0}`))
		return err
	})
	var posting sync.WaitGroup
	for i := range 6 {
		config := &tls.Config{RootCAs: roots}
		var transport http.RoundTripper = &http3.Transport{TLSClientConfig: config}
		if i%2 == 1 {
			protocols := new(http.Protocols)
			protocols.SetHTTP2(true)
			transport = &http.Transport{TLSClientConfig: config, Protocols: protocols}
		}
		for j := range 3 {
			posting.Go(func() { c.run(ctx, transport, fmt.Sprintf("%d-%d", i, j)) })
		}
	}
	successor := regexp.MustCompile(`successor serves.* process=(\d+)`)
	for n := range 5 {
		before := c.accepted.Load()
		eventually(t, "load", func() error { return atLeast(c, before+100) })
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a successor", func() error {
			found := successor.FindAllStringSubmatch(p.output.String(), -1)
			if len(found) <= n {
				return errors.New(p.output.String())
			}
			pid, err = strconv.Atoi(found[n][1])
			return err
		})
	}
	last := c.accepted.Load()
	eventually(t, "load", func() error { return atLeast(c, last+100) })
	cancel()
	posting.Wait()
	t.Logf("%d accepted, %d sent again, the longest took %v", c.accepted.Load(), c.again.Load(), time.Duration(c.longest.Load()))
	for _, failure := range c.failures {
		t.Error(failure)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended: // with the last of them
	case <-time.After(patience):
		t.Fatal("not all of them end")
	}
	start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir, "--http", "") // forwards what is left
	eventually(t, "all that was accepted to reach a cluster", func() error {
		received := envelopes(t, r.dir)
		for id := range c.hashes {
			if len(received[id]) == 0 {
				return fmt.Errorf("%s is missing", id)
			}
		}
		return nil
	})
}

// TestPoPGoesOn asks a PoP for an upgrade to a program that does not become ready, and wants it to go on. SIGTERM ends it.
func TestPoPGoesOn(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--without", "sin1")
	copied := filepath.Join(t.TempDir(), "isochrone")
	if err := os.Link(programOf(t, "pop"), copied); err != nil { // another file system
		text, err := os.ReadFile(programOf(t, "pop"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, text, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p := startCommand(t, "PoP sin1 serves", exec.Command(copied, "pop", "sin1", "--dir", r.dir, "--http", ""))
	if err := errors.Join(os.Remove(copied), os.WriteFile(copied, []byte("#!/bin/sh\nexit 3\n"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := p.command.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure to be told", func() error {
		if text := p.output.String(); !strings.Contains(text, "this process goes on") || !strings.Contains(text, "exit status 3") {
			return errors.New(text)
		}
		return nil
	})
	r.leads(t, "singapore", "sin1")
	p.interrupt(t)
}

func atLeast(c *constant, n int64) error {
	if got := c.accepted.Load(); got < n {
		return fmt.Errorf("%d accepted of %d; %v", got, n, c.failed())
	}
	return nil
}

// constant posts without a pause.
type constant struct {
	url, key                 string
	accepted, again, longest atomic.Int64

	mu       sync.Mutex
	hashes   map[string]string
	failures []error
}

func (c *constant) failed() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures
}

func (c *constant) run(ctx context.Context, transport http.RoundTripper, name string) {
	heard := time.Now() // when the PoP answered last
	for n := 0; ctx.Err() == nil; n++ {
		body := fmt.Appendf(nil, `{"hash":"%s-%d","sender":"0x01","amount":1}`, name, n)
		began := time.Now()
		for {
			id, hash, err := c.post(transport, body)
			if sentAgain(err) || errors.Is(err, errTooBusy) || closedMeanwhile(err) && time.Since(heard) > lingers {
				c.again.Add(1)
				rest(ctx, 10*time.Millisecond)
				continue
			}
			heard = time.Now()
			c.mu.Lock()
			if err != nil {
				c.failures = append(c.failures, fmt.Errorf("%s-%d: %w", name, n, err))
			} else {
				c.hashes[id] = hash
				c.accepted.Add(1)
			}
			c.mu.Unlock()
			break
		}
		took := int64(time.Since(began))
		for longest := c.longest.Load(); took > longest && !c.longest.CompareAndSwap(longest, took); {
			longest = c.longest.Load()
		}
	}
}

// errTooBusy is an answer of a PoP that has no time for a request, on a machine that is slow. It has not looked at it.
var errTooBusy = errors.New("too busy")

// lingers is less than how long a PoP that ends keeps a connection on which nothing comes. A client that gets no time to run for
// longer does not hear of the end before it.
const lingers = 400 * time.Millisecond

// closedMeanwhile reports whether an error is the end of a connection on which, for the PoP, nothing was under way.
func closedMeanwhile(err error) bool {
	ended := (*http3.Error)(nil)
	return errors.As(err, &ended) && ended.Remote && ended.ErrorCode == http3.ErrCodeNoError
}

// sentAgain reports whether an error says that nobody has looked at the request.
func sentAgain(err error) bool {
	if rejected := (*http3.Error)(nil); errors.As(err, &rejected) {
		return rejected.ErrorCode == http3.ErrCodeRequestRejected
	}
	return err != nil && strings.Contains(err.Error(), "graceful shutdown") // GOAWAY had come before the request was sent
}

func (c *constant) post(transport http.RoundTripper, body []byte) (id, hash string, err error) {
	request, err := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(body)) // which can be sent again
	if err != nil {
		return "", "", err
	}
	request.Header.Set("X-API-Key", c.key)
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", "", err
	}
	if response.StatusCode == http.StatusServiceUnavailable && tooBusy.Match(text) {
		return "", "", errTooBusy
	}
	if response.StatusCode != http.StatusAccepted {
		return "", "", fmt.Errorf("%s: %s", response.Status, text)
	}
	var accepted dataplane.Accepted
	err = json.Unmarshal(text, &accepted)
	return accepted.ID, accepted.SHA256, err
}
