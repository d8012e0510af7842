package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology/store"
)

// nearest is the PoP that clients of each place belong to.
var nearest = map[string]string{
	"singapore": "sin1", "frankfurt": "fra1", "virginia": "iad1", "tokyo": "nrt1", "sao-paulo": "gru1", "johannesburg": "jnb1",
}

func TestSixCities(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	dig, kdig := need(t, "dig"), need(t, "kdig")
	host, port, _ := net.SplitHostPort(r.DNS)
	for place, pop := range nearest {
		if got, err := r.pop(sendPlaces[place]); err != nil || got != pop {
			t.Errorf("%s: got %s, %v, want %s", place, got, err, pop)
		}
		want := netip.MustParseAddrPort(r.PoPs[pop]).Addr().String()
		for _, tool := range [][]string{
			{dig, "@" + host, "-p", port, "intake.isochrone.test", "+subnet=" + sendPlaces[place], "+short"},
			{dig, "@" + host, "-p", port, "intake.isochrone.test", "+subnet=" + sendPlaces[place], "+short", "+tcp"},
			{kdig, "@" + host, "-p", port, "intake.isochrone.test", "+subnet=" + sendPlaces[place], "+short"},
		} {
			out, err := exec.Command(tool[0], tool[1:]...).Output()
			if got := strings.TrimSpace(string(out)); err != nil || got != want {
				t.Errorf("%v: got %s, %v, want %s", tool, got, err, want)
			}
		}
		got := decode[sent](t, r.run(t, "send", "--from", place, "--json"))
		if got.Status != 202 || got.PoP != pop || got.Endpoint != r.PoPs[pop] || got.Protocol != "h3" {
			t.Errorf("send from %s: got %+v", place, got)
		}
		explained := r.run(t, "explain", "intake.isochrone.test", "--subnet", sendPlaces[place])
		if !strings.Contains(explained, "\n→  "+pop+" ") || strings.Contains(explained, "only the country is known") != (place == "virginia" || place == "sao-paulo") {
			t.Errorf("explain for %s: got\n%s", place, explained)
		}
	}
	if got, err := r.pop("2400:8900::/56"); err != nil || got != "nrt1" {
		t.Errorf("an IPv6 client in Japan: got %s, %v", got, err)
	}
}

