package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/isochrone/isochrone/dataplane"
)

// TestFailingDisk has fdatasync fail in a running PoP, by strace: while it does, every post is answered 503; after that they are accepted
// again; and all that was answered 202, before, at the edges and after, reaches a cluster.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	strace := need(t, "strace")
	r := startUp(t, "", "--without", "sin1")
	pop := start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir)
	key := strings.TrimSpace(r.run(t, "key", "create", "--quota", "10000000"))
	roots, err := readRoots(r.CA)
	if err != nil {
		t.Fatal(err)
	}
	p := &poster{key: key, hashes: map[string]string{}}
	client := postingClient(roots)
	post := func(name string) int {
		status, err := p.plainPost(client, r.PoPs["sin1"], []byte(fmt.Sprintf(`{"hash":"0x1","sender":%q,"amount":"1"}`, name)))
		if err != nil {
			t.Error(err)
		}
		return status
	}
	load := func(phase string) (statuses map[int]int) {
		statuses = map[int]int{}
		var mu sync.Mutex
		var posting sync.WaitGroup
		for i := range 8 {
			posting.Go(func() {
				for n := range 20 {
					status := post(fmt.Sprintf("%s %d %d", phase, i, n))
					mu.Lock()
					statuses[status]++
					mu.Unlock()
				}
			})
		}
		posting.Wait()
		return statuses
	}
	eventually(t, "the key to be known", func() error {
		if status := post("first"); status != http.StatusAccepted {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	for round := range 2 {
		tracer := exec.Command(strace, "-f", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "-p", strconv.Itoa(pop.command.Process.Pid))
		said := &output{}
		tracer.Stderr = said
		if err := tracer.Start(); err != nil {
			t.Fatal(err)
		}
		edge := 0 // statuses while it begins to fail
		eventually(t, "fdatasync to fail", func() error {
			if edge = post("edge"); edge != http.StatusServiceUnavailable {
				return fmt.Errorf("status %d; strace says: %s", edge, said)
			}
			return nil
		})
		if got := load(fmt.Sprint("failing ", round)); got[http.StatusServiceUnavailable] != 160 {
			t.Errorf("while fdatasync fails: %v by status", got)
		}
		tracer.Process.Signal(os.Interrupt)
		if err := tracer.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		if got := load(fmt.Sprint("well ", round)); got[http.StatusAccepted] != 160 {
			t.Errorf("after fdatasync has failed: %v by status", got)
		}
	}
	p.reached(t, r)
	pop.interrupt(t)
}

// postingClient speaks HTTP/2, or 1.1, with the certificates of a world.
func postingClient(roots *x509.CertPool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "intake.isochrone.test"}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64,
	}}
}

// plainPost posts to one PoP, and notes what was accepted.
func (p *poster) plainPost(client *http.Client, at string, body []byte) (status int, err error) {
	request, err := http.NewRequest(http.MethodPost, "https://"+at+dataplane.Path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Host = "intake.isochrone.test"
	request.Header = http.Header{"X-Api-Key": {p.key}, "Content-Type": {"application/json"}}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		return answer.StatusCode, nil
	}
	var accepted dataplane.Accepted
	if err := json.NewDecoder(answer.Body).Decode(&accepted); err != nil {
		return 0, err
	}
	sum := sha256.Sum256(body)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hashes[accepted.ID] = hex.EncodeToString(sum[:])
	return answer.StatusCode, nil
}
