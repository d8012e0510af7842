//go:build linux

package main

import (
	"cmp"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/topology"
)

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
