package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
)

// TestOldAndNewNodes has nodes of this program and of one that knows a newer schema follow one etcd.
func TestOldAndNewNodes(t *testing.T) {
	t.Parallel()
	next := filepath.Join(t.TempDir(), "isochrone")
	if out, err := exec.Command("go", "build", "-tags", "isochrone_next_schema", "-o", next, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the newer program: %v\n%s", err, out)
	}
	world := startStore(t)
	old := startDNSIn(t, world, t.TempDir(), "--etcd", world.Etcd, "--probe=false")
	dir := t.TempDir()
	identity := filepath.Join(dir, identityFolder) // else both had this machine's name
	if err := errors.Join(os.Mkdir(identity, 0o700), os.WriteFile(filepath.Join(identity, "join.yaml"), []byte("name: newer\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, "DNS node serves", exec.Command(next, "dns", "--dir", dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--etcd", world.Etcd, "--etcd-prefix", storeRoot, "--probe=false"))
	found := servesLine.FindStringSubmatch(p.output.String())
	newer := &dnsProcess{process: p, running: running{Up: world.Up}, monitored: monitored{found[3]}}
	newer.DNS = found[1]
	run := func(args ...string) (string, error) {
		out, err := exec.Command(next, append(args, "--etcd", world.Etcd)...).CombinedOutput()
		return string(out), err
	}
	sin, err := run("topology", "get", "pops/sin1")
	if err != nil {
		t.Fatal(err, sin)
	}
	moved := strings.Replace(strings.Replace(sin, "schema: 1", "schema: 2", 1), "state: active", "state: draining", 1)
	edit := filepath.Join(dir, "edit.yaml")
	if err := os.WriteFile(edit, []byte("schema: 1\npops:\n  sin1:\n    "+strings.ReplaceAll(strings.TrimSpace(moved), "\n", "\n    ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*dnsProcess{old, newer} {
		d.leads(t, "singapore", "sin1")
	}
	eventually(t, "the refusal of a schema that a live node does not know", func() error { // once the node is registered
		if out, err := run("topology", "apply", "-f", edit, "--dry-run"); err == nil || !strings.Contains(out, "2 is newer than node dns:") || !strings.Contains(out, "upgrade it first") {
			return fmt.Errorf("got %s, %v", out, err)
		}
		return nil
	})
	if out, err := run("topology", "apply", "-f", edit); err == nil {
		t.Errorf("it is applied: %s", out)
	}

	// Put by other means, it takes effect where it is understood.
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{world.Etcd}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(t.Context(), storeRoot+"topology/pops/sin1", moved); err != nil {
		t.Fatal(err)
	}
	newer.leads(t, "singapore", "nrt1")
	old.metric(t, "isochrone_topology_beyond_schema", "1")
	newer.metric(t, "isochrone_topology_beyond_schema", "0")
	old.says(t, "is newer than this program knows (1): upgrade it")
	if _, body, err := old.get("/ready"); err != nil || !strings.Contains(body, "newer than this program knows") {
		t.Errorf("/ready of the old node says %s, %v", body, err)
	}
	old.leads(t, "singapore", "sin1")

	// What the newer program decides in an emergency reaches the old node too.
	if out, err := run("drain", "fra1", "--reason", "r", "--yes"); err != nil {
		t.Fatal(err, out)
	}
	for _, d := range []*dnsProcess{old, newer} {
		eventually(t, "the drain of fra1", func() error {
			if got, err := d.pop(sendPlaces["frankfurt"]); err != nil || got == "fra1" {
				return fmt.Errorf("got %s, %v", got, err)
			}
			return nil
		})
	}
	if out, err := run("undrain", "fra1"); err != nil {
		t.Fatal(err, out)
	}
	old.leads(t, "frankfurt", "fra1")

	// Without the old node nothing is in the way.
	old.interrupt(t)
	other := filepath.Join(dir, "other.yaml")
	text, err := os.ReadFile(edit)
	if err == nil {
		err = os.WriteFile(other, []byte(strings.Replace(string(text), "state: draining", "state: active", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newer program's apply", func() error {
		if out, err := run("topology", "apply", "-f", other); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	newer.leads(t, "singapore", "sin1")
	// An old command reads the history that the newer one left, and refuses to edit over what it does not understand.
	if out := mustRun(t, "topology", "history", "--etcd", world.Etcd); !strings.Contains(out, "pops/sin1") {
		t.Errorf("the history: %s", out)
	}
	if said := mustFail(t, "topology", "rm", "pops/jnb1", "--yes", "--etcd", world.Etcd); !strings.Contains(said, "newer than this program knows") {
		t.Errorf("an old command says %s", said)
	}
}
