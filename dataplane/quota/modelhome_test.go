package quota

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// inCall is a call to a home, or its answer, on its way.
type inCall struct {
	home   int
	asks   []Ask
	given  []Given
	served bool
}

// Of implements Homes: of a PoP of a model.
func (p *modelled) Of(string, int64) string { return p.home }

// Ask implements Homes. Models make calls by steps.
func (p *modelled) Ask(context.Context, string, []Ask) ([]Given, error) {
	panic("a model makes no calls")
}

func copyHomes(c, l *Ledger) {
	for home, calls := range l.homes {
		copied := *calls
		copied.queue = nil
		for _, a := range calls.queue {
			copied.queue = append(copied.queue, c.account(a.key))
		}
		c.homes[home] = &copied
	}
}

// tellHome tells what the future depends on, of homes.
func (m *model) tellHome(to io.Writer, i int) {
	p, l := m.pops[i], m.pops[i].ledger
	a := l.account("k")
	fmt.Fprint(to, p.home, a.waiting.Load(), a.local.Load(), a.own, a.frugal, m.now(i).Before(a.direct), m.now(i).Sub(a.asked) < Window, a.askers)
	for _, j := range m.names() {
		if c := l.homes[j]; c != nil {
			fmt.Fprint(to, j, len(c.queue), m.now(i).Before(c.avoid), c.failures)
		}
	}
	if p.call != nil {
		fmt.Fprint(to, *p.call)
	}
}

func (m *model) names() (names []string) {
	for i := range m.pops {
		names = append(names, fmt.Sprint("p", i))
	}
	return names
}

// stepHome makes a step of a PoP that has to do with homes, and returns false if it cannot be made.
func (m *model) stepHome(i, step int) bool {
	p, now := m.pops[i], m.now(i)
	switch step {
	case stepView:
		views := append(m.names(), "", "")
		for v, view := range views {
			if view == p.home {
				p.home = views[v+1]
				break
			}
		}
	case stepCall:
		if p.call != nil {
			return false
		}
		for j, home := range m.names() {
			if asks, _ := p.ledger.homeRequest(home, now); len(asks) > 0 {
				p.call = &inCall{home: j, asks: asks}
				return true
			}
		}
		return false
	case stepServe:
		if p.call == nil || p.call.served {
			return false
		}
		return m.serve(i)
	case stepCallLost, stepCallDeliver:
		if p.call == nil || step == stepCallDeliver && !p.call.served {
			return false
		}
		m.told(i, step == stepCallLost)
	}
	return true
}

// serve has the home of a call answer it, which may be long after it was made. It returns false while the home waits for the store.
func (m *model) serve(i int) bool {
	c := *m.pops[i].call // others share it
	c.served = true
	home := m.pops[c.home].ledger
	for _, ask := range c.asks {
		g, result := home.give(fmt.Sprint("p", i), ask, m.now(c.home))
		if result == unknown {
			return false
		}
		if m.wrong == relabels && g.Given > 0 {
			g.Window = ask.Window
		}
		if g.Given > 0 {
			m.given++
		}
		c.given = append(c.given, g)
	}
	m.pops[i].call = &c
	return true
}

// told has a PoP hear what a home has given, or that no answer comes.
func (m *model) told(i int, lost bool) {
	p, now := m.pops[i], m.now(i)
	call := p.call
	if p.call = nil; m.wrong == takesTwice && !lost {
		p.call = call
	}
	var of []*account
	for _, ask := range call.asks {
		of = append(of, p.ledger.account(ask.Key))
	}
	if !lost {
		p.ledger.homeAnswered(fmt.Sprint("p", call.home), call.asks, of, call.given, nil, now)
		return
	}
	p.ledger.homeAnswered(fmt.Sprint("p", call.home), call.asks, of, nil, ErrAway, now)
	if m.wrong == trusts {
		for n, ask := range call.asks {
			of[n].receive(ask, Given{Window: ask.Window, Given: ask.Want, Left: 1, PoPs: 9})
		}
	}
}

// homeBeginnings are models with a past, where p0 is the home for all but those that think otherwise.
func homeBeginnings(quota int64, rates []float64, wrong mutation) map[string]*model {
	known := newModel(quota, rates, wrong).withHomes("p0")
	for i := range rates { // all of them know the window, and the home has grants
		for _, n := range []int{stepAsk, stepDeliver, stepAdmit} {
			known.step(i*stepsOfPoP + n)
		}
	}
	for _, n := range []int{stepAsk, stepDeliver} {
		known.step(n)
	}
	known.step(stepsOfPoP + stepCall)
	apart := known.copy()
	apart.step(stepView)
	ends := known.copy()
	ends.step(stepsOfPoP + stepServe)
	for range 4 {
		ends.step(ends.steps() - 2)
	}
	return map[string]*model{"with a call on its way": known, "with two homes": apart, "at the end of a window": ends}
}

