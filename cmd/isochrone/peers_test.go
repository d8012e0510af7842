package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// TestPeers has a PoP of its own process, and five of another: they tell each other what has become of requests, and one of them counts for
// a key of a small quota.
func TestPeers(t *testing.T) {
	t.Parallel()
	role := filepath.Join(t.TempDir(), "role.key")
	mustRun(t, "secret", "keygen", "up", "-o", role)
	r := startUp(t, "", "--without", "sin1", "--secret-key", role)
	eventually(t, "the leader to make the secret that PoPs share", func() error {
		if list := r.run(t, "secret", "ls"); !strings.Contains(list, "peers") {
			return fmt.Errorf("there are %s", list)
		}
		return nil
	})
	if err := os.WriteFile(filepath.Join(r.dir, peersSecretFile), []byte("not the secret that is sealed"), 0o600); err != nil { // and that counts
		t.Fatal(err)
	}
	pop := start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir, "--http", "127.0.0.1:0", "--secret-key", role)
	roots, err := readRoots(r.CA)
	if err != nil {
		t.Fatal(err)
	}
	clients := map[string]*contract{}
	for name, at := range r.PoPs {
		c := &contract{running: r, at: at, roots: roots, key: r.APIKey}
		var end func()
		c.wires, end = c.clients()
		t.Cleanup(end)
		clients[name] = c
	}
	if len(clients) != 6 {
		t.Fatalf("the world has the PoPs %v", r.PoPs)
	}
	h3 := func(name string) wire {
		if _, ok := clients[name].wires[0].RoundTripper.(*http3.Transport); !ok {
			t.Fatal("the first client is not of HTTP/3")
		}
		return clients[name].wires[0]
	}

	// Receipts: each PoP knows of the other's.
	ids := map[string]string{}
	for _, name := range []string{"sin1", "fra1"} {
		eventually(t, "a post at "+name, func() error {
			got, err := clients[name].try(t.Context(), h3(name), call{})
			if err == nil && got.status != 202 {
				err = fmt.Errorf("got %d %s", got.status, got.body)
			}
			var accepted struct{ ID string }
			if err == nil {
				err = json.Unmarshal([]byte(got.body), &accepted)
			}
			ids[name] = accepted.ID
			return err
		})
	}
	other := strings.TrimSpace(r.run(t, "key", "create"))
	for of, asked := range map[string]string{"sin1": "fra1", "fra1": "sin1"} {
		at := call{method: "GET", path: "/api/v1/receipts/" + ids[of]}
		eventually(t, "the receipt of "+of+" at "+asked, func() error {
			got, err := clients[asked].try(t.Context(), h3(asked), at)
			var told struct{ ID, Status, Cluster string }
			if err == nil && (got.status != 200 || json.Unmarshal([]byte(got.body), &told) != nil || told.ID != ids[of] || told.Status != "delivered" || told.Cluster == "") {
				err = fmt.Errorf("got %d %s", got.status, got.body)
			}
			return err
		})
		unknown := at
		unknown.path += "a"
		if got := clients[asked].send(t, h3(asked), unknown); got.status != 404 || !strings.Contains(got.body, "no request") {
			t.Errorf("an id that there is not: got %d %s", got.status, got.body)
		}
		eventually(t, "another key to be known, and to be told nothing", func() error {
			if got := clients[asked].send(t, h3(asked), at.with("X-API-Key", other)); got.status != http.StatusNotFound {
				return fmt.Errorf("got %d %s", got.status, got.body)
			}
			return nil
		})
	}

	// A small quota: all of it is admitted, wherever it is asked for, and no more.
	const quota = 30
	small := strings.TrimSpace(r.run(t, "key", "create", "--quota", fmt.Sprint(quota)))
	admitted, newest := map[string]int{}, ""
	for refused, i := 0, 0; refused < len(clients); i++ {
		name := []string{"sin1", "fra1", "iad1", "nrt1", "gru1", "jnb1"}[i%6]
		got := clients[name].send(t, h3(name), call{}.with("X-API-Key", small))
		switch got.status {
		case 202:
			newest, refused = got.header.Get("X-Isochrone-Window"), 0
			admitted[newest]++
		case 429:
			if refused++; got.header.Get("Retry-After") == "" {
				t.Errorf("%s refuses without a Retry-After", name)
			}
		case 401: // it does not know the key yet
		default:
			t.Fatalf("%s: got %d %s", name, got.status, got.body)
		}
		if refused >= len(clients) && len(admitted) == 0 {
			t.Fatal("nothing is admitted")
		}
	}
	metrics := peerMetrics(t, r, pop)
	for window, n := range admitted {
		if n > quota {
			t.Errorf("%d of %d are admitted in window %s", n, quota, window)
		}
	}
	if failed := regexp.MustCompile(`isochrone_peer_calls_total\{call="quota",outcome="failed",pop="[a-z0-9]*"\} [1-9]`).MatchString(metrics); admitted[newest] < quota && !failed {
		t.Errorf("%d of %d are admitted, though all PoPs have reached the home", admitted[newest], quota)
	}
	if !regexp.MustCompile(`isochrone_peer_answered_total\{call="quota",outcome="ok",pop="[a-z0-9]*"\} [1-9]`).MatchString(metrics) {
		t.Errorf("no PoP was asked for quota:\n%s", metrics)
	}

	// Without the other process.
	pop.interrupt(t)
	gone := call{method: "GET", path: "/api/v1/receipts/" + ids["sin1"]}
	began := time.Now()
	got := clients["fra1"].send(t, h3("fra1"), gone)
	if took := time.Since(began); got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "sin1") || took > patience/2 {
		t.Errorf("when the PoP has gone: got %d %v %s after %v", got.status, got.header, got.body, took)
	}
}

// peerMetrics returns all metrics of both processes.
func peerMetrics(t *testing.T, r *running, pop *process) (all string) {
	t.Helper()
	token, err := os.ReadFile(r.dir + "/api.token")
	if err != nil {
		t.Fatal(err)
	}
	at := regexp.MustCompile(`\((http://.*)\)`).FindStringSubmatch(pop.output.String())[1]
	for _, url := range []string{r.API + "/metrics", at + "/metrics"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}
