//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane/cluster"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

var (
	quotaWindow = flag.Duration("quota-window", 2*time.Second, "how long windows of quota last in the test of three processes")
	quotaStop   = flag.Duration("quota-stop", 0, "for how long a PoP is stopped there; at least for 5/4 of a window")
	quotaRounds = flag.Int("quota-rounds", 1, "how often everything happens there")
	quotaSeed   = flag.Uint64("quota-seed", 0, "of what happens there, and when; 0 for any")
)

// quotaWorld is three PoPs, each a process of its own, with its own way to etcd and its own clocks, and clients that post to all of them.
type quotaWorld struct {
	*testing.T
	*running
	*quotaTally
	program string // windows last as the test says
	rand    *rand.Rand
	secrets map[string]string // of API keys
	pops    map[string]*quotaPoP
	client  *http.Client

	mu        sync.Mutex
	clean     map[int64]bool // windows that no failure has touched
	unclean   int64          // up to which window there are traces of a failure
	lastError error
}

// quotaPoP is one of the PoPs.
type quotaPoP struct {
	*process
	name string
	link *link // to etcd
}

// TestQuotaOfProcesses stops PoPs over the ends of windows, cuts them off from etcd, and kills them, while clients use up all quotas at all
// of them. What clients were told 202 for, and what the clusters have, is counted by the number of the window: it is never above the quota.
// The PoPs' monotonic clocks are days apart, and so are their wall clocks as far as quota looks at them.
//
//	go test ./cmd/isochrone -run TestQuotaOfProcesses -v -timeout 30m -quota-window 1m -quota-stop 90s
func TestQuotaOfProcesses(t *testing.T) {
	t.Parallel()
	seed := cmp.Or(*quotaSeed, rand.Uint64())
	began := time.Now()
	w := startQuotaWorld(t, seed)
	t.Logf("-quota-seed %d; all runs after %v", seed, time.Since(began).Round(time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	var posting sync.WaitGroup
	defer posting.Wait()
	defer cancel()
	for name := range w.pops {
		for key, quota := range w.quotas {
			clients := min(6, 1+quota/40)
			pause := *quotaWindow * time.Duration(clients*len(w.pops)) / time.Duration(2*quota) // so that it lasts for half a window
			for range clients {
				posting.Go(func() { w.post(ctx, name, key, pause) })
			}
		}
	}
	w.passes(1, "all begins")
	for range *quotaRounds {
		w.leavesClean(1)
		w.allHappens()
	}
	last := w.now()
	for name := range w.pops {
		w.await(name+" admits again", func() bool { return w.of(name, last) > 0 })
	}
	if *quotaRounds > 1 {
		w.leavesClean(1)
	}
	cancel()
	posting.Wait()
	w.ends()
}

// startQuotaWorld starts it. No other PoPs are active.
func startQuotaWorld(t *testing.T, seed uint64) *quotaWorld {
	flags := []string{"-tags", "quotaclock"}
	if programOf(t, "pop") != program {
		flags = append(flags, "-race")
	}
	built := buildOnce(t.TempDir(), "quotaclock", flags...)
	go built() // meanwhile
	w := &quotaWorld{
		T: t, running: startUp(t, "", "--without", strings.Join(topology.ExamplePoPs, ",")),
		rand: rand.New(rand.NewPCG(seed, 0)), pops: map[string]*quotaPoP{}, secrets: map[string]string{}, clean: map[int64]bool{},
		quotaTally: newQuotaTally(map[string]int{"large": max(200, int(100*quotaWindow.Seconds())), "small": 60, "tiny": 5}, *quotaWindow),
	}
	for key, quota := range w.quotas {
		w.secrets[key] = strings.TrimSpace(w.run(t, "key", "create", "--quota", strconv.Itoa(quota)))
	}
	w.disable(topology.ExamplePoPs[3:])
	roots, err := readRoots(w.CA)
	if err != nil {
		t.Fatal(err)
	}
	w.client = postingClient(roots)
	w.client.Timeout = *quotaStop + 2**quotaWindow + time.Minute
	t.Cleanup(w.client.CloseIdleConnections)
	if err := os.WriteFile(filepath.Join(w.dir, peersSecretFile), []byte("what these PoPs know each other by"), 0o600); err != nil { // for homes
		t.Fatal(err)
	}
	if w.program, err = built(); err != nil {
		t.Fatal(err)
	}
	for _, name := range topology.ExamplePoPs[:3] {
		w.pops[name] = &quotaPoP{name: name, link: newLink(t, strings.TrimPrefix(w.Etcd, "http://"))}
		w.start(w.pops[name])
	}
	return w
}

// disable has PoPs that do not run take no part in anything.
func (w *quotaWorld) disable(pops []string) {
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{w.Etcd}})
	if err != nil {
		w.Fatal(err)
	}
	defer client.Close()
	s := store.New(client, storeRoot)
	snap, err := s.Read(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	change := store.Change{Put: map[topology.Ref]topology.Object{}, Author: "test"}
	for _, name := range pops {
		pop := *snap.Topology.PoPs[name]
		pop.State = topology.Disabled
		change.Put[topology.Ref{Kind: topology.PoPs, Name: name}] = &pop
	}
	if _, err := s.Apply(w.Context(), change); err != nil {
		w.Fatal(err)
	}
}

// start starts a PoP, with clocks of its own.
func (w *quotaWorld) start(p *quotaPoP) {
	w.Helper()
	args := []string{w.program, "pop", p.name, "--dir", w.dir, "--etcd", "http://" + p.link.at, "--http", "127.0.0.1:0"}
	days := strconv.Itoa(86400 * (1 + w.rand.IntN(1000)))
	apart := []string{"unshare", "--time", "--monotonic", days, "--boottime", days}
	if exec.Command(apart[0], append(apart[1:], "true")...).Run() == nil {
		args = append(apart, args...)
	} else {
		w.Log("monotonic clocks are not apart: there is no unshare --time here, or it may not be used")
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = append(os.Environ(), "ISOCHRONE_QUOTA_WINDOW="+quotaWindow.String(),
		fmt.Sprintf("ISOCHRONE_WALL_OFFSET=%dm", w.rand.IntN(5000)-2500))
	p.process = startCommand(w.T, "PoP "+p.name+" serves", command)
}

// ends waits until all has reached a cluster, ends the PoPs, which leaves nothing in their spools, and checks all.
func (w *quotaWorld) ends() {
	eventually(w.T, "all that was accepted to reach a cluster", func() error {
		if missing := w.missing(w.log()); missing > 0 {
			return fmt.Errorf("%d are missing", missing)
		}
		return nil
	})
	for _, p := range w.pops {
		if p.interrupt(w.T); strings.Contains(p.output.String(), "PoPs do not ask each other") {
			w.Errorf("%s has no homes: %s", p.name, p.output)
		}
	}
	var clean []int64
	for window := range w.clean {
		clean = append(clean, window)
	}
	slices.Sort(clean)
	faults, told, reached := w.check(w.log(), clean)
	for _, fault := range faults {
		w.Error(fault)
	}
	for key, quota := range w.quotas {
		var said strings.Builder
		for _, window := range windowsOf(reached) {
			at, mark := keyInWindow{key, window}, ""
			if w.clean[window] {
				mark = " clean"
			}
			fmt.Fprintf(&said, "; %d: %d/%d%s", window, told[at], reached[at], mark)
		}
		w.Logf("%s, quota %d, 202s/envelopes by window%s", key, quota, said.String())
	}
}

func windowsOf(all counts) (windows []int64) {
	for at := range all {
		windows = append(windows, at.window)
	}
	slices.Sort(windows)
	return slices.Compact(windows)
}

// log returns the lines of all clusters' logs.
func (w *quotaWorld) log() (lines []string) {
	w.Helper()
	logs, err := filepath.Glob(filepath.Join(w.dir, "clusters", "*", cluster.LogFile))
	if err != nil || len(logs) != 3 {
		w.Fatalf("got logs %q, %v", logs, err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			w.Fatal(err)
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1] // the rest is being written
		lines = append(lines, strings.Split(strings.TrimSuffix(string(whole), "\n"), "\n")...)
	}
	return slices.DeleteFunc(lines, func(line string) bool { return line == "" })
}
