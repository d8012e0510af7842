package dataplane

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// TestSignedPayloads posts to a service that wants signatures.
func TestSignedPayloads(t *testing.T) {
	w := newWorld(t, func(t *topology.Topology) {
		t.Services[host].Intake.Signature = &topology.Signature{Header: "X-Signature", Timestamp: "X-Timestamp", Tolerance: topology.Duration(time.Minute)}
	})
	defer w.config.Spool.Close()
	secret := []byte("webhook")
	w.config.WebhookSecret = func(string) []byte { return secret }
	post := func(body string, at time.Time, with []byte) int {
		stamp := fmt.Sprint(at.Unix())
		mac := hmac.New(sha256.New, with)
		mac.Write([]byte(stamp + "." + aPayload))
		r := request(w.key, body)
		r.Header.Set("X-Timestamp", stamp)
		r.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		return w.post(r).Code
	}
	now := time.Now()
	for name, test := range map[string]struct{ got, want int }{
		"signed":       {post(aPayload, now, secret), 202},
		"another key":  {post(aPayload, now, []byte("other")), 400},
		"another body": {post(aPayload+" ", now, secret), 400},
		"too old":      {post(aPayload, now.Add(-2*time.Minute), secret), 400},
		"not signed":   {w.post(request(w.key, aPayload)).Code, 400},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %d, want %d", name, test.got, test.want)
		}
	}
	probe := request(w.probe, "{}")
	probe.Header.Set("X-Isochrone-Probe", "1")
	if got := w.post(probe); got.Code != 202 {
		t.Errorf("a probe: got %d: %s", got.Code, got.Body)
	}
	secret = nil
	if got := post(aPayload, now, nil); got != 503 {
		t.Errorf("without a secret: got %d, want 503", got)
	}
}

// TestElsewhere asks for what belongs to clusters.
func TestElsewhere(t *testing.T) {
	w := newWorld(t, func(t *topology.Topology) {
		t.Services[host].Intake.Elsewhere = []topology.Elsewhere{{Path: "/ws/*"}}
		t.Clusters["eu"].Public = "wss://eu.example.net/"
	})
	defer w.config.Spool.Close()
	ask := func(path string) (int, string, string) {
		r := request("", "")
		r.Method, r.URL.Path = http.MethodGet, path
		got := w.post(r)
		return got.Code, got.Header().Get("Location"), got.Body.String()
	}
	if status, to, said := ask("/ws/heads"); status != http.StatusTemporaryRedirect || to != "wss://eu.example.net/ws/heads" || !strings.Contains(said, "cluster eu") {
		t.Errorf("got %d to %q: %s", status, to, said)
	}
	if status, _, _ := ask("/other"); status != http.StatusNotFound {
		t.Errorf("another path: got %d", status)
	}
	none := *w.snap.Topology
	none.Clusters = map[string]*topology.Cluster{}
	for name, cluster := range w.snap.Topology.Clusters {
		inside := *cluster
		inside.Public = ""
		none.Clusters[name] = &inside
	}
	w.newer.Store(&topology.Snapshot{Topology: &none, Keys: w.snap.Keys})
	if status, _, said := ask("/ws/heads"); status != http.StatusNotFound || !strings.Contains(said, "none can be reached") {
		t.Errorf("without a public cluster: got %d: %s", status, said)
	}
}
