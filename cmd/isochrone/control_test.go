package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/topology"
)

// person runs commands in the configuration of one person.
type person struct {
	t      *testing.T
	config string
	env    []string
}

func newPerson(t *testing.T) *person {
	return &person{t: t, config: t.TempDir()}
}

// try runs a command and returns what it says, and its exit status.
func (p *person) try(args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	command := exec.CommandContext(p.t.Context(), program, args...)
	command.Env = append(append(os.Environ(), "XDG_CONFIG_HOME="+p.config, "XDG_STATE_HOME="+p.config), p.env...)
	var out, errors strings.Builder
	command.Stdout, command.Stderr = &out, &errors
	_ = command.Run()
	return out.String(), errors.String(), command.ProcessState.ExitCode()
}

// run runs a command that should succeed.
func (p *person) run(args ...string) string {
	p.t.Helper()
	stdout, stderr, status := p.try(args...)
	if status != 0 {
		p.t.Fatalf("isochrone %s: status %d: %s%s", strings.Join(args, " "), status, stdout, stderr)
	}
	return stdout
}

// fails runs a command that should fail with something.
func (p *person) fails(with string, args ...string) {
	p.t.Helper()
	stdout, stderr, status := p.try(args...)
	if status != 1 || !strings.Contains(stdout+stderr, with) {
		p.t.Errorf("isochrone %s: status %d, %s%s; want 1 and %q", strings.Join(args, " "), status, stdout, stderr, with)
	}
}

