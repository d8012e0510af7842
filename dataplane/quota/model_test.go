package quota

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// mutation is a way to be wrong.
type mutation int

const (
	correct     mutation = iota
	reclaims             // the grants of a PoP that crashed are given to others
	remembers            // a PoP that begins anew has what it had on disk: what it held when it was last granted something
	believes             // a PoP counts a grant of unknown outcome as its own, and asks again
	byWallClock          // a window is opened when the minute of a wall clock ends, whenever it began
	twice                // the answer that came late is taken a second time
	takesTwice           // the answer of a home is taken a second time
	relabels             // a home gives of the window that it is in, and calls it the one that was asked for
	trusts               // a PoP counts what it asked a home for as given, when no answer comes
)

var start = time.Unix(1_900_000_020, 0)

// model is PoPs and their store as they are between two steps. Its Ledgers are the real ones, without Run.
type model struct {
	quota    int64
	rates    []float64 // of the PoPs' clocks
	wrong    mutation
	time     time.Duration // true
	store    *Memory
	pops     []*modelled
	admitted map[int64]int64
	opened   map[int64]time.Duration
	homes    bool   // PoPs ask each other
	given    int    // calls to homes that gave something
	fault    string // what must not be, and is
}

// modelled is one PoP.
type modelled struct {
	ledger *Ledger
	late   *inFlight // what it has asked and was not told yet
	disk   *Ledger   // for those that remember
	home   string    // whom it holds to be the home of the key
	call   *inCall   // what it has asked a home, and was not told yet
}

// inFlight is an answer on its way.
type inFlight struct {
	request Request
	answer  Answer
	asked   time.Time
}

func newModel(quota int64, rates []float64, wrong mutation) *model {
	m := &model{quota: quota, rates: rates, wrong: wrong, store: NewMemory(1), admitted: map[int64]int64{}, opened: map[int64]time.Duration{1: 0}}
	for i := range rates {
		m.pops = append(m.pops, &modelled{ledger: m.fresh(i)})
	}
	return m
}

// withHomes returns the model with Pops that hold one to be the home of the key.
func (m *model) withHomes(home string) *model {
	m.homes = true
	for _, p := range m.pops {
		p.home = home
		p.ledger.config.Homes = p
	}
	return m
}

func (m *model) fresh(i int) *Ledger { return New(Config{PoP: fmt.Sprint("p", i)}) }

// now is the time on the clock of a PoP.
func (m *model) now(i int) time.Time { return start.Add(time.Duration(float64(m.time) * m.rates[i])) }

// copyLedger copies a Ledger that nobody uses.
func copyLedger(l *Ledger) *Ledger {
	c := New(l.config)
	c.position.Store(l.position.Load())
	c.clock, c.lost, c.fault = l.clock, l.lost, l.fault
	copyHomes(c, l)
	l.accounts.Range(func(key, value any) bool {
		a := value.(*account)
		b := &account{key: a.key, measured: a.measured, used: a.used, rate: a.rate, pops: a.pops, standing: a.standing}
		b.askers = maps.Clone(a.askers)
		b.waiting.Store(a.waiting.Load())
		b.local.Store(a.local.Load())
		b.asking.Store(a.asking.Load())
		b.limit.Store(a.limit.Load())
		if s := a.current.Load(); s != nil {
			b.current.Store(copySlice(s))
		}
		for _, s := range a.ahead {
			b.ahead = append(b.ahead, copySlice(s))
		}
		c.accounts.Store(key, b)
		return true
	})
	for _, a := range l.queue {
		c.queue = append(c.queue, c.account(a.key))
	}
	return c
}

func copySlice(s *slice) *slice {
	c := newSlice(s.window)
	c.left.Store(s.left.Load())
	c.granted.Store(s.granted.Load())
	c.low.Store(s.low.Load())
	c.remaining.Store(s.remaining.Load())
	c.spent.Store(s.spent.Load())
	c.scraps.Store(s.scraps.Load())
	c.share.Store(s.share.Load())
	return c
}

func (m *model) copy() *model {
	c := *m
	c.store, c.pops, c.admitted, c.opened = NewMemory(m.store.window), nil, map[int64]int64{}, map[int64]time.Duration{}
	for at, r := range m.store.records {
		c.store.records[at] = &record{r.sum, slices.Clone(r.pops)}
	}
	for _, p := range m.pops {
		q := *p
		q.ledger = copyLedger(p.ledger)
		if m.homes {
			q.ledger.config.Homes = &q
		}
		c.pops = append(c.pops, &q)
	}
	for w, n := range m.admitted {
		c.admitted[w] = n
	}
	for w, at := range m.opened {
		c.opened[w] = at
	}
	return &c
}

