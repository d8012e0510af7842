package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
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
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

var deaths = flag.Int("deaths", 2, "how many PoPs die in TestHealthSystem, one after the other")

// tooLate is for how long a dead PoP may be answered, with etcd or without: 10 s on a machine that has the time.
const tooLate = 30 * time.Second

// healthWorld is etcd, a control plane, DNS nodes and PoPs, each a process of its own.
type healthWorld struct {
	t      *testing.T
	dir    string // of the PoPs
	etcd   *process
	client *clientv3.Client
	api    *controlplane.Client
	dns    *dnsProcess // hears others directly
	deaf   *dnsProcess // hears them by etcd alone
	at     statedir.Up
	pops   map[string]*process
}

// healthPoPs are the PoPs of a healthWorld: as far from each other that each has clients of its own.
var healthPoPs = map[string]string{"sin1": "singapore", "fra1": "frankfurt", "iad1": "virginia", "nrt1": "tokyo"}

func startHealthWorld(t *testing.T) *healthWorld {
	t.Helper()
	w := &healthWorld{t: t, dir: t.TempDir(), pops: map[string]*process{}}
	endpoint := w.startEtcd()
	w.at.PoPs = map[string]string{}
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for _, name := range topology.ExamplePoPs {
		pops[name] = ownAddr(t)
		w.at.PoPs[name] = pops[name].String()
	}
	for _, name := range topology.ExampleClusters {
		clusters[name] = "http://" + sockettest.Free(t).String()
	}
	example := topology.Example(netip.MustParseAddr("127.0.0.1"), pops, clusters)
	put, atOnce := map[topology.Ref]topology.Object{}, topology.Duration(0)
	for _, r := range example.Refs() {
		if p := example.PoPs[r.Name]; r.Kind == topology.PoPs && healthPoPs[r.Name] == "" {
			continue
		} else if r.Kind == topology.PoPs {
			p.SlowStart = &atOnce
		}
		put[r] = example.Object(r)
	}
	s := store.New(w.client, storeRoot)
	if _, err := s.Apply(t.Context(), store.Change{Put: put}); err != nil {
		t.Fatal(err)
	}
	_, key := keyOf(t, s, true)
	if err := writeSecret(stateDir(w.dir).path(probeKeyFile), key); err != nil {
		t.Fatal(err)
	}
	start(t, "cluster ap takes", "cluster", "ap", "--dir", w.dir, "--etcd", endpoint)
	for _, name := range slices.Sorted(maps.Keys(healthPoPs)) {
		w.start(name)
	}
	world := &running{Up: w.at, dir: w.dir}
	w.dns = startDNS(t, world, t.TempDir(), "--etcd", endpoint, "--name", "hears", "--rate-limit", "0")
	w.deaf = startDNS(t, world, t.TempDir(), "--etcd", endpoint, "--name", "deaf", "--rate-limit", "0", "--reports", noReports)
	w.startControl(endpoint)
	return w
}

// startEtcd starts an etcd of one member, the server of the system's package.
func (w *healthWorld) startEtcd() (endpoint string) {
	t := w.t
	endpoint, peer := "http://"+sockettest.Free(t).String(), "http://"+sockettest.Free(t).String()
	command := exec.Command(need(t, "etcd"), "--data-dir", t.TempDir(), "--listen-client-urls", endpoint, "--advertise-client-urls", endpoint,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--unsafe-no-fsync")
	w.etcd = &process{command: command, output: &output{}, ended: make(chan struct{})}
	command.Stdout, command.Stderr = w.etcd.output, w.etcd.output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.etcd.ended)
		w.etcd.err = command.Wait()
	}()
	t.Cleanup(w.etcd.kill)
	var err error
	if w.client, err = etcdclient.Connect(clientv3.Config{Endpoints: []string{endpoint}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.client.Close() })
	eventually(t, "etcd answers", func() error {
		_, err := w.client.Get(t.Context(), "/")
		return err
	})
	return endpoint
}

