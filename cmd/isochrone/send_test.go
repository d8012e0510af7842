package main

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSend(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	payload := filepath.Join(t.TempDir(), "payload.json")
	body := "{\"hash\": \"ü\", \"sender\":1,\n\"amount\":\"2\"}\n"
	if err := os.WriteFile(payload, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	out := r.run(t, "send", "--from", "singapore", "--data", "@"+payload, "--repeat", "2")
	for _, want := range []string{
		"202 accepted by PoP sin1 for cluster ap\n", "\n  id      sin1.", "\n  timing  resolve ", " ms, handshake ", " ms, to the answer ", "(h3, ", "connection open",
		fmt.Sprintf("sha256  %x\n", sha256.Sum256([]byte(body))),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for from, pop := range map[string]string{"18.184.3.4": "fra1", "2400:8900::1": "nrt1", "18.228.0.0/16": "gru1", "Tokyo": "nrt1"} {
		if got := decode[sent](t, r.run(t, "send", "--from", from, "--json", "--h2")); got.PoP != pop || got.Protocol != "h2" {
			t.Errorf("--from %s: got %+v", from, got)
		}
	}
	r.run(t, "send") // this machine's own address has no place

	// An Idempotency-Key makes the same id.
	first := decode[sent](t, r.run(t, "send", "--from", "tokyo", "--data", "@"+payload, "--idempotency-key", "k", "--json"))
	again := decode[sent](t, r.run(t, "send", "--from", "tokyo", "--data", "@"+payload, "--idempotency-key", "k", "--json"))
	if first.ID == "" || again.ID != first.ID {
		t.Errorf("got %s and %s", first.ID, again.ID)
	}

	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--key", "iso_nope_nope"}, "1 of 1 requests were refused"},
		{[]string{"--data", `{"hash":`}, "1 of 1 requests were refused"},
		{[]string{"--from", "atlantis"}, "places are frankfurt, johannesburg"},
		{[]string{"--data", "@/nonexistent"}, "--data"},
		{[]string{"--service", "nosuch.isochrone.test"}, "NXDOMAIN"},
		{[]string{"--ca", payload}, "--ca"},
	} {
		if said := mustFail(t, append([]string{"send", "--dir", r.dir}, test.args...)...); !strings.Contains(said, test.want) {
			t.Errorf("send %q says %s", test.args, said)
		}
	}
	if out, _, _ := isochrone(t, "send", "--dir", r.dir, "--key", "iso_nope_nope", "--from", "tokyo"); !strings.Contains(out, "401 by PoP nrt1: ") {
		t.Errorf("with a wrong key: got %s", out)
	}
}

func TestKeysAndQuota(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	key := strings.TrimSpace(r.run(t, "key", "create", "--quota", "3", "--note", "of a test"))
	id := strings.Split(key, "_")[1]
	if out := r.run(t, "key", "ls"); !strings.Contains(out, id) || strings.Contains(out, key) || !strings.Contains(out, "of a test") {
		t.Errorf("key ls: got\n%s", out)
	}
	// Through two PoPs: the quota is that of both together. A new minute may begin in between.
	accepted, refused := 0, 0
	for i := range 12 {
		out, _, _ := isochrone(t, "send", "--dir", r.dir, "--key", key, "--json", "--from", []string{"tokyo", "frankfurt"}[i%2])
		switch got := decode[sent](t, out); got.Status {
		case 202:
			accepted++
		case 429:
			refused++
		default:
			t.Fatalf("got %+v", got)
		}
	}
	if accepted < 3 || accepted > 6 || refused == 0 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
	r.run(t, "key", "revoke", id, "--yes")
	eventually(t, "a revoked key to be refused", func() error {
		out, _, _ := isochrone(t, "send", "--dir", r.dir, "--key", key, "--json", "--from", "tokyo")
		if got := decode[sent](t, out); got.Status != 401 {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})
	if said := mustFail(t, "key", "revoke", id, "--yes", "--dir", r.dir); !strings.Contains(said, "not found") {
		t.Errorf("a second revoke says %s", said)
	}
}

// TestCurl posts as the README tells, by a client that is not ours.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	r := startUp(t, "")
	host, port, _ := net.SplitHostPort(r.PoPs["sin1"])
	for _, version := range []string{"--http2", "--http1.1"} {
		out, err := exec.Command(curl, "-sS", version, "--cacert", r.CA, "--connect-to", "intake.isochrone.test:443:"+host+":"+port,
			"-H", "X-API-Key: "+r.APIKey, "-H", "Content-Type: application/json", "-w", "%{http_code} %{http_version} %header{alt-svc}",
			"--data-binary", `{"hash":"0x1","sender":"0x2","amount":"3"}`, "https://intake.isochrone.test/api/v1/ingest").CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"status":"accepted"`) || !strings.Contains(string(out), `202 `+strings.TrimPrefix(version, "--http")) ||
			!strings.Contains(string(out), `h3=":`+port+`"`) {
			t.Errorf("curl %s: %v: %s", version, err, out)
		}
		out, err = exec.Command(curl, "-sS", version, "--cacert", r.CA, "-H", "X-API-Key: "+r.APIKey, "-H", "Content-Type: application/json",
			"--data-binary", `{"hash":"0x1","sender":"0x2","amount":"3"}`, "https://"+r.PoPs["sin1"]+"/api/v1/ingest").CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"status":"accepted"`) {
			t.Errorf("curl %s to the address: %v: %s", version, err, out)
		}
	}
}
