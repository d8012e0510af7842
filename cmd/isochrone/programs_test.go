package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// Programs of others, which a DNS node has to get along with: validators, resolvers, secondaries.

// ownAddr returns an address of loopback that no other test has, with a port that is free there over UDP and TCP.
func ownAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(
		netip.AddrFrom4([4]byte{127, byte(1 + rand.N(254)), byte(rand.N(256)), byte(1 + rand.N(254))}), sockettest.Free(t).Port())
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("%v: loopback has one address only", err)
	} else if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	return at
}

// serve starts a program with a configuration file, %s among its arguments, and waits until it answers a question for the SOA
// record of a zone.
func serve(t *testing.T, at netip.AddrPort, zone, config, tool string, args ...string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "%s", file)
	}
	p := &process{command: exec.Command(need(t, tool), args...), ended: make(chan struct{}), output: &output{}}
	p.command.Stdout, p.command.Stderr = p.output, p.output
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.command.Wait()
	}()
	t.Cleanup(func() {
		p.command.Process.Signal(os.Interrupt) // for those that have processes of their own
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
			p.kill()
		}
		if t.Failed() {
			t.Logf("%s with\n%s\nprinted:\n%s", tool, config, p.output)
		}
	})
	eventually(t, tool+" to serve", func() error {
		select {
		case <-p.ended:
			t.Fatalf("%s ended: %v: %s", tool, p.err, p.output)
		default:
		}
		answer, err := askFor(at.String(), zone, mdns.TypeSOA)
		if err == nil && len(answer.Answer) == 0 {
			err = errors.New(mdns.RcodeToString[answer.Rcode])
		}
		return err
	})
	return p
}

// askFor asks a server, as a validating stub resolver does, over TCP where the answer is too long for UDP.
func askFor(at, name string, qtype uint16) (*mdns.Msg, error) {
	question := new(mdns.Msg).SetQuestion(mdns.Fqdn(name), qtype)
	question.SetEdns0(1232, true)
	question.AuthenticatedData = true
	client := mdns.Client{Timeout: 5 * time.Second}
	answer, _, err := client.Exchange(question, at)
	if err == nil && answer.Truncated {
		client.Net = "tcp"
		answer, _, err = client.Exchange(question, at)
	}
	return answer, err
}

// serialOf returns the serial of a zone at a server.
func serialOf(at, zone string) (uint32, error) {
	answer, err := askFor(at, zone, mdns.TypeSOA)
	if err != nil {
		return 0, err
	}
	for _, rr := range answer.Answer {
		if soa, ok := rr.(*mdns.SOA); ok {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("%s has no SOA record: %s", zone, mdns.RcodeToString[answer.Rcode])
}

// keysInUse tells which keys a zone has at a server, and which have signed the DNSKEY records and the SOA record: their tags.
func keysInUse(at, zone string) (string, error) {
	said := ""
	for _, qtype := range []uint16{mdns.TypeDNSKEY, mdns.TypeSOA} {
		answer, err := askFor(at, zone, qtype)
		if err != nil {
			return "", err
		}
		var keys, signers []int
		for _, rr := range answer.Answer {
			switch rr := rr.(type) {
			case *mdns.DNSKEY:
				keys = append(keys, int(rr.KeyTag()))
			case *mdns.RRSIG:
				signers = append(signers, int(rr.KeyTag))
			}
		}
		slices.Sort(keys)
		slices.Sort(signers)
		if qtype == mdns.TypeDNSKEY {
			said = fmt.Sprint("keys ", keys, ", signed by ", signers)
		} else {
			said += fmt.Sprint(", zone signed by ", signers)
		}
	}
	return said, nil
}

// unbound is a validating resolver.
type unbound struct {
	*process
	at string
}

// startUnbound starts a resolver that knows the way to the example zone, to servers that are separated by spaces, and what of it is to be
// trusted. Settings are further lines of the configuration's server clause.
func startUnbound(t *testing.T, servers, anchors string, settings ...string) *unbound {
	t.Helper()
	at, dir := ownAddr(t), t.TempDir()
	for line := range strings.Lines(anchors) {
		settings = append(settings, "trust-anchor: "+strconv.Quote(strings.TrimSpace(line)))
	}
	var stubs strings.Builder
	for _, server := range strings.Fields(servers) {
		fmt.Fprintf(&stubs, "  stub-addr: %s\n", strings.ReplaceAll(server, ":", "@"))
	}
	config := fmt.Sprintf(`server:
  interface: %s
  port: %d
  directory: %q
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  val-log-level: 2
  num-threads: 1
  so-reuseport: no
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  local-zone: test. nodefault
  trust-anchor-signaling: no
  %s
remote-control:
  control-enable: no
stub-zone:
  name: isochrone.test
%s`, at.Addr(), at.Port(), dir, strings.Join(settings, "\n  "), &stubs)
	return &unbound{serve(t, at, "isochrone.test", config, "unbound", "-d", "-p", "-c", "%s"), at.String()}
}

// delv asks a server and validates the answer, down from the trust anchors of a zone, and returns what it says of that.
func delv(t *testing.T, at, zone, anchors, name, qtype string) (verdict, output string) {
	t.Helper()
	var keys strings.Builder
	for line := range strings.Lines(anchors) { // NAME IN DS TAG ALGORITHM DIGEST-TYPE DIGEST
		f := strings.Fields(line)
		fmt.Fprintf(&keys, "trust-anchors { %s static-ds %s %s %s %q; };\n", f[0], f[3], f[4], f[5], f[6])
	}
	file := filepath.Join(t.TempDir(), "anchors")
	if err := os.WriteFile(file, []byte(keys.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	server := netip.MustParseAddrPort(at)
	command := exec.CommandContext(t.Context(), need(t, "delv"), "@"+server.Addr().String(), "-p", strconv.Itoa(int(server.Port())),
		"-a", file, "+root="+zone, name, qtype)
	out, err := command.CombinedOutput()
	if err != nil {
		return err.Error(), string(out)
	}
	var said []string // of each part of a chain of CNAME records
	for _, found := range delvSays.FindAllStringSubmatch(string(out), -1) {
		if !slices.Contains(said, found[1]) {
			said = append(said, found[1])
		}
	}
	return strings.Join(said, "; "), string(out)
}

var delvSays = regexp.MustCompile(`(?m)^; (.*(?:fully validated|unsigned answer))$`)

// startEtcd starts an etcd with nothing in it, and returns a client of it.
func startEtcd(t testing.TB) (*embedded.Etcd, *clientv3.Client) {
	return startEtcdAt(t, "127.0.0.1:0")
}

// startEtcdAt starts one at an address.
func startEtcdAt(t testing.TB, at string) (*embedded.Etcd, *clientv3.Client) {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: at})
	if errors.Is(err, syscall.EADDRINUSE) && strings.HasSuffix(at, ":0") { // another test was faster to take the free port
		etcd, err = embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: at})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return etcd, client
}
