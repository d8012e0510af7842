package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestBGP has a PoP and a DNS node of a running world announce to BIRD: with a password, while their own service works, until they are drained
// or end.
func TestBGP(t *testing.T) {
	bird, birdc := need(t, "bird"), need(t, "birdc")
	dir, net := t.TempDir(), fmt.Sprintf("127.%d.%d.", 100+rand.IntN(100), rand.IntN(250))
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "NET.", net)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	socket := filepath.Join(dir, "ctl")
	router := exec.Command(bird, "-f", "-s", socket, "-P", filepath.Join(dir, "pid"), "-c", file("bird.conf", `
router id 10.0.0.1;
log stderr all;
protocol device {}
template bgp node {
	local NET.1 port 10179 as 64500; strict bind; passive; multihop; hold time 9; password "of the test";
	ipv4 { import all; export none; };
}
protocol bgp pop from node { neighbor NET.2 as 64512; }
protocol bgp dns from node { neighbor NET.3 as 64512; }
`))
	router.Stderr = os.Stderr
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = router.Process.Kill()
		_ = router.Wait() // it was killed
	})
	routes := func(parts ...string) func() error {
		return func() error {
			out, err := exec.Command(birdc, "-s", socket, "show route all").CombinedOutput()
			for _, part := range parts {
				if missing := !strings.Contains(string(out), strings.TrimPrefix(part, "no ")); missing != strings.HasPrefix(part, "no ") {
					err = errors.Join(err, fmt.Errorf("want %s:\n%s", part, out))
				}
			}
			return err
		}
	}
	passwords := file("passwords", "leaf: of the test")

	r := startUp(t, "", "--without", "sin1")
	text := r.run(t, "topology", "get")
	before, after, _ := strings.Cut(text, "  sin1:\n    schema: 1\n")
	edited := file("topology.yaml", before+`  sin1:
    schema: 1
    announces: [198.18.53.0/24]
    bgp: {asn: 64512, drain: 2s, rise: 1s, peers: {leaf: {address: NET.1, port: 10179, local_address: NET.2, asn: 64500, multihop: 2, md5: true}}}
`+after)
	r.run(t, "topology", "apply", "-f", edited, "--yes")
	pop := start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir, "--http", "127.0.0.1:0", "--bgp-password-file", passwords)
	d := startDNS(t, r, t.TempDir(), "--etcd", r.Etcd, "--bgp-password-file", passwords, "--bgp-config", file("bgp.yaml", `
announces: [198.18.54.0/24]
asn: 64512
rise: 1s
drain: 1s
router_id: 10.0.0.3
peers: {leaf: {address: NET.1, port: 10179, local_address: NET.3, asn: 64500, multihop: 2, md5: true}}
`))
	eventually(t, "both announce", routes("198.18.53.0/24", "198.18.54.0/24", "[pop", "[dns"))
	eventually(t, "the status shows it", func() error {
		shown := mustRun(t, "bgp", "show", "--http", strings.TrimPrefix(d.http, "http://"))
		for _, part := range []string{"198.18.54.0/24  announce", "answers questions", "established", "leaf"} {
			if !strings.Contains(shown, part) {
				return fmt.Errorf("bgp show lacks %q:\n%s", part, shown)
			}
		}
		return nil
	})
	if said := mustFail(t, "bgp", "show", "--http", r.API[len("http://"):]); !strings.Contains(said, "announces nothing") && !strings.Contains(said, "no process of Isochrone") {
		t.Errorf("bgp show of a process that announces nothing: %s", said)
	}

	r.run(t, "drain", "sin1", "--for", "1h", "--reason", "trying", "--yes")
	eventually(t, "the PoP is drained by GRACEFUL_SHUTDOWN", routes("198.18.53.0/24", "(65535,0)"))
	_, at, _ := strings.Cut(pop.output.String(), "(http://")
	at, _, _ = strings.Cut(at, ")")
	eventually(t, "the PoP knows from the store that it is the last one", func() error {
		shown := mustRun(t, "bgp", "show", "--http", at)
		if !strings.Contains(shown, "held by the floor: of 1 that announce") {
			return errors.New(shown)
		}
		return nil
	})
	r.run(t, "force", "sin1", "down", "--for", "1h", "--reason", "whatever the floor says")
	eventually(t, "the PoP is withdrawn", routes("no 198.18.53.0/24", "198.18.54.0/24"))
	r.run(t, "unforce", "sin1")
	r.run(t, "undrain", "sin1")
	eventually(t, "the PoP announces again", routes("198.18.53.0/24"))

	if err := d.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the DNS node drains at its end", routes("198.18.54.0/24", "(65535,0)"))
	if _, err := d.ask("13.228.0.0/24"); err != nil {
		t.Errorf("it does not answer while it drains: %v", err)
	}
	eventually(t, "the DNS node is withdrawn", routes("no 198.18.54.0/24"))
	<-d.ended
}
