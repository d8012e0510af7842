package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestBackupCommands backs one etcd up by the program and restores it into another.
func TestBackupCommands(t *testing.T) {
	t.Parallel()
	etcd, client := startEtcd(t)
	other, restored := startEtcd(t)
	for key, value := range map[string]string{"topology/pops/sin1": "schema: 1\n", "keys/a": "x", "nodes/a": "of the moment"} {
		if _, err := client.Put(t.Context(), "/isochrone/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	run := func(stdin []byte, args ...string) (string, error) {
		command := exec.Command(program, args...)
		command.Stdin = bytes.NewReader(stdin)
		out, err := command.CombinedOutput()
		return string(out), err
	}
	file := filepath.Join(t.TempDir(), "a.backup")
	if out, err := run(nil, "backup", file, "--etcd", etcd.Endpoint()); err != nil || !strings.Contains(out, "2 keys, 1 of keys, 1 of topology") {
		t.Fatalf("backup: %v: %s", err, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file of mode 0600", info, err)
	}
	if out, err := run(nil, "restore", file, "--etcd", other.Endpoint()); err != nil || !strings.Contains(out, "2 keys") {
		t.Fatalf("restore: %v: %s", err, out)
	}
	got, err := restored.Get(t.Context(), "/isochrone/topology/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "schema: 1\n" {
		t.Errorf("got %v, %v", got, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run(text, "restore", "-", "--etcd", other.Endpoint()); err == nil || !strings.Contains(out, "--replace") {
		t.Errorf("into what is not empty: %v: %s", err, out)
	}
	if out, err := run(text, "restore", "-", "--replace", "--etcd", other.Endpoint()); err != nil {
		t.Errorf("in place of it: %v: %s", err, out)
	}
}
