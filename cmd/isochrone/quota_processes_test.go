//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane"
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
	ids     *http.Client

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
	w.ids = postingClient(roots)
	w.ids.Timeout = *quotaStop + 2*time.Minute
	t.Cleanup(w.ids.CloseIdleConnections)
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
	if apart := []string{"unshare", "--time", "--monotonic", days, "--boottime", days}; exec.Command(apart[0], append(apart[1:], "true")...).Run() == nil {
		args = append(apart, args...)
	} else {
		w.Log("monotonic clocks are not apart: there is no unshare --time here, or it may not be used")
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = append(os.Environ(), "ISOCHRONE_QUOTA_WINDOW="+quotaWindow.String(),
		fmt.Sprintf("ISOCHRONE_WALL_OFFSET=%dm", w.rand.IntN(5000)-2500))
	p.process = startCommand(w.T, "PoP "+p.name+" serves", command)
}

// post posts as one client to one PoP, until ctx ends, with pauses.
func (w *quotaWorld) post(ctx context.Context, pop, key string, pause time.Duration) {
	for ctx.Err() == nil {
		rest := pause
		switch status, err := w.postOne(pop, key); {
		case status == http.StatusAccepted && err == nil:
		case status == http.StatusTooManyRequests:
			w.refused(key)
			rest = min(*quotaWindow/50, 100*time.Millisecond)
		default:
			rest = 50 * time.Millisecond
			w.mu.Lock()
			w.lastError = fmt.Errorf("%s: %d, %w", pop, status, err)
			w.mu.Unlock()
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
}

// postOne posts something that is unlike all else.
func (w *quotaWorld) postOne(pop, key string) (status int, err error) {
	body := fmt.Appendf(nil, `{"hash":"0x%x","sender":%q,"amount":"1"}`, [2]uint64{rand.Uint64(), rand.Uint64()}, key)
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	w.sent(key, hash)
	request, err := http.NewRequest(http.MethodPost, "https://"+w.PoPs[pop]+dataplane.Path, bytes.NewReader(body)) // it is not broken off, so as to see all answers
	if err != nil {
		return 0, err
	}
	request.Host = "intake.isochrone.test"
	request.Header = http.Header{"X-Api-Key": {w.secrets[key]}, "Content-Type": {"application/json"}}
	answer, err := w.ids.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusAccepted {
		return answer.StatusCode, fmt.Errorf("%s", text)
	}
	window, wrong := strconv.ParseInt(answer.Header.Get("X-Isochrone-Window"), 10, 64)
	if wrong != nil {
		w.Errorf("a 202 has the window %q", answer.Header.Get("X-Isochrone-Window"))
	}
	var told dataplane.Accepted
	if err = cmp.Or(err, json.Unmarshal(text, &told)); err != nil { // the answer was cut off as the PoP was killed
		return answer.StatusCode, err
	}
	w.took(told.ID, quotaAccepted{hash, window, pop}, time.Now())
	return answer.StatusCode, nil
}

// await waits for what happens within a window.
func (w *quotaWorld) await(what string, check func() bool) {
	w.Helper()
	for deadline := time.Now().Add(2**quotaWindow + patience); !check(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.Fatalf("%s: this does not come; the newest window is %d; an error was: %v", what, w.now(), w.lastError)
		}
	}
}

// passes waits until clients are told of so many more windows.
func (w *quotaWorld) passes(windows int64, what string) {
	w.Helper()
	first := w.now()
	for n := int64(1); n <= windows; n++ {
		w.await(fmt.Sprintf("window %d, while %s", first+n, what), func() bool {
			first = cmp.Or(first, w.now())
			return first > 0 && w.now() >= first+n
		})
	}
}

// leavesClean lets windows pass that no failure touches, until there was enough demand in so many of them.
func (w *quotaWorld) leavesClean(windows int) {
	w.Helper()
	for deadline := time.Now().Add(10**quotaWindow + patience); windows > 0; {
		w.passes(1, "nothing happens")
		over := w.now() - 1
		if over <= w.unclean {
			continue
		}
		if w.clean[over] = true; w.demanded(over) {
			windows--
		} else if time.Now().After(deadline) {
			w.Fatal("clients do not use up the quotas")
		}
	}
}

// allHappens has all failures happen, in any order, to any PoPs, while they admit. Each has a window that begins without another one, so
// that one does not take what another one would have given too much.
func (w *quotaWorld) allHappens() {
	failures := []struct {
		what string
		do   func(*quotaPoP)
	}{{"stop", w.stop}, {"cut off", w.cutOff}, {"kill", w.kill}}
	if w.rand.IntN(2) == 0 {
		failures[1].what, failures[1].do = "cut off and kill", w.killCutOff
	}
	w.rand.Shuffle(len(failures), func(i, j int) { failures[i], failures[j] = failures[j], failures[i] })
	for i, f := range failures {
		if i > 0 {
			w.passes(1, "all is well")
		}
		p, from := w.pops[topology.ExamplePoPs[w.rand.IntN(3)]], w.now()
		<-time.After(time.Duration(w.rand.Int64N(int64(*quotaWindow / 4))))
		f.do(p)
		w.unclean = w.now() + 2 // slices that were taken ahead are lost
		w.Logf("%s: %s %s, in windows %d to %d", time.Now().Format(time.TimeOnly), f.what, p.name, from, w.now())
	}
}

// stop stops a PoP over the end of a window, for so long that what it has heard is no news any more.
func (w *quotaWorld) stop(p *quotaPoP) {
	until := time.After(max(*quotaStop, *quotaWindow*5/4))
	if err := p.command.Process.Signal(syscall.SIGSTOP); err != nil {
		w.Fatal(err)
	}
	w.passes(1, p.name+" is stopped")
	<-until
	if err := p.command.Process.Signal(syscall.SIGCONT); err != nil {
		w.Fatal(err)
	}
}

// cutOff cuts a PoP off from etcd over the end of a window.
func (w *quotaWorld) cutOff(p *quotaPoP) {
	w.whileCutOff(p, func() {})
}

func (w *quotaWorld) whileCutOff(p *quotaPoP, do func()) {
	const away = "no grants of quota are to be had"
	before := strings.Count(p.output.String(), away)
	p.link.cut()
	defer p.link.mend()
	w.passes(1, p.name+" is cut off")
	w.await(p.name+" misses etcd", func() bool { return strings.Count(p.output.String(), away) > before })
	do()
}

// kill kills a PoP and starts it again.
func (w *quotaWorld) kill(p *quotaPoP) {
	p.process.kill()
	w.start(p)
}

// killCutOff kills a PoP and starts it again while it is cut off.
func (w *quotaWorld) killCutOff(p *quotaPoP) {
	w.whileCutOff(p, func() { w.kill(p) })
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