// TestAllInterleavingsOfHomes explores all orders of steps of two PoPs that ask each other, also while they disagree on who is the home.
func TestAllInterleavingsOfHomes(t *testing.T) {
	for _, rates := range [][]float64{{1, 1}, {0.5, 2}} {
		for name, m := range homeBeginnings(3, rates, correct) {
			states, path, fault := explore(m, *deep-2, 1<<20)
			t.Logf("rates %v, %s: %d states", rates, name, states)
			if fault != "" {
				t.Errorf("rates %v, %s, steps %v: %s", rates, name, path, fault)
			}
			if m.pops[1].call == nil {
				t.Errorf("%s: nobody is asked", name)
			}
		}
	}
}

// homeAhead is a model where the quota of a window is used up and the home is in the next one, when a call from the one before is on its way.
func homeAhead(wrong mutation) *model {
	m := newModel(2, []float64{1, 0.5}, wrong).withHomes("p0")
	for i := range m.pops {
		for _, n := range []int{stepAsk, stepDeliver, stepAdmit} {
			m.step(i*stepsOfPoP + n)
		}
	}
	m.step(stepsOfPoP + stepCall)
	for range 2 { // the home takes all there is
		for _, n := range []int{stepAsk, stepDeliver, stepAdmit} {
			m.step(n)
		}
	}
	for range 4 {
		m.step(m.steps() - 2)
	}
	for _, n := range []int{stepAsk, stepDeliver, stepAdmit, stepAsk, stepDeliver} { // opens the next one
		m.step(n)
	}
	return m
}

// TestMutationsOfHomesAreCaught makes sure that exploration and chance find what is wrong.
func TestMutationsOfHomesAreCaught(t *testing.T) {
	if states, _, fault := explore(homeAhead(correct), *deep-2, 1<<20); fault != "" {
		t.Errorf("correct, with the home ahead: %s, in %d states", fault, states)
	}
	if states, path, fault := explore(homeAhead(relabels), 5, 200_000); fault == "" {
		t.Errorf("relabels: not caught in %d states", states)
	} else {
		t.Logf("relabels: after %d steps, %d states: %s", len(path), states, fault)
	}
	for name, wrong := range map[string]mutation{"takes twice": takesTwice, "trusts": trusts} {
		fault, steps := "", 0
		for seed := uint64(1); fault == "" && seed < 100; seed++ {
			m := newModel(2, []float64{1, 1, 1}, wrong).withHomes("p0")
			fault, steps = m.wander(rand.New(rand.NewPCG(seed, 1)), 10_000)
		}
		if fault == "" {
			t.Errorf("%s: not caught", name)
		}
		t.Logf("%s: after %d steps: %s", name, steps, fault)
	}
}

// wander takes steps by chance, more of those that happen all the time.
func (m *model) wander(random *rand.Rand, steps int) (fault string, taken int) {
	often := []int{stepAdmit, stepAdmit, stepAsk, stepDeliver, stepCall, stepServe, stepCallDeliver}
	for taken = range steps {
		n := random.IntN(len(m.pops))*stepsOfPoP + often[random.IntN(len(often))]
		switch random.IntN(400) {
		case 0, 1, 2, 3, 4, 5:
			n = m.steps() - 1
		case 6:
			n = m.steps() - 2
		case 7, 8, 9, 10:
			n = random.IntN(m.steps())
		}
		if m.step(n); m.fault != "" {
			return m.fault, taken
		}
	}
	return "", steps
}

// TestHomesNeverOver takes steps of more PoPs by chance: with calls lost, homes that crash or are stopped, and PoPs that disagree on homes.
func TestHomesNeverOver(t *testing.T) {
	admissions, given := int64(0), 0
	rapid.Check(t, func(r *rapid.T) {
		rates := rapid.SliceOfN(rapid.SampledFrom([]float64{0.5, 1, 2}), 2, 4).Draw(r, "rates")
		m := newModel(rapid.Int64Range(1, 200).Draw(r, "quota"), rates, correct).withHomes("p0")
		if fault, _ := m.wander(rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1)), 3000); fault != "" {
			r.Fatal(fault)
		}
		given += m.given
		for _, n := range m.admitted {
			admissions += n
		}
	})
	if t.Logf("%d admissions, %d calls gave something", admissions, given); admissions < 1000 || given < 100 {
		t.Error("too little has happened")
	}
}
