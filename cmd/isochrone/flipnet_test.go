//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// flipVIP is what all PoPs of a flipNet announce.
const flipVIP = "198.51.100.1"

// flipPoPs are the PoPs of a flipNet; number i is at 10.9.i+1.2.
var flipPoPs = []string{"sin1", "fra1", "iad1"}

// flipNet is a network of network namespaces: clients, a router with BIRD, where the rest of the world is too, and PoPs that announce one VIP.
type flipNet struct {
	t       *testing.T
	ip      string
	birdc   string
	name    string // that those of the namespaces begin with
	dir     string // of the state, which all share
	control string // BIRD's socket
	config  string // its file
	pops    map[string]*process
	pids    map[string]int // changed by an upgrade
}

// newFlipNet makes the namespaces, starts the router and a world in them, and adds the PoPs to its topology. It needs root.
func newFlipNet(t *testing.T) *flipNet {
	t.Helper()
	f := &flipNet{t: t, ip: need(t, "ip"), birdc: need(t, "birdc"), name: fmt.Sprintf("iso%d", rand.IntN(1_000_000)), dir: t.TempDir()}
	f.pops, f.pids = map[string]*process{}, map[string]int{}
	if os.Getuid() != 0 {
		t.Skip("network namespaces are for root")
	}
	if out, err := exec.Command(f.ip, "netns", "add", f.name+"router").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has no network namespaces: %v: %s", err, out)
		}
		t.Skipf("this machine has no network namespaces: %v: %s", err, out)
	}
	f.removed("router")
	f.run("-n", f.name+"router", "link", "set", "lo", "up")
	f.run("-n", f.name+"router", "addr", "add", "10.9.9.9/32", "dev", "lo")
	for _, setting := range []string{"ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"} { // answers come from where no route leads to
		name, value, _ := strings.Cut(setting, "=")
		f.run("netns", "exec", f.name+"router", "sh", "-c", "echo "+value+" > /proc/sys/net/ipv4/"+strings.ReplaceAll(name, ".", "/"))
	}
	for i, end := range append([]string{"client"}, flipPoPs...) {
		f.cable(i, end)
	}
	for _, pop := range flipPoPs {
		f.run("-n", f.name+pop, "addr", "add", flipVIP+"/32", "dev", "lo")
	}
	f.startBIRD()
	f.startWorld()
	return f
}

