package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need skips a test, or fails it in CI, when programs are missing.
func need(t *testing.T, programs ...string) (paths []string) {
	t.Helper()
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
		}
		switch {
		case err == nil:
			paths = append(paths, path)
		case os.Getenv("CI") != "":
			t.Fatalf("CI has no %s: install the packages bird2 and iproute2", name)
		default:
			t.Skipf("there is no %s: install the packages bird2 and iproute2", name)
		}
	}
	return paths
}

// bird is a router.
type bird struct {
	t                     *testing.T
	birdc, socket, config string
}

// startBIRD starts a router, with some words before its command.
func startBIRD(t *testing.T, config string, before ...string) *bird {
	t.Helper()
	programs := need(t, "bird", "birdc")
	dir := t.TempDir()
	b := &bird{t: t, birdc: programs[1], socket: filepath.Join(dir, "ctl"), config: filepath.Join(dir, "bird.conf")}
	path := b.config
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	words := append(before, programs[0], "-f", "-c", path, "-s", b.socket, "-P", filepath.Join(dir, "pid"))
	log := new(lockedBuffer)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stderr, cmd.Stdout = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("routes and protocols:\n%s%s", b.ask("show route all"), b.ask("show protocols all"))
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("BIRD:\n%s", log)
		}
	})
	until(t, "BIRD answers", func() bool { return strings.Contains(b.ask("show status"), "up and running") })
	return b
}

// configure gives the router another configuration.
func (b *bird) configure(config string) {
	b.t.Helper()
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if said := b.ask("configure"); !strings.Contains(said, "Reconfig") {
		b.t.Fatalf("BIRD does not take it: %s", said)
	}
}

// ask returns what birdc says.
func (b *bird) ask(command string) string {
	out, err := exec.Command(b.birdc, "-s", b.socket, command).CombinedOutput()
	if err != nil {
		return "" // it does not answer yet
	}
	return string(out)
}

// via returns from which protocols the router has a route to a prefix, the one that it uses first.
func (b *bird) via(prefix string) []string {
	var used, all []string
	for line := range strings.Lines(b.ask("show route " + prefix)) {
		_, rest, ok := strings.Cut(line, "[")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(rest, " ")
		if strings.Contains(rest, "] *") {
			used = append(used, name)
		} else {
			all = append(all, name)
		}
	}
	return append(used, all...)
}

func (b *bird) uses(prefix, peer string) bool {
	via := b.via(prefix)
	return len(via) > 0 && via[0] == peer
}

func (b *bird) has(prefix, peer string) bool {
	for _, one := range b.via(prefix) {
		if one == peer {
			return true
		}
	}
	return false
}

const (
	vip4, vip6 = "198.18.53.0/24", "2001:db8:53::/48"
	route203   = "203.0.113.0/24" // that the router tells, and nobody takes
)

