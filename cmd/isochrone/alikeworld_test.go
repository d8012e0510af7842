package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
)

// alikePoPs are those that run as processes of their own, and announce a prefix each; the others are in the world's process.
var alikePoPs = []string{"sin1", "nrt1", "fra1"}

// alikeWorld is a world with two DNS nodes, whose PoPs announce to BIRD.
type alikeWorld struct {
	*running
	t      *testing.T
	dns    *dnsProcess
	token  string // of the API
	api    *controlplane.Client
	store  *clientv3.Client
	routes func() string // what BIRD has
	page   pageStatus
	pops   map[string]*alikePoP

	mu       sync.Mutex
	forcedUp map[string]bool // PoPs
}

// alikePoP is what has been done to a PoP.
type alikePoP struct {
	*process                        // nil while it is dead
	paused   bool                   // SIGSTOP
	drained  bool                   // by an override
	forced   topology.ForcedVerdict // likewise; empty for none
	cut      bool                   // three vantages of Asia say that it is dead
}

func (p *alikePoP) well() bool { return p.process != nil && !p.paused }

// pageStatus is the status that the page has been told last.
type pageStatus struct {
	mu     sync.Mutex
	status *controlplane.Status
}

func (p *pageStatus) take(e controlplane.Event) error {
	if e.Kind != "status" {
		return nil
	}
	status, err := unmarshal[controlplane.Status](e.Data)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
	return nil
}

func (p *pageStatus) last() *controlplane.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func startAlike(t *testing.T) *alikeWorld {
	t.Helper()
	w := &alikeWorld{t: t, pops: map[string]*alikePoP{}, forcedUp: map[string]bool{}}
	network := fmt.Sprintf("127.%d.%d.", 100+rand.IntN(100), rand.IntN(250))
	w.routes = startAlikeBIRD(t, network)
	w.running = startUp(t, "", "--without", strings.Join(alikePoPs, ","))
	w.apply(network)
	var err error
	if w.token, err = stateDir(w.dir).read(tokenFile); err != nil {
		t.Fatal(err)
	}
	if w.api, err = controlplane.NewClient(controlplane.ClientConfig{URL: w.API, Token: func() (string, error) { return w.token, nil }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.api.Close)
	if w.store, err = etcdclient.Connect(clientv3.Config{Endpoints: []string{w.Etcd}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	w.dns = startDNS(t, w.running, t.TempDir(), "--etcd", w.Etcd, "--rate-limit", "0", "--region", "EU")
	for _, name := range alikePoPs {
		w.pops[name] = &alikePoP{process: w.start(name)}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { _ = w.api.Events(ctx, w.page.take) })
	t.Cleanup(func() { cancel(); following.Wait() })
	return w
}

// startAlikeBIRD starts BIRD, and returns what tells the routes that it has.
func startAlikeBIRD(t *testing.T, network string) func() string {
	bird, birdc, dir := need(t, "bird"), need(t, "birdc"), t.TempDir()
	config, socket := filepath.Join(dir, "bird.conf"), filepath.Join(dir, "ctl")
	text := `
router id 10.0.0.1;
log stderr { error, fatal, bug };
protocol device {}
template bgp node {
	local NET.1 port 10179 as 64500; strict bind; passive; multihop; hold time 3;
	ipv4 { import all; export none; };
}
`
	for i, name := range alikePoPs {
		text += fmt.Sprintf("protocol bgp %s from node { neighbor NET.%d as 64512; }\n", name, i+2)
	}
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(text, "NET.", network)), 0o600); err != nil {
		t.Fatal(err)
	}
	router := exec.Command(bird, "-f", "-s", socket, "-P", filepath.Join(dir, "pid"), "-c", config)
	router.Stderr = os.Stderr
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = router.Process.Kill()
		_ = router.Wait() // it was killed
	})
	return func() string {
		out, _ := exec.Command(birdc, "-s", socket, "show route").CombinedOutput() // what it says is looked at
		return string(out)
	}
}

func alikePrefix(name string) string {
	return fmt.Sprintf("198.18.%d.0/24", 60+slices.Index(alikePoPs, name))
}