func (w *healthWorld) startControl(endpoint string) {
	t := w.t
	dir := t.TempDir()
	for _, name := range []string{"probe.key", "ca.pem"} {
		copyFile(t, stateDir(w.dir).path(name), stateDir(dir).path(name))
	}
	_, url := startControl(t, "--etcd", endpoint, "--dir", dir, "--name", "c1")
	token := strings.TrimSpace(mustRun(t, "token", "create", "test", "--role", "viewer", "--etcd", endpoint))
	var err error
	if w.api, err = controlplane.NewClient(controlplane.ClientConfig{URL: url, Token: func() (string, error) { return token, nil }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.api.Close)
}

func (w *healthWorld) start(pop string) {
	w.t.Helper()
	w.pops[pop] = start(w.t, "PoP "+pop+" serves", "pop", pop, "--dir", w.dir, "--etcd", w.client.Endpoints()[0], "--http", "")
}

// calm waits until all PoPs are well for everybody, and their clients are sent to them.
func (w *healthWorld) calm() {
	w.t.Helper()
	for pop, place := range healthPoPs {
		w.dns.leads(w.t, place, pop)
		w.deaf.leads(w.t, place, pop)
	}
	eventually(w.t, "all to be well for the control plane", func() error {
		status, err := w.api.Status(w.t.Context())
		if err != nil {
			return err
		}
		for _, p := range status.PoPs {
			if v := p.Health; v.Status != health.Up || v.Suspected || v.Votes.Up < 4 {
				return fmt.Errorf("%s is %+v", p.Name, v)
			}
		}
		return nil
	})
}

// verdictAt finds what a node logs when a verdict changes.
var verdictAt = regexp.MustCompile(`(?m)^time=(\S+) level=\S+ msg=verdict target=pop/(\S+) status=(\S+) `)

// verdict returns when a DNS node has last come to a verdict since a time; zero for never.
func verdictSince(p *process, pop string, status health.Status, since time.Time) (at time.Time) {
	for _, found := range verdictAt.FindAllStringSubmatch(p.output.String(), -1) {
		when, err := time.Parse(time.RFC3339Nano, found[1])
		if err == nil && found[2] == pop && found[3] == string(status) && !when.Before(since.Truncate(time.Millisecond)) {
			return when
		}
	}
	return time.Time{}
}

// left asks a DNS node until it does not answer a PoP, and returns when it was first asked of which it did not.
func left(d *dnsProcess, pop string) (time.Time, error) {
	for began := time.Now(); ; {
		asked := time.Now()
		got, err := d.pop(sendPlaces[healthPoPs[pop]])
		if err == nil && got != pop {
			return asked, nil
		}
		if asked.Sub(began) > patience {
			return asked, fmt.Errorf("%s is still answered %v after its death: %w", pop, patience, err)
		}
		<-time.After(time.Millisecond)
	}
}

// mustLeave waits until none of some DNS nodes answers a PoP that has died, and returns since when each does not.
func (w *healthWorld) mustLeave(pop string, died time.Time, nodes ...*dnsProcess) []time.Time {
	w.t.Helper()
	at, errs := make([]time.Time, len(nodes)), make([]error, len(nodes))
	var asking sync.WaitGroup
	for i, d := range nodes {
		asking.Go(func() { at[i], errs[i] = left(d, pop) })
	}
	asking.Wait()
	for i, err := range errs {
		if err != nil {
			w.t.Fatal(err)
		}
		if took := at[i].Sub(died); took > tooLate {
			w.t.Errorf("%s was answered for %v after its death", pop, took)
		}
	}
	return at
}

// TestHealthSystem has PoPs die, vantages lie, and etcd die before a PoP does.
func TestHealthSystem(t *testing.T) {
	t.Parallel()
	w := startHealthWorld(t)
	w.calm()
	reports := w.dies()
	w.lies(reports)
	w.etcdDies()
}

// dies has PoPs killed and stopped by turns. It returns the reports of all as they were when one was dead.
func (w *healthWorld) dies() (reports map[string]string) {
	t := w.t
	var verdicts, answers []time.Duration
	names := slices.Sorted(maps.Keys(healthPoPs))
	for i := range *deaths {
		pop, signal := names[i%len(names)], []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[i%2]
		began := time.Now()
		w.pops[pop].signal(t, signal)
		at := w.mustLeave(pop, began, w.dns, w.deaf)[0]
		eventually(t, "the verdict to be logged", func() error {
			if verdictSince(w.dns.process, pop, health.Down, began).IsZero() {
				return errors.New("it is not")
			}
			return nil
		})
		verdict := verdictSince(w.dns.process, pop, health.Down, began)
		verdicts, answers = append(verdicts, verdict.Sub(began)), append(answers, at.Sub(verdict))
		t.Logf("%s of %s: verdict after %v, the first answer without it was asked for %v later", signal, pop, verdict.Sub(began).Round(time.Millisecond), at.Sub(verdict).Round(time.Millisecond))
		reports = w.reports()
		if signal == syscall.SIGSTOP {
			w.pops[pop].signal(t, syscall.SIGCONT)
		} else {
			<-w.pops[pop].ended
			w.start(pop)
		}
		w.calm()
		if *deaths > 4 { // each falls once a minute, so that it does not flap
			<-time.After(10 * time.Second)
		}
	}
	slices.Sort(verdicts)
	slices.Sort(answers)
	p := func(of []time.Duration, q float64) time.Duration {
		return of[min(int(q*float64(len(of))), len(of)-1)].Round(time.Millisecond)
	}
	t.Logf("%d deaths: to the verdict p50 %v, p90 %v, p99 %v; from there to an answer p50 %v, p99 %v", len(verdicts), p(verdicts, .5), p(verdicts, .9), p(verdicts, .99), p(answers, .5), p(answers, .99))
	return reports
}

// reports returns what the store has of vantages.
func (w *healthWorld) reports() map[string]string {
	w.t.Helper()
	got, err := w.client.Get(w.t.Context(), storeRoot+reportsPrefix, clientv3.WithPrefix())
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range got.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}

// lies has somebody write into the store what vantages do not say: none of it may become a verdict.
func (w *healthWorld) lies(old map[string]string) {
	t, began := w.t, time.Now()
	says := func(status func(pop string) health.Status) (all []health.Statement) {
		for pop := range healthPoPs {
			all = append(all, health.Statement{Target: health.Target{Kind: health.PoP, Name: pop}, Status: status(pop), Failures: 3, Code: health.Timeout, Reason: "a lie"})
		}
		return all
	}
	saysOf(t, w.client, "control:liar", "EU", 1, says(func(string) health.Status { return health.Down })...)
	w.judged("who says that all is dead is doubted by name", func(v controlplane.VantageStatus) bool { return v.Name == "control:liar" && v.Doubted != "" })
	saysOf(t, w.client, "control:liar", "EU", 1, says(func(pop string) health.Status {
		if pop == "fra1" {
			return health.Down
		}
		return health.Up
	})...)
	w.judged("who lies of one region is heard", func(v controlplane.VantageStatus) bool { return v.Name == "control:liar" && v.Doubted == "" })
	dead := 0
	for key, text := range old { // when a PoP was dead, as all knew
		if r, err := health.DecodeReport([]byte(text), time.Now()); err == nil {
			dead += len(slices.DeleteFunc(r.Statements, func(s health.Statement) bool { return s.Status != health.Down }))
		}
		if _, err := w.client.Put(t.Context(), key, text); err != nil {
			t.Fatal(err)
		}
	}
	if dead < 2 {
		t.Errorf("the reports that are replayed say of no PoP that it is dead: the test shows nothing")
	}
	eventually(t, "vantages to put theirs back in place of old ones", func() error {
		for key, text := range w.reports() {
			if old[key] == text && !strings.HasSuffix(key, "liar") {
				return fmt.Errorf("%s is old", key)
			}
		}
		return nil
	})
	w.judged("old reports are disregarded", func(controlplane.VantageStatus) bool { return true })
	for _, d := range []*dnsProcess{w.dns, w.deaf} {
		for pop := range healthPoPs {
			if at := verdictSince(d.process, pop, health.Down, began); !at.IsZero() {
				t.Errorf("a lie became a verdict at %v: %s is down", at, pop)
			}
		}
	}
	if _, err := w.client.Delete(t.Context(), storeRoot+reportsPrefix+"control:liar"); err != nil {
		t.Fatal(err)
	}
}

// judged waits until the control plane tells of a vantage that is as it is to be, and until verdicts have been made anew since then.
func (w *healthWorld) judged(what string, ok func(controlplane.VantageStatus) bool) {
	w.t.Helper()
	eventually(w.t, what, func() error {
		status, err := w.api.Status(w.t.Context())
		if err == nil && !slices.ContainsFunc(status.Vantages, ok) {
			err = fmt.Errorf("the vantages are %+v", status.Vantages)
		}
		return err
	})
	const name = "isochrone_vantage_judgements_total"
	for _, d := range []*dnsProcess{w.dns, w.deaf} {
		before := ""
		eventually(w.t, "verdicts to be made anew", func() error {
			metrics, err := metricsAt(w.t.Context(), d.http, "")
			if before == "" {
				before = metrics[name]
			}
			if err == nil && metrics[name] == before {
				err = errors.New("they are not")
			}
			return err
		})
	}
}

// etcdDies has etcd killed, and then PoPs: at once, and when all know that etcd is away. Answers leave them for those who hear others directly, and for
// one who does not and has nothing but its own eyes.
func (w *healthWorld) etcdDies() {
	t := w.t
	w.calm()
	w.etcd.kill()
	for _, pop := range []string{"iad1", "fra1"} {
		began := time.Now()
		w.pops[pop].kill()
		at := w.mustLeave(pop, began, w.dns, w.deaf)
		t.Logf("without etcd %s is killed: it is left after %v by who hears others directly, after %v by who does not",
			pop, at[0].Sub(began).Round(time.Millisecond), at[1].Sub(began).Round(time.Millisecond))
	}
	w.dns.metric(t, "isochrone_vantage_alone", "0")
	w.deaf.metric(t, "isochrone_vantage_alone", "1")
}
