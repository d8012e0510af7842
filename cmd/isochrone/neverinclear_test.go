package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
)

// TestSecretsNeverShow makes a secret of each kind, has all of them used, and looks for them wherever they could show.
func TestSecretsNeverShow(t *testing.T) {
	t.Parallel()
	etcd, client := startEtcd(t)
	dir, p := t.TempDir(), newPerson(t)
	run := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(p.run(append(args, "--etcd", etcd.Endpoint())...))
	}
	run("topology", "apply", "-f", exampleDocument(t))
	p.run("ca", "init", "--dir", filepath.Join(dir, "ca"))
	recipient := strings.TrimSpace(p.run("secret", "keygen", "node-dns", "-o", filepath.Join(dir, "dns.key")))
	sealed := filepath.Join(dir, "sealed")
	const inside = "hmac-sha256:bmV2ZXIgdG8gYmUgc2VlbiBpbiBjbGVhciE="
	if err := writeSecret(sealed, inside); err != nil {
		t.Fatal(err)
	}
	run("secret", "put", "tsig.transfer.test", "--to", recipient, "--file", sealed)
	token := run("token", "create", "alice", "--role", "admin")
	key := run("key", "create", "--quota", "7")
	invitation := run("pop", "invite", "sin1", "--control", "https://127.0.0.1:1", "--ca", filepath.Join(dir, "ca", "ca.pem"))
	controlDir, dnsDir := t.TempDir(), t.TempDir()
	control, url := startControl(t, "--etcd", etcd.Endpoint(), "--dir", controlDir, "--name", "c1", "--probe=false", "--verbose")
	dns := startDNSIn(t, &running{}, dnsDir, "--etcd", etcd.Endpoint(), "--probe=false", "--verbose", "--secret-key", filepath.Join(dir, "dns.key"))

	get := func(path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	eventually(t, "the token", func() error {
		if status, body := get("/v1/whoami"); status != http.StatusOK {
			return fmt.Errorf("%d: %s", status, body)
		}
		return nil
	})
	p.env = []string{"ISOCHRONE_TOKEN=" + token}
	byAPI := strings.TrimSpace(p.run("key", "create", "--api", url))
	id := strings.Split(byAPI, "_")[1]
	rotated := strings.TrimSpace(p.run("key", "rotate", id, "--overlap", "1h", "--api", url))
	other := strings.TrimSpace(p.run("token", "create", "bob", "--role", "viewer", "--api", url))
	p.try("whoami", "--api", url+"/"+token) // in what is logged of a request

	secrets := map[string]string{
		"an API token": token, "an API token made by API": other, "an API key": key, "an API key made by API": byAPI, "a rotated API key": rotated,
		"a join token": invitation, "a sealed secret": inside, "the inside of a TSIG key": strings.TrimPrefix(inside, "hmac-sha256:"),
	}
	for what, secret := range secrets {
		if len(secret) < 20 {
			t.Fatalf("%s is %q", what, secret)
		}
	}
	hashes := map[string]string{
		"the hash of an API key": topology.HashKey(key), "the hash of a rotated key": topology.HashKey(rotated), "the hash of the key before": topology.HashKey(byAPI),
	}
	looked := 0
	search := func(where, text string, for_ map[string]string) {
		t.Helper()
		looked++
		for what, secret := range for_ {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s is in %s: …%s…", what, where, text[max(0, i-60):i])
			}
		}
	}

	// The API: all that can be read of it.
	_, document := get("/v1/openapi.json")
	var described struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(document), &described); err != nil {
		t.Fatal(err)
	}
	answered := 0
	for path, methods := range described.Paths {
		if methods["get"] == nil || strings.Contains(path, "events") { // a stream, without end
			continue
		}
		filled := strings.NewReplacer("{kind}", "pops", "{name}", "sin1", "{revision}", "2", "{id}", id).Replace(path)
		queries := map[string]string{
			"/v1/explain": "?service=intake.isochrone.test&client=192.0.2.1", "/v1/safe": "?pop=sin1", "/v1/diff": "?from=2",
			"/v1/history": "?limit=1000", "/v1/audit": "?limit=1000", "/v1/keys": "?limit=1000",
		}
		status, body := get(filled + queries[path])
		if status == http.StatusOK {
			answered++
		}
		if path == "/v1/keys" && strings.Count(body, `"id"`) < 2 {
			t.Errorf("the API lists no keys: %s", body)
		}
		search("GET "+filled, body, secrets)
		search("GET "+filled, body, hashes)
	}
	if answered < 15 {
		t.Errorf("the API answered %d of %d paths", answered, len(described.Paths))
	}
	_, metrics := get("/metrics")
	search("/metrics", metrics, secrets)
	for _, path := range []string{"/", "/app.js", "/api.js", "/keys.js"} {
		_, body := get(path)
		search("the page's "+path, body, secrets)
	}

	// The store, and a backup of it.
	all, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	hashed := 0
	for _, kv := range all.Kvs {
		search("etcd's "+string(kv.Key), string(kv.Value), secrets)
		hashed += strings.Count(string(kv.Value), hashes["the hash of an API key"])
	}
	if hashed != 1 {
		t.Errorf("etcd has the hash of a key %d times: where else would one look?", hashed)
	}
	backup := filepath.Join(dir, "backup")
	run("backup", backup)
	text, err := os.ReadFile(backup)
	if err != nil || len(text) < 1000 {
		t.Fatalf("%d bytes of backup, %v", len(text), err)
	}
	search("the backup", string(text), secrets)

	// What nodes have on disk, and what they print.
	dns.interrupt(t)
	control.interrupt(t)
	for _, folder := range []string{controlDir, dnsDir} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			search(path, string(text), secrets)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, logged := range []*process{control, dns.process} {
		search("the log of "+logged.command.Args[1], logged.output.String(), secrets)
		search("the log of "+logged.command.Args[1], logged.output.String(), hashes)
	}
	t.Logf("looked at %d texts", looked)
}