// String tells all that the future depends on.
func (m *model) String() string {
	var b strings.Builder
	fmt.Fprint(&b, m.time, m.store.window, m.admitted)
	for at, r := range sorted(m.store.records) {
		fmt.Fprint(&b, at, r)
	}
	for i, p := range m.pops {
		l := p.ledger
		fmt.Fprint(&b, "|", l.clock.number, l.clock.anchored, l.clock.highest, m.now(i).Sub(l.clock.seen), m.now(i).Sub(l.clock.heard))
		a := l.account("k")
		fmt.Fprintf(&b, "%.1f %d %v ", a.rate, a.pops, a.asking.Load())
		for _, s := range append([]*slice{a.current.Load()}, a.ahead...) {
			if s != nil {
				fmt.Fprint(&b, s.window, ":", s.left.Load(), "/", s.remaining.Load(), "/", s.spent.Load(), " ")
			}
		}
		if p.late != nil {
			fmt.Fprint(&b, p.late.request.Asks, p.late.answer)
		}
		if m.homes {
			m.tellHome(&b, i)
		}
	}
	return b.String()
}

func sorted(records map[Ask]*record) func(func(Ask, string) bool) {
	var keys []Ask
	for at := range records {
		keys = append(keys, at)
	}
	slices.SortFunc(keys, func(a, b Ask) int { return int(a.Window - b.Window) })
	return func(yield func(Ask, string) bool) {
		for _, at := range keys {
			if !yield(at, records[at].String()) {
				return
			}
		}
	}
}

// The steps of a model: those of each PoP, and those of the world.
const (
	stepAdmit      = iota
	stepAdmitLate  // as stepAdmit, by a request that was stopped a minute after it had looked at the clock
	stepAsk        // the store takes a request; its answer is on its way
	stepAskLost    // a request is lost
	stepDeliver    // an answer comes
	stepAnswerLost // or does not
	stepCrash
	stepView        // it holds another PoP to be the home, or none
	stepCall        // a call to the home sets out
	stepCallLost    // and does not arrive, or its answer does not
	stepServe       // the home answers it; the answer is on its way
	stepCallDeliver // the answer comes
	stepsOfPoP
)

// steps are how many there are. The last ones are those of time.
func (m *model) steps() int { return stepsOfPoP*len(m.pops) + 2 }

// step makes a step, and returns false if it cannot be made.
func (m *model) step(n int) bool {
	if n >= stepsOfPoP*len(m.pops) {
		m.time += []time.Duration{15 * time.Second, time.Second}[n-stepsOfPoP*len(m.pops)]
		return true
	}
	i := n / stepsOfPoP
	p := m.pops[i]
	switch n % stepsOfPoP {
	case stepAdmit:
		m.admit(i, m.now(i))
	case stepAdmitLate:
		m.admit(i, m.now(i).Add(-Window))
	case stepAsk, stepAskLost:
		if p.late != nil {
			return false
		}
		m.ask(i, n%stepsOfPoP == stepAskLost)
	case stepDeliver:
		if p.late == nil {
			return false
		}
		m.deliver(i, nil)
		if m.wrong != twice {
			p.late = nil
		}
	case stepAnswerLost:
		if p.late == nil {
			return false
		}
		m.deliver(i, ErrAway)
		p.late = nil
	case stepCrash:
		m.crash(i)
	default:
		return m.homes && m.stepHome(i, n%stepsOfPoP)
	}
	return true
}

func (m *model) admit(i int, now time.Time) {
	l := m.pops[i].ledger
	d, outcome := l.try("k", m.quota, now)
	if m.homes && l.position.Load() != nil {
		l.account("k").waiting.Store(0)
		if outcome == unknown {
			l.account("k").waiting.Store(1)
		}
	}
	if outcome != admitted {
		return
	}
	if m.admitted[d.Window]++; m.admitted[d.Window] > m.quota {
		m.fault = fmt.Sprintf("%d of %d are admitted in window %d", m.admitted[d.Window], m.quota, d.Window)
	}
}

func (m *model) ask(i int, lost bool) {
	p := m.pops[i]
	l, now := p.ledger, m.now(i)
	r, of := l.request(now)
	if m.wrong == byWallClock && m.time%Window < 15*time.Second && m.time > 0 {
		r.Open = l.clock.number
	}
	if lost {
		l.answered(r, of, Answer{}, ErrAway, now, now)
		if m.wrong == believes {
			for j, ask := range r.Asks {
				of[j].grant(ask, Granted{Granted: 1, Remaining: 1, PoPs: 1})
			}
		}
		return
	}
	before := m.store.window
	answer, _ := m.store.Exchange(context.Background(), r)
	if answer.Window > before {
		m.open(i, answer.Window)
	}
	p.late = &inFlight{r, answer, now}
}

// open takes that a PoP has opened a window. If no clock runs faster than twice as fast, none is opened within half a minute of the one
// before it.
func (m *model) open(i int, window int64) {
	since := m.time - m.opened[window-1]
	if least := time.Duration(float64(Window) / m.rates[i]); since < least {
		m.fault = fmt.Sprintf("window %d is opened %v after the one before it, by a clock of rate %v", window, since, m.rates[i])
	}
	m.opened[window] = m.time
}