// exampleDocument is the example world at addresses that nobody has.
func exampleDocument(t *testing.T) string {
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 77, byte(i + 1)}), 9)
	}
	for i, name := range topology.ExampleClusters {
		clusters[name] = fmt.Sprintf("http://127.0.77.%d:9", 100+i)
	}
	path := filepath.Join(t.TempDir(), "world.yaml")
	if err := os.WriteFile(path, topology.Example(netip.MustParseAddr("127.0.0.1"), pops, clusters).Marshal(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var controlURL = regexp.MustCompile(`control plane \S+ serves (\S+)`)

// startControl starts a control plane, and returns it with its URL.
func startControl(t testing.TB, flags ...string) (*process, string) {
	t.Helper()
	p := start(t, "control plane", append([]string{"control", "--listen", "127.0.0.1:0"}, flags...)...)
	return p, controlURL.FindStringSubmatch(p.output.String())[1]
}

func TestControlPlanes(t *testing.T) {
	t.Parallel()
	etcd, client := startEtcd(t)
	p, dir := newPerson(t), t.TempDir()
	ended := storeRoot + "overrides/ended"
	o := &topology.Override{
		Schema: 1, Kind: topology.Drain, PoP: "sin1", Reason: "r", Author: "a", Created: time.Now().AddDate(0, 0, -9), Expires: time.Now().AddDate(0, 0, -8),
	}
	if _, err := client.Put(t.Context(), ended, string(topology.MarshalValue(o))); err != nil {
		t.Fatal(err)
	}
	p.run("context", "set", "direct", "--etcd", etcd.Endpoint())
	document := exampleDocument(t)
	if out := p.run("topology", "apply", "-f", document, "-m", "the example"); !strings.Contains(out, "add pops/sin1") || !strings.Contains(out, "applied at revision") {
		t.Errorf("apply: got %s", out)
	}
	p.fails("no role", "token", "create", "eve", "--role", "no role")
	secret := strings.TrimSpace(p.run("token", "create", "alice", "--role", "operator"))
	tokenPath := filepath.Join(p.config, "token")
	if err := os.WriteFile(tokenPath, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--etcd", etcd.Endpoint(), "--dir", dir, "--probe=false"}
	first, url := startControl(t, append(flags, "--name", "c1")...)
	_, other := startControl(t, append(flags, "--name", "c2")...)
	p.run("context", "set", "prod", "--api", url, "--token-file", tokenPath)
	p.run("context", "set", "second", "--api", other, "--token-file", tokenPath)
	p.run("context", "use", "prod")
	if out := p.run("context", "ls"); !strings.Contains(out, "*  prod") || strings.Contains(p.run("context", "show"), secret) {
		t.Errorf("contexts: got %s", out)
	}
	if out := p.run("whoami"); out != "alice, operator\n" {
		t.Errorf("whoami: got %s", out)
	}
	eventually(t, "both control planes and a leader in the list of nodes", func() error {
		if out := p.run("nodes"); strings.Count(out, "control:c") != 2 || strings.Count(out, "leader") != 1 {
			return fmt.Errorf("got %s", out)
		}
		return nil
	})
	eventually(t, "what has ended long ago is trimmed", func() error {
		if got, err := client.Get(t.Context(), ended); err != nil || got.Count > 0 {
			return fmt.Errorf("it is there, %v", err)
		}
		return nil
	})
	p.fails("for the role admin", "token", "ls")
	p.fails("needs a token", "status", "--api", url)
	p.fails("there is no context", "status", "--context", "nowhere")

	t.Run("looking", func(t *testing.T) { testLooking(t, p) })
	t.Run("editing", func(t *testing.T) { testEditing(t, p, document) })
	t.Run("going back", func(t *testing.T) { testGoingBack(t, p) })
	t.Run("keys", func(t *testing.T) { testKeyCommands(t, p) })

	// When the leader is killed the other one takes over, and what it served goes on.
	first.kill()
	eventually(t, "another leader", func() error {
		out := p.run("nodes", "--context", "second", "-o", "json")
		for _, n := range decode[[]controlplane.NodeStatus](t, out) {
			if n.Name == "control:c2" && n.Leader {
				return nil
			}
		}
		return fmt.Errorf("got %s", out)
	})
	if out := p.run("status", "--context", "second"); !strings.Contains(out, "sin1") {
		t.Errorf("status: got %s", out)
	}
}

func testLooking(t *testing.T, p *person) {
	if out := p.run("status", "-o", "yaml"); !strings.Contains(out, "\npops:\n  - name: fra1\n") {
		t.Errorf("status as YAML: got %s", out)
	}
	p.fails("not one of table, json, yaml", "status", "-o", "xml")
	if trace := decode[struct{ Answer []string }](t, p.run("explain", "intake.isochrone.test", "--subnet", sendPlaces["singapore"], "-o", "json")); len(trace.Answer) != 1 || trace.Answer[0] != "sin1" {
		t.Errorf("explain: got %+v", trace)
	}
	if out := p.run("explain", "intake.isochrone.test", "--subnet", sendPlaces["singapore"], "--context", "direct"); !strings.Contains(out, "→  sin1") {
		t.Errorf("explain straight from etcd: got %s", out)
	}
	if out := p.run("status", "--context", "direct"); !strings.Contains(out, "sin1") || !strings.Contains(out, "unknown") {
		t.Errorf("status straight from etcd: got %s", out)
	}
	if out := p.run("__complete", "topology", "get", "pops/s"); !strings.Contains(out, "pops/sin1\n") {
		t.Errorf("completion: got %s", out)
	}
	if out := p.run("__complete", "context", "use", ""); !strings.Contains(out, "prod\n") {
		t.Errorf("completion of contexts: got %s", out)
	}

	// Without traffic that is known, the busiest PoP is taken to use much of what it has.
	out, _, status := p.try("drain", "iad1", "--check")
	if status != 1 || !strings.HasPrefix(out, "no: ") || !strings.Contains(out, "of its capacity") {
		t.Errorf("drain --check of the largest: got %d, %s", status, out)
	}
	if out := p.run("drain", "jnb1", "--check"); !strings.HasPrefix(out, "yes: ") {
		t.Errorf("drain --check of the smallest: got %s", out)
	}
	p.fails("Say --yes", "drain", "iad1", "--reason", "for the test")
	p.run("drain", "iad1", "--reason", "for the test", "--yes")
	p.run("force", "fra1", "down", "--reason", "for the test")
	p.run("pin", "gru1", "25%", "--reason", "for the test")
	if out := p.run("overrides"); !strings.Contains(out, "drain-iad1") || !strings.Contains(out, "force down") || !strings.Contains(out, "pin 25 %") {
		t.Errorf("overrides: got %s", out)
	}
	for _, args := range [][]string{{"undrain", "iad1"}, {"unforce", "fra1"}, {"unpin", "gru1"}} {
		p.run(args...)
	}
	p.fails("not found", "undrain", "iad1")
	p.fails("no share", "pin", "gru1", "250%", "--reason", "x")
}

func testEditing(t *testing.T, p *person, document string) {
	edit := func(script string, args ...string) (string, string, int) {
		t.Helper()
		path := filepath.Join(p.config, "editor")
		if err := os.WriteFile(path, []byte("#!/bin/sh\nset -e\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		p.env = []string{"EDITOR=false", "VISUAL=" + path}
		defer func() { p.env = nil }()
		return p.try(append([]string{"topology", "edit", "pops/sin1", "-m", "by an editor"}, args...)...)
	}
	if out, errs, status := edit(`sed -i "s/city: Singapore/city: Jurong/" $1`); status != 0 || !strings.Contains(out, `location.city: "Singapore" → "Jurong"`) {
		t.Errorf("edit: got %d, %s%s", status, out, errs)
	}
	if out, _, status := edit("true"); status != 0 || out != "nothing to change\n" {
		t.Errorf("an edit that changes nothing: got %d, %s", status, out)
	}
	// What is wrong comes back at the top, and is mended the second time.
	if out, errs, status := edit(`if grep -q "^#! " $1; then sed -i s/stat:/state:/ $1; else sed -i s/state:/stat:/ $1; fi`); status != 0 || !strings.Contains(out, "nothing to change") {
		t.Errorf("an edit that is mended: got %d, %s%s", status, out, errs)
	}
	// What cannot be mended is kept.
	_, errs, status := edit(`sed -i "s/lat: [0-9.]*/lat: 135/" $1`)
	kept := regexp.MustCompile(`what you wrote is in (\S+)`).FindStringSubmatch(errs)
	if status != 1 || !strings.Contains(errs, "135 is not in -90..90") || len(kept) != 2 {
		t.Fatalf("an invalid edit: got %d, %s", status, errs)
	}
	if text, err := os.ReadFile(kept[1]); err != nil || !strings.Contains(string(text), "lat: 135") {
		t.Errorf("what was kept: %s, %v", text, err)
	}
	os.Remove(kept[1])
	// Somebody else changes the object meanwhile.
	other := fmt.Sprintf(`%s topology apply -f %s >/dev/null; sed -i "s/city: Jurong/city: Tuas/" $1`, program, document)
	_, errs, status = edit(other)
	if kept = regexp.MustCompile(`what you wrote is in (\S+)`).FindStringSubmatch(errs); status != 1 || !strings.Contains(errs, "changed meanwhile") || len(kept) != 2 {
		t.Fatalf("a conflict: got %d, %s", status, errs)
	}
	os.Remove(kept[1])

	if out := p.run("topology", "rm", "pops/jnb1", "--dry-run"); !strings.Contains(out, "delete pops/jnb1") || !strings.Contains(out, "jnb1 → ") || !strings.Contains(out, "dry run") {
		t.Errorf("rm --dry-run: got %s", out)
	}
	p.fails("Delete pops/jnb1?", "topology", "rm", "pops/jnb1")
	p.run("topology", "rm", "pops/jnb1", "--yes", "-m", "too far")
	few := filepath.Join(p.config, "few.yaml")
	text := p.run("topology", "get")
	start := strings.Index(text, "  gru1:")
	end := start + strings.Index(text[start+1:], "\n  iad1:") + 1
	if err := os.WriteFile(few, []byte(text[:start]+text[end+1:]), 0o600); err != nil {
		t.Fatal(err)
	}
	p.fails("Delete pops/gru1?", "topology", "apply", "-f", few, "--replace")
}

func testGoingBack(t *testing.T, p *person) {
	page := decode[controlplane.HistoryPage](t, p.run("topology", "history", "-o", "json"))
	last := page.Entries[0]
	if last.Author != "alice" || last.Message != "too far" || !strings.Contains(p.run("topology", "history"), "-pops/jnb1") {
		t.Fatalf("history: got %+v", last)
	}
	before := fmt.Sprintf("@%d", page.Entries[1].Revision)
	if out := p.run("topology", "show", before); !strings.Contains(out, "jnb1") {
		t.Errorf("show: got %s", out)
	}
	if out := p.run("topology", "diff", before, "--effect"); !strings.Contains(out, "-  jnb1:") || !strings.Contains(out, "of clients move") {
		t.Errorf("diff: got %s", out)
	}
	p.fails("Make the topology what it was", "topology", "rollback", before)
	if out := p.run("topology", "rollback", before, "--yes", "-m", "needed after all"); !strings.Contains(out, "add pops/jnb1") {
		t.Errorf("rollback: got %s", out)
	}
	if out := p.run("topology", "doctor"); !strings.Contains(out, "is valid") {
		t.Errorf("doctor: got %s", out)
	}
	p.fails("no revision", "topology", "show", "yesterday")
	if out := p.run("audit"); !strings.Contains(out, "rollback") || !strings.Contains(out, "overrides/drain-iad1") {
		t.Errorf("audit: got %s", out)
	}
}

func testKeyCommands(t *testing.T, p *person) {
	made := decode[controlplane.NewKey](t, p.run("key", "create", "--quota", "7", "--from", "192.0.2.0/24", "--service", "intake.isochrone.test", "--expires", "720h", "--note", "Bob", "-o", "json"))
	if made.QuotaPerMinute != 7 || made.Secret == "" || made.Expires.IsZero() {
		t.Fatalf("key create: got %+v", made)
	}
	if out := p.run("key", "ls"); !strings.Contains(out, made.ID) || !strings.Contains(out, "192.0.2.0/24") || strings.Contains(out, made.Secret) {
		t.Errorf("key ls: got %s", out)
	}
	if out := p.run("key", "rotate", made.ID, "--overlap", "1h"); !strings.HasPrefix(out, "iso_"+made.ID+"_") {
		t.Errorf("key rotate: got %s", out)
	}
	p.fails("Revoke key", "key", "revoke", made.ID)
	p.run("key", "revoke", made.ID, "--yes")
	p.fails("none of a time", "key", "create", "--expires", "soon")
}

func TestControlWithTLS(t *testing.T) {
	t.Parallel()
	etcd, _ := startEtcd(t)
	p, dir := newPerson(t), t.TempDir()
	authority := filepath.Join(dir, "ca")
	p.run("ca", "init", "--dir", authority)
	p.run("ca", "issue", "c1", "--kind", "control", "--host", "127.0.0.1", "--dir", authority, "--out", dir)
	cert, key := filepath.Join(dir, "control-c1.crt"), filepath.Join(dir, "control-c1.key")
	_, url := startControl(t, "--etcd", etcd.Endpoint(), "--dir", dir, "--name", "c1", "--probe=false", "--tls-cert", cert, "--tls-key", key)
	if !strings.HasPrefix(url, "https://") {
		t.Fatalf("got %s", url)
	}
	p.env = []string{"ISOCHRONE_TOKEN=" + strings.TrimSpace(p.run("token", "create", "alice", "--role", "admin", "--etcd", etcd.Endpoint()))}
	eventually(t, "the token", func() error {
		if out, errs, status := p.try("whoami", "--api", url, "--ca", filepath.Join(authority, "ca.pem")); status != 0 || out != "alice, admin\n" {
			return fmt.Errorf("got %d, %s%s", status, out, errs)
		}
		return nil
	})
	p.fails("certificate", "whoami", "--api", url) // of a CA that nobody knows
	for said, flags := range map[string][]string{
		"in clear": {"--listen", "0.0.0.0:0"}, "want both or none": {"--tls-cert", cert}, "want one of both": {"--tls-cert", cert, "--tls-key", key, "--insecure"},
	} {
		p.fails(said, append([]string{"control", "--etcd", etcd.Endpoint(), "--dir", dir}, flags...)...)
	}
	p.fails("in clear to another machine", "whoami", "--api", "http://192.0.2.1")
}
