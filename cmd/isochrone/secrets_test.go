package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
)

// roleKey writes the key file of a role, and returns whom to seal for.
func roleKey(t *testing.T, path string) (recipient string) {
	t.Helper()
	identity, recipient, err := sealed.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSecret(path, identity); err != nil {
		t.Fatal(err)
	}
	return recipient
}

// sealedWorld is a snapshot with sealed secrets, by name.
func sealedWorld(t *testing.T, recipient string, values map[string]string) *topology.Snapshot {
	t.Helper()
	assembler := topology.NewAssembler(nil, 0)
	for name, value := range values {
		s, err := sealed.Seal(name, []byte(value), []string{recipient}, "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		assembler.Put("secrets/"+name, topology.MarshalValue(s))
	}
	return assembler.Snapshot(1)
}

func TestSecretsOfAPoP(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "pop.key")
	recipient := roleKey(t, key)
	if err := writeSecret(filepath.Join(dir, "clusters", "lhr", "token"), "from-the-file"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	n := newNode("pop", "sin1", stateDir(dir), filepath.Join(dir, "last-good.yaml"), log, newContact(log, "etcd"))
	var err error
	if n.secrets, err = newSecrets(key, "pop", log); err != nil {
		t.Fatal(err)
	}
	expect := func(when, fra, lhr, hmac string) {
		t.Helper()
		service := string(n.serviceSecret([]byte("of the machine"))("intake.isochrone.test"))
		if got, got2 := n.clusterToken("fra"), n.clusterToken("lhr"); got != fra || got2 != lhr || service != hmac {
			t.Errorf("%s: got %q, %q, %q, want %q, %q, %q", when, got, got2, service, fra, lhr, hmac)
		}
	}
	expect("before the first snapshot", "", "from-the-file", "of the machine")
	values := map[string]string{
		"cluster-token.fra": "token-1", "service-hmac.intake.isochrone.test": "hmac-1", "tsig.transfer.test": "not for a PoP",
	}
	n.take(sealedWorld(t, recipient, values), nil)
	expect("sealed", "token-1", "from-the-file", "hmac-1")
	if _, ok := n.secrets.value("tsig.transfer.test"); ok {
		t.Error("a PoP opens what it has no use for")
	}
	values["cluster-token.fra"], values["cluster-token.lhr"] = "token-2", "token-3"
	n.take(sealedWorld(t, recipient, values), nil)
	expect("changed", "token-2", "token-3", "hmac-1")

	other := roleKey(t, filepath.Join(dir, "other.key"))
	elsewhere := sealedWorld(t, other, map[string]string{"cluster-token.fra": "token-4", "cluster-token.sin": "token-5"})
	n.take(elsewhere, nil)
	expect("sealed for others", "token-2", "from-the-file", "of the machine")
	failed := n.secrets.failed()
	if !strings.Contains(failed, "cluster-token.fra") || !strings.Contains(failed, "cluster-token.sin") || !strings.Contains(out.String(), "cluster-token.sin") {
		t.Errorf("says %q and logs\n%s", failed, &out)
	}
	told := out.Len()
	n.take(elsewhere, nil)
	if out.Len() > told {
		t.Errorf("tells it again:\n%s", out.String()[told:])
	}

	// The key file gets another key, as a role's key is changed.
	if err := os.Rename(filepath.Join(dir, "other.key"), key); err != nil {
		t.Fatal(err)
	}
	n.secrets.looked.Store(0)
	expect("with the new key file", "token-4", "from-the-file", "of the machine")
	if failed := n.secrets.failed(); failed != "" {
		t.Errorf("still says %q", failed)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(key, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	n.secrets.looked.Store(0)
	expect("with a key file that others read", "token-4", "from-the-file", "of the machine")
	if _, err := newSecrets(key, "pop", log); err == nil || !strings.Contains(err.Error(), "secret-key: ") {
		t.Errorf("started with a key file that others read: %v", err)
	}
	for _, secret := range []string{"token-", "hmac-1", "AGE-SECRET-KEY"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, &out)
		}
	}
	n.secrets, _ = newSecrets("", "pop", log)
	n.take(elsewhere, nil)
	if failed := n.secrets.failed(); !strings.Contains(failed, "no --secret-key") {
		t.Errorf("without a key file: says %q", failed)
	}
}

// TestSealedTransferKey seals a TSIG key for DNS nodes, whose zone is then transferred with it, and takes it away again.
func TestSealedTransferKey(t *testing.T) {
	t.Parallel()
	need(t, "kdig")
	const zone, record, name = "geo.isochrone.test", "192.0.2.5", "tsig.transfer.test"
	world, dir := startStore(t), t.TempDir()
	key, file := filepath.Join(dir, "dns.key"), filepath.Join(dir, "secret")
	recipient := strings.TrimSpace(mustRun(t, "secret", "keygen", "node-dns", "-o", key))
	if said := mustFail(t, "secret", "keygen", "node-dns", "-o", key); !strings.Contains(said, "there already") {
		t.Errorf("a second key says %s", said)
	}
	other := strings.TrimSpace(mustRun(t, "secret", "keygen", "operators", "-o", filepath.Join(dir, "operators.key")))
	run := func(args ...string) string { return mustRun(t, append(args, "--etcd", world.Etcd)...) }
	fail := func(args ...string) string { return mustFail(t, append(args, "--etcd", world.Etcd)...) }
	write := func(text string) {
		t.Helper()
		if err := writeSecret(file, text); err != nil {
			t.Fatal(err)
		}
	}
	s := startSigned(t, world, "--secret-key", key)
	secretsCheck := func() (c check) {
		var r readiness
		if _, body, err := s.get("/ready"); err != nil || json.Unmarshal([]byte(body), &r) != nil {
			t.Fatalf("/ready: %v: %s", err, body)
		}
		for _, c = range r.Checks {
			if c.Name == "secrets" {
				return c
			}
		}
		t.Fatalf("/ready has no check of secrets: %+v", r)
		return c
	}
	transfers := func(want string) {
		t.Helper()
		eventually(t, "a transfer that says "+want, func() error {
			if out := axfr(t, s.DNS, zone, transferKey); !strings.Contains(out, want) {
				return fmt.Errorf("got %s", out)
			}
			return nil
		})
	}
	transfers("BADKEY")
	write("hmac-md5:" + transferSecret)
	if said := fail("secret", "put", name, "--to", recipient, "--file", file); !strings.Contains(said, "is no TSIG key") || strings.Contains(said, transferSecret) {
		t.Errorf("a bad key says %s", said)
	}
	write("hmac-sha256:" + transferSecret)
	run("secret", "put", name, "--to", recipient, "--to", other, "--file", file, "--note", "of the secondaries")
	transfers(record)
	if c := secretsCheck(); !c.OK {
		t.Errorf("/ready says %+v", c)
	}
	if said := run("secret", "ls"); !strings.Contains(said, name) || !strings.Contains(said, recipient) || strings.Contains(said, transferSecret) {
		t.Errorf("secret ls prints %s", said)
	}
	if got := run("secret", "show", name, "--identity", key); got != "hmac-sha256:"+transferSecret {
		t.Errorf("shows %q", got)
	}

	run("secret", "reseal", name, "--identity", filepath.Join(dir, "operators.key"), "--to", other)
	if said := fail("secret", "show", name, "--identity", key); !strings.Contains(said, "sealed for other roles") {
		t.Errorf("who it is sealed for no more: %s", said)
	}
	eventually(t, "the node says that it cannot open it", func() error {
		if c := secretsCheck(); c.OK || !strings.Contains(c.Value, name) {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	transfers(record) // as before
	if said := fail("secret", "rm", name); !strings.Contains(said, "--yes") {
		t.Errorf("rm without yes says %s", said)
	}
	run("secret", "rm", name, "--yes")
	transfers("BADKEY")
	if strings.Contains(s.output.String(), transferSecret) {
		t.Errorf("the log has the secret:\n%s", s.output)
	}
}