// TestRoutesMoveWithBIRD has two PoPs announce one VIP to one router over loopback, and sees there how its routes move when the first one
// fails, is drained, is killed, and comes again, and what the floor holds.
func TestRoutesMoveWithBIRD(t *testing.T) {
	t.Parallel()
	need(t, "bird", "birdc")
	net := fmt.Sprintf("127.%d.%d.", 100+rand.IntN(100), rand.IntN(250))
	router := startBIRD(t, strings.NewReplacer("NET.", net).Replace(`
router id 10.0.0.1;
log stderr all;
protocol device {}
protocol direct { ipv4; interface "lo"; }
protocol static { ipv4; route 203.0.113.0/24 unreachable; }
filter less_for_drained { if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }
template bgp pop {
	local NET.1 port 10179 as 64500;
	strict bind; passive; multihop; hold time 3; keepalive time 1;
	ipv4 { import filter less_for_drained; export all; };
	ipv6 { import filter less_for_drained; export none; };
}
protocol bgp a from pop { neighbor NET.2 as 64512; }
protocol bgp b from pop { neighbor NET.3 as 64512; }
`))
	file := func(own, more string) string {
		return fmt.Sprintf(`
asn: 64512
announces: [%s, "%s"]
communities: ["64512:7", "64512:1:2"]
rise: 1s
drain: 2s
%s
peers:
  leaf: {address: %s1, port: 10179, local_address: %s, asn: 64500, multihop: 5, hold_time: 3s, families: [ipv4, ipv6], next_hops: ["2001:db8:1::7"]}
`, vip4, vip6, more, net, own)
	}
	well := Check{OK: true, Reason: "accepted a probe"}
	orderA := orders{File: file(net+"2", "med: 10"), Own: []netip.Addr{netip.MustParseAddr(net + "2")}, Service: well, Verdict: well, Known: true, Others: []Other{{"b", Stays}}}
	orderB := orders{File: file(net+"3", "prepend: 2"), Own: []netip.Addr{netip.MustParseAddr(net + "3")}, Service: well, Verdict: well, Known: true, Others: []Other{{"a", Stays}}}
	a, b := startSpeaker(t, "a", orderA), startSpeaker(t, "b", orderB)

	took := until(t, "both are announced, and a is used", func() bool {
		return router.uses(vip4, "a") && router.has(vip4, "b") && router.uses(vip6, "a") && router.has(vip6, "b")
	})
	t.Logf("announced %v after the start", took)
	until(t, "both tell that their sessions are up", func() bool { return a.established() && b.established() })
	details := router.ask("show route all " + vip4 + " protocol a")
	for _, want := range []string{"BGP.as_path: 64512\n", "BGP.next_hop: " + net + "2", "BGP.med: 10", "BGP.community: (64512,7)\n", "BGP.large_community: (64512, 1, 2)"} {
		if !strings.Contains(details, want) {
			t.Errorf("the route of a lacks %q:\n%s", want, details)
		}
	}
	if details := router.ask("show route all " + vip6 + " protocol b"); !strings.Contains(details, "BGP.as_path: 64512 64512 64512\n") || !strings.Contains(details, "BGP.next_hop: 2001:db8:1::7") {
		t.Errorf("the IPv6 route of b:\n%s", details)
	}
	until(t, "the router's own route has come to a", func() bool { return a.now().Sessions[0].Received > 0 })
	if via := router.via(route203); len(via) != 1 || via[0] != "static1" {
		t.Errorf("the router has %s from %v: a PoP is no transit", route203, via)
	}

	// The service of a fails, and works again.
	dead := orderA
	dead.Service = Check{Reason: "answered 503"}
	a.tell(dead) // of two, by name, it is a that has to wait for what b says
	took = until(t, "b is used", func() bool { return router.uses(vip4, "b") && router.uses(vip6, "b") })
	gone := until(t, "a is withdrawn", func() bool { return !router.has(vip4, "a") && !router.has(vip6, "a") })
	t.Logf("health failure: the route moved after %v, and was withdrawn after %v more", took, gone)
	if !a.established() {
		t.Error("the session of a is down: want only its routes gone")
	}
	a.tell(orderA)
	t.Logf("well again: back after %v", until(t, "a is used again", func() bool { return router.uses(vip4, "a") }))

	// An edit changes attributes, and no session begins anew.
	since := a.now().Sessions[0].Since
	edited := orderA
	edited.File = file(net+"2", "prepend: 1\nmed: 20")
	a.tell(edited)
	until(t, "the edit is seen", func() bool {
		details := router.ask("show route all " + vip4 + " protocol a")
		return strings.Contains(details, "BGP.as_path: 64512 64512\n") && strings.Contains(details, "BGP.med: 20")
	})
	if s := a.now().Sessions[0]; s.State != Established || !s.Since.Equal(since) {
		t.Errorf("the session began anew: %+v", s)
	}

	// A drain.
	drained := orderA
	drained.Operator, drained.Why = GoAway, "maintenance"
	a.tell(drained)
	took = until(t, "b is used while a is announced with the community", func() bool {
		return router.uses(vip4, "b") && strings.Contains(router.ask("show route all "+vip4+" protocol a"), "(65535,0)")
	})
	gone = until(t, "a is withdrawn", func() bool { return !router.has(vip4, "a") })
	t.Logf("drain: GRACEFUL_SHUTDOWN moved the route after %v, and it was withdrawn after %v more", took, gone)
	if gone < time.Second {
		t.Errorf("withdrawn %v after the community was announced, want 2s", gone)
	}
	a.tell(orderA)
	until(t, "a is used again", func() bool { return router.uses(vip4, "a") })

	// kill -9.
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	t.Logf("kill -9: the route moved after %v", until(t, "b is used", func() bool { return router.uses(vip4, "b") && !router.has(vip4, "a") }))

	// The floor holds the last one, with the community; then b ends by itself, and drains whatever the floor says.
	dead = orderB
	dead.Service, dead.Others = Check{Reason: "answered 503"}, nil
	b.tell(dead)
	until(t, "b is held", func() bool {
		return strings.Contains(b.reason(), "held by the floor: of 1 that announce") && strings.Contains(router.ask("show route all "+vip4), "(65535,0)")
	})
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	t.Logf("end of the process: withdrawn after %v", until(t, "b is withdrawn", func() bool { return !router.has(vip4, "b") }))
	if err := <-b.ended; err != nil {
		t.Error(err)
	}
	b.ended <- nil
}