// TestDrainAndEdits is alone, so that the addresses of its first start are free at the second.
func TestDrainAndEdits(t *testing.T) {
	etcdctl := need(t, "etcdctl")
	r := startUp(t, "")
	put := func(pop string, change func(string) string) {
		t.Helper()
		text := change(r.run(t, "topology", "get", "pops/"+pop))
		command := exec.Command(etcdctl, "--endpoints", r.Etcd, "put", "/isochrone/topology/pops/"+pop)
		command.Stdin, command.Env = strings.NewReader(text), append(os.Environ(), "ETCDCTL_API=3")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("etcdctl: %v: %s", err, out)
		}
	}

	eventually(t, "a drain that needs no --yes", func() error { // all other PoPs may seem down where everything is slow
		_, said, err := isochrone(t, "drain", "sin1", "--for", "1h", "--reason", "power works", "--dir", r.dir)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return err
	})
	r.leads(t, "singapore", "nrt1")
	if out := r.run(t, "status"); !strings.Contains(out, "power works") {
		t.Errorf("status does not tell of the drain:\n%s", out)
	}
	r.run(t, "undrain", "sin1")
	r.leads(t, "singapore", "sin1")

	put("fra1", func(s string) string { return strings.Replace(s, "state: active", "state: draining", 1) })
	r.leads(t, "frankfurt", "iad1")
	put("fra1", func(s string) string { return strings.Replace(s, "state: draining", "state: active", 1) })
	r.leads(t, "frankfurt", "fra1")

	// By the command, an invalid topology is refused; by etcdctl it is ignored. Both name all faults.
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("schema: 1\npops:\n  sin1: {schema: 1, location: {lat: 135, lon: 0, country: SG}, addresses: [127.0.1.1], stat: active}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := mustFail(t, "topology", "apply", "-f", broken, "--dir", r.dir); !strings.Contains(said, "135") || !strings.Contains(said, "stat") {
		t.Errorf("apply says %s", said)
	}
	put("fra1", func(s string) string {
		return strings.Replace(strings.Replace(s, "lat: 50.1155", "lat: 150", 1), "state: active", "state: actve", 1)
	})
	eventually(t, "status to tell of the faults", func() error {
		out := r.run(t, "status")
		if !strings.Contains(out, "not in force") || !strings.Contains(out, "150") || !strings.Contains(out, "actve") {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
	for place, pop := range nearest {
		r.leads(t, place, pop)
	}
	r.run(t, "drain", "jnb1", "--reason", "in spite of the typo", "--yes")
	r.leads(t, "johannesburg", "fra1")
	r.run(t, "undrain", "jnb1")
	r.leads(t, "johannesburg", "jnb1")

	// A restart comes up with the last good topology, and the next valid edit takes effect.
	r.interrupt(t)
	r = startUp(t, r.dir)
	for place, pop := range nearest {
		r.leads(t, place, pop)
	}
	put("fra1", func(s string) string {
		return strings.Replace(strings.Replace(s, "lat: 150", "lat: 50.1155", 1), "state: actve", "state: disabled", 1)
	})
	r.leads(t, "frankfurt", "iad1")
}

func TestKilledPoP(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--without", "sin1")
	r.leads(t, "singapore", "nrt1")
	config := filepath.Join(t.TempDir(), "pop.yaml")
	if err := os.WriteFile(config, []byte("dir: "+r.dir+"\nhttp: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pop := start(t, "PoP sin1 serves", "pop", "sin1", "--config", config)
	m := &monitored{regexp.MustCompile(`\((http://.*)\)`).FindStringSubmatch(pop.output.String())[1]}
	m.isReady(t, 200, "the disk takes what is written")
	r.leads(t, "singapore", "sin1")
	got := decode[sent](t, r.run(t, "send", "--from", "singapore", "--json"))
	if got.Status != 202 || got.PoP != "sin1" || got.Cluster != "ap" {
		t.Errorf("send: got %+v", got)
	}
	for name, want := range map[string]string{
		`isochrone_intake_accepted_total{pop="sin1"}`: "1", `isochrone_forward_acknowledged_total{pop="sin1"}`: "1", "isochrone_ready": "1",
		`isochrone_forward_cluster_standing{cluster="ap",pop="sin1",standing="well"}`: "1", "isochrone_topology_faults": "0",
	} {
		m.metric(t, name, want)
	}
	become := func(from, to string) {
		t.Helper()
		text := strings.Replace(r.run(t, "topology", "get", "pops/sin1"), "state: "+from, "state: "+to, 1)
		edit := filepath.Join(t.TempDir(), "sin1.yaml")
		if err := os.WriteFile(edit, []byte("schema: 1\npops:\n  sin1:\n    "+strings.ReplaceAll(text, "\n", "\n    ")), 0o600); err != nil {
			t.Fatal(err)
		}
		r.run(t, "topology", "apply", "-f", edit)
	}
	become("active", "disabled")
	m.isReady(t, 503, `"disabled"`)
	m.metric(t, "isochrone_ready", "0")
	become("disabled", "active")
	m.isReady(t, 200, `"active"`)
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{r.Etcd}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	eventually(t, "both processes to tell of themselves", func() error {
		nodes, err := store.New(client, storeRoot).Nodes(t.Context())
		if here := nodes[store.NodeName("up", hostName())]; err != nil || nodes["pop:sin1"].Kind != "pop" || here.Hash == "" {
			return fmt.Errorf("got %v, %v", nodes, err)
		}
		return nil
	})
	pop.kill()
	r.leads(t, "singapore", "nrt1")
	pop = start(t, "PoP sin1 serves", "pop", "sin1", "--dir", r.dir)
	r.leads(t, "singapore", "sin1")
	if said := mustFail(t, "pop", "sin1", "--dir", r.dir); !strings.Contains(said, "in use") {
		t.Errorf("a second process for the PoP says %s", said)
	}
	pop.interrupt(t)
	r.leads(t, "singapore", "nrt1")
	if said := mustFail(t, "pop", "mars1", "--dir", r.dir); !strings.Contains(said, "no PoP mars1") {
		t.Errorf("a PoP that is not: %s", said)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	first := startUp(t, "")
	key := strings.TrimSpace(first.run(t, "key", "create", "--note", "mine", "--quota", "5"))
	first.run(t, "drain", "sin1", "--reason", "over the restart", "--yes")
	if said := mustFail(t, "up", "--dir", first.dir); !strings.Contains(said, "in use by another isochrone") {
		t.Errorf("a second one in the same folder says %s", said)
	}
	first.interrupt(t)
	if _, err := statedir.ReadUp(first.dir); err == nil {
		t.Error("up.json is left behind")
	}
	if said := mustFail(t, "status", "--dir", first.dir); !strings.Contains(said, "isochrone is not up") {
		t.Errorf("status says %s", said)
	}
	second := startUp(t, first.dir)
	if second.APIKey != first.APIKey || second.PoPs["fra1"] != first.PoPs["fra1"] {
		t.Errorf("before %+v, after %+v", first.Up, second.Up)
	}
	second.leads(t, "singapore", "nrt1")
	if got := decode[sent](t, second.run(t, "send", "--from", "tokyo", "--json", "--key", key)); got.Status != 202 {
		t.Errorf("with a key of before: got %+v", got)
	}
	for _, warning := range []string{"level=WARN", "level=ERROR", "WARNING", "grpc"} {
		if strings.Contains(first.output.String()+second.output.String(), warning) {
			t.Errorf("it warns on the terminal:\n%s%s", first.output, second.output)
		}
	}
	second.kill() // and up.json stays, of a process that is no more
	third := startUp(t, first.dir)
	third.leads(t, "frankfurt", "fra1")
}

func TestOneAddress(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--one-address", "--pop-port", fmt.Sprint(30_000+rand.N(2_000)))
	var ports []uint16
	for name, at := range r.PoPs {
		addr := netip.MustParseAddrPort(at)
		if addr.Addr() != netip.MustParseAddr("127.0.0.1") || slices.Contains(ports, addr.Port()) {
			t.Errorf("PoP %s is at %v", name, addr)
		}
		ports = append(ports, addr.Port())
	}
	for place, pop := range nearest {
		for _, h2 := range []string{"--h2=false", "--h2"} {
			if got := decode[sent](t, r.run(t, "send", "--from", place, "--json", h2)); got.Status != 202 || got.PoP != pop || got.Endpoint != r.PoPs[pop] {
				t.Errorf("send %s from %s: got %+v", h2, place, got)
			}
		}
	}
	// The ports are in the topology, so a later start without the flag has them too.
	r.interrupt(t)
	again := startUp(t, r.dir)
	if fmt.Sprint(again.PoPs) != fmt.Sprint(r.PoPs) {
		t.Errorf("before %v, after %v", r.PoPs, again.PoPs)
	}
}

func TestTakenPorts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	free := map[string]string{"--dns": "127.0.0.1:0", "--api": "127.0.0.1:0", "--etcd": "127.0.0.1:0", "--pop-port": "0"}
	for flag := range free {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			args := []string{"up", "--one-address", "--dir", t.TempDir()}
			for other, value := range free {
				if other == flag && flag == "--pop-port" {
					value = fmt.Sprint(port)
				} else if other == flag {
					value = taken.Addr().String()
				}
				args = append(args, other, value)
			}
			said := mustFail(t, args...)
			if !strings.Contains(said, fmt.Sprintf("127.0.0.1:%d is taken", port)) || !strings.Contains(said, flag) || strings.Count(said, "\n") != 1 {
				t.Errorf("it says %s", said)
			}
		})
	}
	for _, test := range []struct{ args, want string }{
		{"--dns nowhere", "--dns"},
		{"--without mars1", "sin1"},
		{"--geoip /nonexistent.mmdb", "--geoip"},
	} {
		args := append([]string{"up", "--dir", t.TempDir(), "--etcd", "127.0.0.1:0", "--pop-port", "0"}, strings.Fields(test.args)...)
		if said := mustFail(t, args...); !strings.Contains(said, test.want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: it says %s", test.args, said)
		}
	}
}

// TestSourcesAreReadAgain writes the operator's own files while the world runs: what can be used takes effect, what cannot
// does not.
func TestSourcesAreReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table, pings := filepath.Join(dir, "table.csv"), filepath.Join(dir, "pings.csv")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
	}
	write(table, "prefix,lat,lon,country\n13.228.0.0/24,-23.5,-46.6,BR\n")
	write(pings, "prefix,pop,rtt_ms,samples\n")
	r := startUp(t, "", "--geo-table", table, "--rtt-csv", pings)
	r.leads(t, "singapore", "gru1")
	write(table, "prefix,lat,lon,country\n13.228.0.0/24,50.1,8.7,DE\n")
	r.leads(t, "singapore", "fra1")
	write(table, "prefix,lat,lon,country\n13.228.0.0/24,150,8.7,DE\n")
	eventually(t, "the broken file to be told", func() error {
		if out := r.output.String(); !strings.Contains(out, "the old one stays") || !strings.Contains(out, "line 2: lat") {
			return fmt.Errorf("it printed\n%s", out)
		}
		return nil
	})
	r.leads(t, "singapore", "fra1")
	write(pings, "prefix,pop,rtt_ms,samples\n13.228.0.0/16,nrt1,1,1000\n")
	r.leads(t, "singapore", "nrt1")
	if out := r.run(t, "explain", "intake.isochrone.test", "--subnet", sendPlaces["singapore"]); !strings.Contains(out, "1.0 ms, 100 %") {
		t.Errorf("explain tells nothing of the measurement:\n%s", out)
	}
	if out := r.run(t, "explain", "intake.isochrone.test", "--subnet", sendPlaces["singapore"], "--if", "pop nrt1 down"); !strings.Contains(out, "answer: fra1") {
		t.Errorf("without nrt1:\n%s", out)
	}
}
