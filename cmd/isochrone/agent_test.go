package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/agent"
	"github.com/isochrone/isochrone/dataplane/cluster"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/topology"
)

// localAgent is a running "isochrone agent".
type localAgent struct {
	*process
	url string
}

func startAgent(t *testing.T, flags ...string) *localAgent {
	t.Helper()
	p := start(t, "the agent takes payloads", append([]string{"agent", "--listen", "127.0.0.1:0", "--http", ""}, flags...)...)
	return &localAgent{p, regexp.MustCompile(`http://[0-9.:]+`).FindString(p.output.String())}
}

// post posts a payload as Geth would.
func (a *localAgent) post(payload []byte) (status int, pop string, body []byte, err error) {
	client := http.Client{Timeout: 20 * time.Second}
	response, err := client.Post(a.url+"/events", "application/json", bytes.NewReader(payload))
	if err != nil {
		return 0, "", nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, response.Header.Get("X-Isochrone-Pop"), body, err
}

func agentPayload(n int) []byte {
	return fmt.Appendf(nil, `{"hash":"%d", "sender":"agent", "amount":1}`, n)
}

// arrived returns how often the payload of each hash stands in the logs of the clusters, and fails for an id that came with two.
func arrived(t *testing.T, dir string) map[string]int {
	t.Helper()
	all, cores := map[string]int{}, map[string]string{}
	for _, name := range topology.ExampleClusters {
		text, err := os.ReadFile(filepath.Join(dir, "clusters", name, cluster.LogFile))
		if err != nil {
			t.Fatal(err)
		}
		here := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			core := spool.CoreOf(words[0])
			if other, ok := cores[core]; ok && other != words[1] {
				t.Errorf("request %s came with two hashes", words[0])
			}
			if here[core] {
				t.Errorf("cluster %s has taken %s twice", name, core)
			}
			cores[core], here[core] = words[1], true
			all[words[1]]++
		}
	}
	return all
}