func (m *model) deliver(i int, err error) {
	p, now := m.pops[i], m.now(i)
	var of []*account
	for _, ask := range p.late.request.Asks {
		of = append(of, p.ledger.account(ask.Key))
	}
	p.ledger.answered(p.late.request, of, p.late.answer, err, p.late.asked, now)
	if m.wrong == remembers {
		p.disk = copyLedger(p.ledger)
	}
}

func (m *model) crash(i int) {
	p := m.pops[i]
	p.ledger, p.late, p.call = m.fresh(i), nil, nil
	if m.homes {
		p.ledger.config.Homes = p
	}
	switch {
	case m.wrong == remembers && p.disk != nil:
		p.ledger = copyLedger(p.disk)
	case m.wrong == reclaims:
		for _, r := range m.store.records {
			for j := range r.pops {
				if r.pops[j].pop == fmt.Sprint("p", i) {
					r.sum -= r.pops[j].now
					r.pops[j].now = 0
				}
			}
		}
	}
}

// explore visits all states within a number of steps, and returns how many there are and the first path to what must not be.
func explore(m *model, depth, most int) (states int, path []int, fault string) {
	type node struct {
		*model
		path []int
	}
	seen := map[string]bool{m.String(): true}
	for level := []node{{m, nil}}; depth > 0 && len(level) > 0; depth-- {
		var next []node
		for _, at := range level {
			for n := range m.steps() {
				if !m.homes && n < stepsOfPoP*len(m.pops) && n%stepsOfPoP >= stepView {
					continue
				}
				c := at.copy()
				if !c.step(n) {
					continue
				}
				path := append(slices.Clone(at.path), n)
				if c.fault != "" {
					return len(seen), path, c.fault
				}
				if text := c.String(); !seen[text] {
					seen[text] = true
					next = append(next, node{c, path})
				}
			}
			if len(seen) > most {
				return len(seen), nil, ""
			}
		}
		level = next
	}
	return len(seen), nil, ""
}

// deep is for a longer campaign.
var deep = flag.Int("quota.depth", 5, "how many steps are explored in all orders")

// TestAllInterleavings explores all orders of steps of two PoPs from the beginning, and from a minute later, with clocks of several rates.
func TestAllInterleavings(t *testing.T) {
	for _, rates := range [][]float64{{1, 1}, {0.5, 2}} {
		for name, m := range beginnings(2, rates, correct) {
			states, path, fault := explore(m, *deep, 1<<20)
			t.Logf("rates %v, %s: %d states", rates, name, states)
			if fault != "" {
				t.Errorf("rates %v, %s, steps %v: %s", rates, name, path, fault)
			}
		}
	}
}

// beginnings are models with a past.
func beginnings(quota int64, rates []float64, wrong mutation) map[string]*model {
	begun := newModel(quota, rates, wrong)
	for i := range rates { // all of them know the window and have asked for grants
		for _, n := range []int{stepAsk, stepDeliver, stepAdmit, stepAsk} {
			begun.step(i*stepsOfPoP + n)
		}
	}
	ends := begun.copy()
	for i := range rates {
		ends.step(i*stepsOfPoP + stepDeliver)
	}
	for range 3 {
		ends.step(ends.steps() - 2)
	}
	return map[string]*model{"at the beginning": newModel(quota, rates, wrong), "with grants on their way": begun, "at the end of a window": ends}
}

// TestMutationsAreCaught makes sure that the exploration finds what is wrong.
func TestMutationsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name, from string
		wrong      mutation
	}{
		{"reclaims", "at the end of a window", reclaims}, {"remembers", "at the end of a window", remembers},
		{"believes", "at the beginning", believes}, {"by wall clock", "at the beginning", byWallClock}, {"twice", "with grants on their way", twice},
	} {
		states, path, fault := explore(beginnings(2, []float64{1, 1}, c.wrong)[c.from], 9, 200_000)
		if fault == "" {
			t.Errorf("%s: not caught in %d states", c.name, states)
		}
		t.Logf("%s: after %d steps, %d states: %s", c.name, len(path), states, fault)
	}
}

// TestNeverOver takes steps of more PoPs by chance.
func TestNeverOver(t *testing.T) {
	admissions, windows := int64(0), 0
	rapid.Check(t, func(r *rapid.T) {
		rates := rapid.SliceOfN(rapid.SampledFrom([]float64{0.5, 1, 2}), 1, 4).Draw(r, "rates")
		m := newModel(rapid.Int64Range(1, 60).Draw(r, "quota"), rates, correct)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1)) // rapid itself prefers small numbers, and so the first PoP
		for range 3000 {
			n := random.IntN(m.steps())
			if random.IntN(4) > 0 { // more of what happens all the time
				n = random.IntN(len(rates))*stepsOfPoP + []int{stepAdmit, stepAdmit, stepAdmit, stepAsk, stepDeliver}[random.IntN(5)]
			}
			if m.step(n); m.fault != "" {
				r.Fatal(m.fault)
			}
		}
		windows += len(m.admitted)
		for _, n := range m.admitted {
			admissions += n
		}
	})
	if t.Logf("%d admissions in %d windows", admissions, windows); admissions < 1000 || windows < 100 {
		t.Error("too little has happened")
	}
}