// apply has PoPs announce, and get all of their clients back at once.
func (w *alikeWorld) apply(network string) {
	w.t.Helper()
	text := w.run(w.t, "topology", "get")
	for _, name := range topology.ExamplePoPs {
		more := "    slow_start: 0s\n"
		if i := slices.Index(alikePoPs, name); i >= 0 {
			more += fmt.Sprintf("    announces: [%s]\n    bgp: {asn: 64512, drain: 1s, rise: 1s, min_announcers: 0, peers: {leaf: "+
				"{address: %s1, port: 10179, local_address: %s%d, asn: 64500, multihop: 2, hold_time: 3s}}}\n", alikePrefix(name), network, network, i+2)
		}
		head := "  " + name + ":\n    schema: 1\n"
		if !strings.Contains(text, head) {
			w.t.Fatalf("no %q in\n%s", head, text)
		}
		text = strings.Replace(text, head, head+more, 1)
	}
	path := filepath.Join(w.t.TempDir(), "topology.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.run(w.t, "topology", "apply", "-f", path, "--yes")
}

func (w *alikeWorld) start(name string) *process {
	return start(w.t, "PoP "+name+" serves", "pop", name, "--dir", w.dir, "--http", "127.0.0.1:0")
}

// happening is something that can befall a PoP.
type happening struct {
	name string
	can  func(*alikePoP) bool
	do   func(w *alikeWorld, name string, p *alikePoP)
}

var happenings = []happening{
	{"is killed", func(p *alikePoP) bool { return p.well() }, func(_ *alikeWorld, _ string, p *alikePoP) { p.process.kill(); p.process = nil }},
	{"starts", func(p *alikePoP) bool { return p.process == nil }, func(w *alikeWorld, name string, p *alikePoP) { p.process = w.start(name) }},
	{"stops", func(p *alikePoP) bool { return p.well() }, func(w *alikeWorld, _ string, p *alikePoP) { p.signal(w.t, syscall.SIGSTOP); p.paused = true }},
	{"goes on", func(p *alikePoP) bool { return p.paused }, func(w *alikeWorld, _ string, p *alikePoP) { p.signal(w.t, syscall.SIGCONT); p.paused = false }},
	{"is drained", func(p *alikePoP) bool { return !p.drained }, func(w *alikeWorld, name string, p *alikePoP) {
		w.override("drain-"+name, &topology.Override{Kind: topology.Drain, PoP: name})
		p.drained = true
	}},
	{"is drained no more", func(p *alikePoP) bool { return p.drained }, func(w *alikeWorld, name string, p *alikePoP) { w.end("drain-" + name); p.drained = false }},
	{"is forced up", func(p *alikePoP) bool { return p.forced == "" }, func(w *alikeWorld, name string, p *alikePoP) { w.force(name, p, topology.ForceUp) }},
	{"is forced down", func(p *alikePoP) bool { return p.forced == "" }, func(w *alikeWorld, name string, p *alikePoP) { w.force(name, p, topology.ForceDown) }},
	{"is forced no more", func(p *alikePoP) bool { return p.forced != "" }, func(w *alikeWorld, name string, p *alikePoP) {
		w.end("force-" + name)
		w.isForcedUp(name, false)
		p.forced = ""
	}},
	{"is dead for Asia", func(p *alikePoP) bool { return !p.cut && p.well() }, func(w *alikeWorld, name string, p *alikePoP) { w.sayInAsia(name, health.Down); p.cut = true }},
	{"is well for Asia", func(p *alikePoP) bool { return p.cut }, func(w *alikeWorld, name string, p *alikePoP) { w.sayInAsia(name, ""); p.cut = false }},
}

func (w *alikeWorld) override(name string, o *topology.Override) {
	w.t.Helper()
	o.Schema, o.Reason, o.Author, o.Created, o.Expires = 1, "it is tried", "test", time.Now(), time.Now().Add(time.Hour)
	if _, err := w.api.PutOverride(w.t.Context(), name, o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *alikeWorld) force(name string, p *alikePoP, verdict topology.ForcedVerdict) {
	w.t.Helper()
	w.isForcedUp(name, verdict == topology.ForceUp)
	w.override("force-"+name, &topology.Override{Kind: topology.Force, PoP: name, Verdict: verdict})
	p.forced = verdict
}

func (w *alikeWorld) isForcedUp(name string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.forcedUp, name); is {
		w.forcedUp[name] = true
	}
}

func (w *alikeWorld) end(override string) {
	w.t.Helper()
	if _, err := w.api.DeleteOverride(w.t.Context(), override); err != nil {
		w.t.Fatal(err)
	}
}

// sayInAsia has three vantages of Asia say something of a PoP, or be gone.
func (w *alikeWorld) sayInAsia(pop string, status health.Status) {
	w.t.Helper()
	for i := range 3 {
		name := fmt.Sprintf("control:asia%d-%s", i, pop)
		if status == "" {
			if _, err := w.store.Delete(w.t.Context(), storeRoot+reportsPrefix+name); err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		saysOf(w.t, w.store, name, "AS", 1, health.Statement{Target: health.Target{Kind: health.PoP, Name: pop}, Status: status, Failures: 2, Code: health.Timeout, Reason: "no answer"})
	}
}

// saysOf puts a vantage's report into the store, as whoever may write there can.
func saysOf(t *testing.T, client *clientv3.Client, name, region string, sequence uint64, statements ...health.Statement) {
	t.Helper()
	now := time.Now()
	for i := range statements {
		statements[i].Since, statements[i].Seen = now, now
	}
	r := &health.Report{
		Vantage:     health.Vantage{Name: name, Region: region, Looks: health.KindsOf(health.PoP)},
		Incarnation: now.UnixNano(), Sequence: sequence, Full: true, Statements: statements,
	}
	if _, err := client.Put(t.Context(), storeRoot+reportsPrefix+name, string(r.Append(nil, 0, now))); err != nil {
		t.Fatal(err)
	}
}

// happens has something befall a PoP, and returns what. No more than one is not well, and no more than one dead for Asia, so that the others can tell.
func (w *alikeWorld) happens(random *rand.Rand) string {
	w.t.Helper()
	names := slices.Sorted(maps.Keys(w.pops))
	odd := func(p *alikePoP) bool { return !p.well() || p.cut }
	for {
		name, h := names[random.IntN(len(names))], happenings[random.IntN(len(happenings))]
		p := w.pops[name]
		others := slices.ContainsFunc(names, func(other string) bool { return other != name && odd(w.pops[other]) })
		if makesOdd := h.name == "is killed" || h.name == "stops" || h.name == "is dead for Asia"; !h.can(p) || makesOdd && (others || odd(p)) {
			continue
		}
		h.do(w, name, p)
		return name + " " + h.name
	}
}

// monitorOf returns where a PoP's process is monitored.
func monitorOf(p *process) *monitored {
	return &monitored{regexp.MustCompile(`\((http://[^)]*)\)`).FindStringSubmatch(p.output.String())[1]}
}

// metricsAt returns the metrics of a process, by name with labels; the token is empty where none is needed.
func metricsAt(ctx context.Context, url, token string) (map[string]string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	all := map[string]string{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if line := lines.Text(); line != "" && line[0] != '#' {
			i := strings.LastIndexByte(line, ' ')
			all[line[:max(i, 0)]] = line[i+1:]
		}
	}
	return all, lines.Err()
}
