package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// seen waits until the status of a world has verdicts, and returns it. A status of "" is that of a target that is not there.
func (r *running) sees(t *testing.T, want map[string]health.Status) (last *controlplane.Status) {
	t.Helper()
	eventually(t, fmt.Sprint("the status to be ", want), func() error {
		last = new(controlplane.Status)
		if err := json.Unmarshal([]byte(r.run(t, "status", "-o", "json")), last); err != nil {
			return err
		}
		got := map[string]health.Status{}
		for _, p := range last.PoPs {
			got["pop/"+p.Name] = p.Health.Status
		}
		for _, c := range last.Clusters {
			got["cluster/"+c.Name] = c.Health.Status
		}
		for _, d := range last.DNS {
			got["dns/"+d.Name] = d.Health.Status
		}
		for of, status := range want {
			if got[of] != status {
				return fmt.Errorf("%s is %q, want %q", of, got[of], status)
			}
		}
		return nil
	})
	return last
}

// TestSignals has one cluster die, by which PoPs are degraded, of their own process and of that of others; and DNS nodes be targets, of which one is
// killed and one ends in order.
func TestSignals(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--without", "sin1", "--without", "ap", "--without", "eu", "--without", "us")
	at := sockettest.Free(t).String()
	edited := regexp.MustCompile(`(?s)(\n  ap:.*?- http://)[0-9.:]+(.*\n  eu:.*?state: )active(.*\n  us:.*?state: )active`).ReplaceAllString(
		r.run(t, "topology", "get"), "${1}"+at+"${2}disabled${3}disabled")
	file := filepath.Join(t.TempDir(), "topology.yaml")
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(t, "topology", "apply", "-f", file, "--yes")
	cluster := start(t, "cluster ap takes", "cluster", "ap", "--dir", r.dir, "--listen", at)
	start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir, "--http", "127.0.0.1:0")
	a := startDNS(t, r, t.TempDir(), "--etcd", r.Etcd, "--name", "a")
	b := startDNS(t, r, t.TempDir(), "--etcd", r.Etcd, "--name", "b")
	status := r.sees(t, map[string]health.Status{"pop/sin1": "up", "pop/fra1": "up", "cluster/ap": "up", "dns/a": "up", "dns/b": "up"})
	for _, d := range status.DNS {
		if want := map[string]string{"a": a.DNS, "b": b.DNS}[d.Name]; d.Address != want {
			t.Errorf("DNS node %s is asked at %s, want %s", d.Name, d.Address, want)
		}
	}
	a.leads(t, "singapore", "sin1")

	cluster.kill()
	b.kill()
	r.sees(t, map[string]health.Status{"pop/sin1": "degraded", "pop/fra1": "degraded", "cluster/ap": "down", "dns/a": "up", "dns/b": "down"})
	for _, is := range []string{`kind="pop",status="degraded",target="sin1"`, `kind="pop",status="degraded",target="fra1"`, `kind="dns",status="down",target="b"`} {
		a.metric(t, "isochrone_verdict{"+is+"}", "1")
	}
	why := r.run(t, "explain", "intake.isochrone.test", "--subnet", "13.228.0.0/24")
	if !strings.Contains(why, "it says itself: no cluster can be reached") {
		t.Errorf("explain does not say why PoPs are degraded:\n%s", why)
	}
	a.leads(t, "singapore", "sin1") // no other is better

	start(t, "cluster ap takes", "cluster", "ap", "--dir", r.dir, "--listen", at)
	r.sees(t, map[string]health.Status{"pop/sin1": "up", "pop/fra1": "up", "cluster/ap": "up"})
	a.interrupt(t)
	r.sees(t, map[string]health.Status{"dns/a": "", "dns/b": "down"})
}

func TestNames(t *testing.T) {
	t.Parallel()
	listen := []string{"dns", "--dir", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "", "--etcd", "http://127.0.0.1:1"}
	for name, says := range map[string]string{"no name": "1 to 63 letters", "-x": "1 to 63 letters", strings.Repeat("x", 64): "1 to 63 letters"} {
		if said := mustFail(t, append(listen, "--name="+name)...); !strings.Contains(said, says) {
			t.Errorf("--name %q: %s", name, said)
		}
	}
	if said := mustFail(t, append(listen, "--etcd-user", "dns:a", "--etcd-password-file", "none", "--name", "b")...); !strings.Contains(said, "known as a") {
		t.Errorf("the name of another user of etcd: %s", said)
	}
	for _, serves := range []string{"0.0.0.0:53", "192.0.2.53", "192.0.2.53:0"} {
		if said := mustFail(t, append(listen, "--serves", serves)...); !strings.Contains(said, "serves: ") {
			t.Errorf("--serves %s: %s", serves, said)
		}
	}
}

// TestRestartWithoutEtcd ends etcd for good, and with it five PoPs, and then restarts a DNS node: from its first answer on it sends nobody to the dead,
// and it hears others, and they hear it.
func TestRestartWithoutEtcd(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--without", "sin1")
	reports := func() string { return sockettest.Free(t).String() }
	start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir, "--http", "127.0.0.1:0", "--reports", reports())
	dir, at := t.TempDir(), reports()
	a := startDNS(t, r, dir, "--etcd", r.Etcd, "--name", "a", "--reports", at)
	b := startDNS(t, r, t.TempDir(), "--etcd", r.Etcd, "--name", "b", "--reports", reports())
	r.sees(t, map[string]health.Status{"pop/sin1": "up", "pop/fra1": "up", "dns/a": "up", "dns/b": "up"})
	a.leads(t, "frankfurt", "fra1")
	heard := regexp.MustCompile(`"(\d) of 3 others are heard"`)
	hears := func(d *dnsProcess, least string) {
		t.Helper()
		eventually(t, "it hears "+least+" others", func() error {
			_, body, err := d.get("/ready")
			if found := heard.FindStringSubmatch(body); err == nil && (found == nil || found[1] < least) {
				err = fmt.Errorf("/ready says %s", body)
			}
			return err
		})
	}
	hears(a, "3")
	hears(b, "3")

	r.kill()
	a.leads(t, "frankfurt", "sin1")
	hears(a, "2")
	eventually(t, "the verdicts to be on disk", func() error {
		text, err := os.ReadFile(filepath.Join(dir, "dns", verdictsFile))
		for _, dead := range []string{"fra1", "gru1", "iad1", "jnb1", "nrt1"} {
			if err == nil && !strings.Contains(string(text), `"Name":"`+dead+`","status":"down"`) {
				err = fmt.Errorf("%s is not down in %s", dead, text)
			}
		}
		return err
	})
	for _, end := range []func(){a.kill, func() { a.interrupt(t) }} {
		end()
		a = startDNSIn(t, r, dir, "--etcd", r.Etcd, "--name", "a", "--reports", at)
		if addrs, err := a.ask("18.184.0.0/24"); err != nil || a.popAt(addrs) != "sin1" {
			t.Errorf("its first answer leads to %v, %v: want sin1", addrs, err)
		}
		hears(a, "2")
		hears(b, "2")
	}
}