// TestAgent kills the PoP that an agent posts to while programs post, and the agent itself while it has a queue.
func TestAgent(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--without", "fra1")
	pop := start(t, "PoP fra1 serves", "pop", "fra1", "--dir", r.dir, "--http", "")
	resolver := &intakeclient.Resolver{Server: r.DNS}
	eventually(t, "fra1 to be the first choice", func() error {
		endpoints, err := resolver.Resolve(t.Context(), topology.ExampleService)
		if err != nil || !strings.HasPrefix(endpoints[0].Target, "fra1.") {
			return fmt.Errorf("got %v, %v", endpoints, err)
		}
		return nil
	})
	a := startAgent(t, "--dir", r.dir)
	if status, at, body, err := a.post(agentPayload(0)); err != nil || status != 202 || at != "fra1" {
		t.Fatalf("got %d of %q, %v: %s", status, at, err, body)
	}

	const programs, each = 8, 60
	var (
		posting sync.WaitGroup
		mu      sync.Mutex
		slowest time.Duration
		pops    = map[string]int{}
		some    = make(chan struct{}) // closed when some are accepted, and more are on their way
	)
	for program := range programs {
		posting.Go(func() {
			for i := range each {
				began := time.Now()
				status, at, body, err := a.post(agentPayload(1 + program*each + i))
				took := time.Since(began)
				var accepted dataplane.Accepted
				if err != nil || status != 202 || json.Unmarshal(body, &accepted) != nil || accepted.Status != "accepted" {
					t.Errorf("got %d, %v: %s", status, err, body)
				}
				mu.Lock()
				if pops[at]++; at == "fra1" && pops[at] == programs*each/3 {
					close(some)
				}
				slowest = max(slowest, took)
				mu.Unlock()
			}
		})
	}
	select {
	case <-some:
	case <-time.After(30 * time.Second):
		t.Fatal("fra1 does not accept what the agent posts")
	}
	pop.kill()
	posting.Wait()
	t.Logf("the slowest post took %v; accepted by %v", slowest, pops)
	if slowest > 5*time.Second { // by itself it is about 0.3 s
		t.Errorf("the slowest post took %v", slowest)
	}
	if pops["fra1"] == 0 || len(pops) < 2 {
		t.Errorf("accepted by %v, want another PoP after the kill", pops)
	}

	// An agent that reaches nobody keeps what it takes, over its own death.
	a.interrupt(t)
	dead := startAgent(t, "--dir", r.dir, "--dns", "127.0.0.1:9", "--wait", "0")
	const queued = 50
	for i := range queued {
		status, _, body, err := dead.post(agentPayload(100_000 + i))
		var told agent.Queued
		if err != nil || status != 202 || json.Unmarshal(body, &told) != nil || told.Status != "queued" {
			t.Fatalf("got %d, %v: %s", status, err, body)
		}
	}
	if status, _, body, err := dead.post([]byte("{}")); err != nil || status != 202 { // which a PoP will refuse
		t.Fatalf("got %d, %v: %s", status, err, body)
	}
	list := func(flags ...string) []spool.Entry {
		return decode[[]spool.Entry](t, r.run(t, append([]string{"agent", "ls", "-o", "json"}, flags...)...))
	}
	waiting := list()
	if len(waiting) != queued+1 || waiting[0].State != spool.EntryPending {
		t.Errorf("the queue has %d payloads, the first of which is %+v", len(waiting), waiting[:1])
	} else if got := r.run(t, "agent", "show", waiting[queued].ID, "--body"); got != "{}" {
		t.Errorf("the last one has body %q", got)
	}
	dead.kill()
	startAgent(t, "--dir", r.dir)
	start(t, "PoP fra1 serves", "pop", "fra1", "--dir", r.dir, "--http", "") // which has accepted some that no cluster has yet
	eventually(t, "all payloads to arrive", func() error {
		got := arrived(t, r.dir)
		for n := range programs*each + 1 {
			if sum := sha256.Sum256(agentPayload(n)); got[hex.EncodeToString(sum[:])] == 0 {
				return fmt.Errorf("payload %d has not", n)
			}
		}
		for i := range queued {
			if sum := sha256.Sum256(agentPayload(100_000 + i)); got[hex.EncodeToString(sum[:])] == 0 {
				return fmt.Errorf("queued payload %d has not", i)
			}
		}
		return nil
	})
	refused := func(since time.Time) {
		t.Helper()
		eventually(t, "a dead letter", func() error {
			got := list("--dead")
			if len(got) != 1 || got[0].State != spool.EntryDead || !got[0].Buried.After(since) || !strings.Contains(got[0].Reason, "400") {
				return fmt.Errorf("got %+v", got)
			}
			return nil
		})
	}
	refused(time.Time{})
	again := time.Now()
	r.run(t, "agent", "replay", list("--dead")[0].ID)
	refused(again)
}

// TestAgentRefuses asks an agent for what it does not do.
func TestAgentRefuses(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	a := startAgent(t, "--dir", r.dir, "--max-bytes", "3000")
	ask := func(change func(*http.Request), want int) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url, strings.NewReader(`{"hash":"1","sender":"2","amount":3}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		change(request)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, _ := io.ReadAll(response.Body); response.StatusCode != want {
			t.Errorf("got %d, want %d: %s", response.StatusCode, want, body)
		}
	}
	body := func(text string) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}
	}
	ask(func(*http.Request) {}, 202)
	ask(func(r *http.Request) { r.Host = "attacker.example:8546" }, 421)
	ask(func(r *http.Request) { r.Header.Set("Origin", "https://page.example") }, 403)
	ask(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site"); r.Header.Del("Content-Type") }, 403)
	ask(func(r *http.Request) { r.Method = http.MethodGet }, 405)
	ask(func(r *http.Request) { r.Header.Set("Idempotency-Key", strings.Repeat("k", 256)) }, 400)
	ask(func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415) // the PoP's answer
	ask(body(`{"hash":1}`), 400)                                                   // likewise
	ask(body(`{"hash":"`+strings.Repeat("x", 4000)+`","sender":"2","amount":3}`), 503)
	same := func(r *http.Request) { r.Header.Set("Idempotency-Key", "event 7") }
	ask(same, 202)
	ask(same, 202)
	ask(func(r *http.Request) { same(r); body(`{"hash":"2","sender":"2","amount":3}`)(r) }, 422)
	if said := mustFail(t, "agent", "--dir", r.dir, "--listen", "0.0.0.0:0"); !strings.Contains(said, "no loopback address") {
		t.Errorf("for all to reach: %s", said)
	}
}