func (f *flipNet) run(words ...string) string {
	f.t.Helper()
	out, err := exec.Command(f.ip, words...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("ip %s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

func (f *flipNet) removed(end string) {
	f.t.Cleanup(func() { _ = exec.Command(f.ip, "netns", "del", f.name+end).Run() }) // with its cable
}

// cable makes a namespace, and connects it with the router.
func (f *flipNet) cable(i int, end string) {
	f.run("netns", "add", f.name+end)
	f.removed(end)
	port := fmt.Sprintf("p%d", i)
	f.run("link", "add", port, "netns", f.name+"router", "type", "veth", "peer", "name", "up0", "netns", f.name+end)
	f.run("-n", f.name+"router", "addr", "add", fmt.Sprintf("10.9.%d.1/24", i), "dev", port)
	f.run("-n", f.name+"router", "link", "set", port, "up")
	f.run("-n", f.name+end, "addr", "add", fmt.Sprintf("10.9.%d.2/24", i), "dev", "up0")
	f.run("-n", f.name+end, "link", "set", "up0", "up")
	f.run("-n", f.name+end, "link", "set", "lo", "up")
	f.run("-n", f.name+end, "route", "add", "default", "via", fmt.Sprintf("10.9.%d.1", i))
}

// in returns a command in a namespace.
func (f *flipNet) in(end string, words ...string) *exec.Cmd {
	return exec.Command(f.ip, append([]string{"netns", "exec", f.name + end}, words...)...)
}

// isochrone runs a command beside the world.
func (f *flipNet) isochrone(words ...string) string {
	f.t.Helper()
	command := f.in("router", append(append([]string{program}, words...), "--dir", f.dir)...)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		f.t.Fatalf("isochrone %s: %v: %s%s", strings.Join(words, " "), err, out, &said)
	}
	return string(out)
}

func (f *flipNet) startBIRD() {
	dir := f.t.TempDir()
	f.control, f.config = filepath.Join(dir, "ctl"), filepath.Join(dir, "bird.conf")
	f.prefer("")
	router := f.in("router", need(f.t, "bird"), "-f", "-s", f.control, "-P", filepath.Join(dir, "pid"), "-c", f.config)
	log := new(output)
	router.Stderr = log
	if err := router.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Logf("BIRD: %s\n%s", f.bird("show route all"), log)
		}
		_ = router.Process.Kill()
		_ = router.Wait() // it was killed
	})
	eventually(f.t, "BIRD answers", func() error {
		if said := f.bird("show status"); !strings.Contains(said, "up and running") {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
}

func (f *flipNet) bird(command string) string {
	out, _ := exec.Command(f.birdc, "-s", f.control, command).CombinedOutput() // what it says is looked at
	return string(out)
}

// prefer has the router prefer a PoP's route, as far as it has one.
func (f *flipNet) prefer(pop string) {
	f.t.Helper()
	text := `
router id 10.9.9.9;
log stderr { warning, error, fatal, bug };
protocol device {}
protocol kernel { ipv4 { import none; export all; }; }
template bgp pop {
	local as 64500; passive; hold time 60;
	ipv4 { import table on; export none; import filter {
		if (65535, 0) ~ bgp_community then bgp_local_pref = 0; else if proto = "` + pop + `" then bgp_local_pref = 200;
		accept;
	}; };
}
`
	for i, name := range flipPoPs {
		text += fmt.Sprintf("protocol bgp %s from pop { local 10.9.%d.1 as 64500; neighbor 10.9.%d.2 as 64512; }\n", name, i+1, i+1)
	}
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if pop != "" {
		if said := f.bird("configure"); !strings.Contains(said, "Reconfig") {
			f.t.Fatalf("BIRD does not take it: %s", said)
		}
	}
}

// route returns the PoP that the router's kernel sends the VIP's packets to.
func (f *flipNet) route() string {
	out, _ := exec.Command(f.ip, "-n", f.name+"router", "route", "get", flipVIP).CombinedOutput() // an error is no route
	for i, name := range flipPoPs {
		if bytes.Contains(out, fmt.Appendf(nil, "via 10.9.%d.2 ", i+1)) {
			return name
		}
	}
	return ""
}

// leads waits until the route leads to a PoP.
func (f *flipNet) leads(pop string) {
	f.t.Helper()
	eventually(f.t, "the route to lead to "+pop, func() error {
		if now := f.route(); now != pop {
			return fmt.Errorf("it leads to %q", now)
		}
		return nil
	})
}

// flip moves the route to a PoP that announces.
func (f *flipNet) flip(pop string) {
	f.t.Helper()
	f.prefer(pop)
	f.leads(pop)
}

// startWorld runs etcd, DNS, control plane and a cluster on the router, and adds the PoPs to the topology.
func (f *flipNet) startWorld() {
	flags := []string{
		program, "up", "--dir", f.dir, "--dns", "10.9.9.9:53", "--api", "127.0.0.1:8080", "--etcd", "10.9.9.9:2379",
		"--without", strings.Join(flipPoPs, ","), "--without", "ap",
	}
	startCommand(f.t, "isochrone is up", f.in("router", flags...))
	topology := f.isochrone("topology", "get")
	for i, pop := range flipPoPs {
		from := regexp.MustCompile(`(?s)(\n  ` + pop + `:\n.*?addresses: )\[[0-9.]*\]`)
		at := fmt.Sprintf("10.9.%d", i+1)
		topology = from.ReplaceAllString(topology, "${1}["+at+".2]\n    vips: ["+flipVIP+"]\n    announces: [198.51.100.0/24]\n"+
			"    bgp: {asn: 64512, rise: 1s, drain: 1s, peers: {router: {address: "+at+".1, asn: 64500, hold_time: 1m}}}")
	}
	for _, other := range []string{"gru1", "jnb1", "nrt1", "eu", "us"} { // PoPs cannot reach them
		topology = regexp.MustCompile(`(?m)^  `+other+`:\n(    .*\n)+`).ReplaceAllString(topology, "")
	}
	topology = regexp.MustCompile(`http://127.0.2.1:[0-9]+`).ReplaceAllString(topology, "http://10.9.9.9:8090")
	path := filepath.Join(f.t.TempDir(), "topology.yaml")
	if err := os.WriteFile(path, []byte(topology), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.isochrone("topology", "apply", "-f", path, "--replace", "--yes")
	for _, pop := range flipPoPs { // a machine on which nothing gets any time is not to decide on routes here
		f.isochrone("force", pop, "up", "--for", "1h", "--reason", "a test")
	}
	startCommand(f.t, "cluster ap", f.in("router", programOf(f.t, "cluster"), "cluster", "ap", "--dir", f.dir, "--listen", "10.9.9.9:8090"))
}

// start starts a PoP, and waits until the router has its route.
func (f *flipNet) start(pop string) {
	f.t.Helper()
	p := startCommand(f.t, "PoP "+pop+" serves", f.in(pop, programOf(f.t, "pop"), "pop", pop, "--dir", f.dir, "--http", "127.0.0.1:9000"))
	f.pops[pop], f.pids[pop] = p, p.command.Process.Pid
	f.t.Cleanup(func() { _ = unix.Kill(f.pids[pop], unix.SIGKILL) }) // the latest one of upgrades
	eventually(f.t, "the route of "+pop, func() error {
		if all := f.bird("show route all protocol " + pop); !strings.Contains(all, "198.51.100.0/24") || strings.Contains(all, "(65535,0)") {
			return fmt.Errorf("the router has %s", all)
		}
		return nil
	})
}

// inside runs what opens a socket in a namespace.
func (f *flipNet) inside(end string, open func() error) (err error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open("/run/netns/" + f.name + end)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = open()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return back // the thread stays locked, and ends
	}
	runtime.UnlockOSThread()
	return err
}

// socket returns a UDP socket of a client.
func (f *flipNet) socket() (c *net.UDPConn) {
	f.t.Helper()
	err := f.inside("client", func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// passed returns how many packets a PoP counts of an outcome.
func (f *flipNet) passed(pop, outcome string) int {
	f.t.Helper()
	text := f.metrics(pop)
	found := regexp.MustCompile(`isochrone_passed_packets_total\{outcome="` + outcome + `",[^}]*\} (\S+)`).FindStringSubmatch(text)
	if found == nil {
		f.t.Fatalf("%s has no metric of packets %s:\n%s", pop, outcome, text)
	}
	count, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return int(count)
}

// metrics returns all metrics of a PoP.
func (f *flipNet) metrics(pop string) string {
	f.t.Helper()
	token, err := os.ReadFile(filepath.Join(f.dir, "api.token"))
	if err != nil {
		f.t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = f.inside(pop, func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}}
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://127.0.0.1:9000/metrics", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := transport.RoundTrip(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}
