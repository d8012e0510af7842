package flow

import (
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// verdicts are what vantages hold of PoPs.
type verdicts struct {
	down     []bool          // by PoP: for the world
	back     []time.Duration // by PoP: when it was held to be up again after that, or 0
	penalty  []float64       // by PoP, as it was at the last fall: see health.Damping
	lastFall []time.Duration // by PoP
	parted   []bool          // by continent + 1: others' PoPs are down for it, and its own for others
	faults   []event         // that are not answered for yet
}

// event is something that took PoPs away, of which it is measured how long it hurts.
type event struct {
	at   time.Duration
	pop  int
	told bool // there was a verdict
}

// fault is what happens to a PoP, as vantages see it.
type fault int

const (
	hostDead fault = iota
	brownOut
	region
	comesBack
)

// delays are how long it takes from a fault to the verdict, in seconds, by quantiles 0, 0.5, 0.9, 0.99, 1: as simulations/quorum measured it with the
// real health package (docs/health.md, "Measured": 200 worlds, 4,000 verdicts). The least is not told there: the shortest timeout and a half.
var delays = [...][5]float64{
	hostDead:  {0.8, 1.89, 2.61, 2.92, 3.62},
	brownOut:  {0.8, 1.93, 2.57, 2.94, 3.33},
	region:    {1.0, 2.75, 4.96, 6.65, 7.91},
	comesBack: {0.5, 1.63, 2.6, 3.15, 3.7},
}

var quantiles = [5]float64{0, 0.5, 0.9, 0.99, 1}

// delayOf draws how long a verdict takes.
func (e *engine) delayOf(f fault, p int) time.Duration {
	u := draw(e.seed, uint64(f), uint64(p), uint64(e.now))
	for i := 1; i < len(quantiles); i++ {
		if low, high := quantiles[i-1], quantiles[i]; u < high {
			a, b := delays[f][i-1], delays[f][i]
			return time.Duration(float64((a+float64((b-a)*((u-low)/(high-low))))*1e3)) * time.Millisecond
		}
	}
	return 0
}

// suspect has a verdict come of a PoP that does not answer.
func (e *engine) suspect(p int, f fault) {
	since := e.since[p]
	e.faults = append(e.faults, event{at: e.now, pop: p})
	e.route(p)
	e.when(e.now+e.delayOf(f, p), func() {
		if e.since[p] == since && !e.down[p] {
			e.fall(p)
		}
	})
}

// fall is the verdict that a PoP is down.
func (e *engine) fall(p int) {
	e.down[p] = true
	e.penalty[p] = e.penaltyOf(p) + fallPenalty
	e.lastFall[p] = e.now
	took := time.Duration(0)
	for i := range e.faults {
		if f := &e.faults[i]; f.pop == p && !f.told {
			f.told, took = true, e.now-f.at
		}
	}
	e.measured.verdict = max(e.measured.verdict, took)
	e.note("verdict: %s down, after %.2f s", e.pops[p].name, took.Seconds())
	e.disturb()
	e.decideSoon()
}

// Flap damping, as in docs/health.md: a fall adds to a penalty that halves each minute; above a bound the PoP stays down until it is low.
const (
	fallPenalty  = 1000
	suppressed   = 3000
	reused       = 1000
	halfLife     = time.Minute
	longestDelay = 10 * time.Minute
)

func (e *engine) penaltyOf(p int) float64 {
	return float64(e.penalty[p] * exp(-float64(0.6931471805599453*(e.now-e.lastFall[p]).Seconds())/halfLife.Seconds()))
}

// recover has a verdict come of a PoP that answers again.
func (e *engine) recover(p int) {
	since := e.since[p]
	e.route(p)
	e.when(e.now+e.delayOf(comesBack, p), func() { e.rise(p, since) })
}

// rise is the verdict that a PoP is up again, unless it flaps: then it waits.
func (e *engine) rise(p, since int) {
	if e.since[p] != since || !e.down[p] {
		return
	}
	if penalty := e.penaltyOf(p); e.penalty[p] > suppressed && penalty > reused && e.now < e.lastFall[p]+longestDelay {
		wait := time.Duration(log(penalty/reused) / 0.6931471805599453 * float64(halfLife))
		e.note("%s flaps: its verdict stays down for %v", e.pops[p].name, wait.Round(time.Second))
		e.when(min(e.now+wait+time.Second, e.lastFall[p]+longestDelay), func() { e.rise(p, since) })
		return
	}
	e.down[p], e.back[p] = false, e.now
	for i := 0; i < len(e.faults); i++ {
		if e.faults[i].pop == p {
			e.faults = append(e.faults[:i], e.faults[i+1:]...)
			i--
		}
	}
	e.note("verdict: %s up", e.pops[p].name)
	e.disturb()
	e.decideSoon()
}

// verdictsNow are the verdicts as the router takes them.
func (e *engine) verdictsNow() health.Verdicts {
	v := health.Verdicts{}
	for p, pop := range e.pops {
		one := health.Verdict{Status: health.Up, Since: scenario.Now}
		if e.down[p] {
			one.Status, one.Reason = health.Down, "no answer"
		} else if e.back[p] > 0 {
			one.Recovered = scenario.Now.Add(e.back[p])
		}
		own := pop.region
		for r := 1; r < regions; r++ {
			if r != int(own) && (e.parted[r] || e.parted[own]) {
				if one.Regions == nil {
					one.Regions = map[string]health.RegionVerdict{}
				}
				one.Regions[topology.Continents[r-1]] = health.RegionVerdict{Status: health.Down, Reason: "no answer"}
			}
		}
		v[health.Target{Kind: health.PoP, Name: pop.name}] = one
	}
	return v
}

// lastWrong measures, when a view is replaced, how long caches have answers of it that name a PoP which does not answer.
func (e *engine) lastWrong(old *view) {
	for _, f := range e.faults {
		if e.dead[f.pop] == 0 || f.at > old.until || len(e.pops) == 0 {
			continue
		}
		worst := time.Duration(-1)
		for i := range e.askers {
			if a := &old.answers[i]; a.n > 0 && int(a.choices[0]) == f.pop {
				worst = max(worst, e.residual(old, i, f))
			}
		}
		if worst < 0 {
			continue
		}
		wrong := old.until - f.at + worst
		if e.measured.lastWrong < wrong {
			e.measured.lastWrong = wrong
		}
	}
}

// residual draws how long the last of an asker's caches keeps what it has.
func (e *engine) residual(v *view, asker int, f event) time.Duration {
	g := v.group[asker]
	caches, hit := 1.0, 0.0
	if g >= 0 {
		caches, hit = v.machines[g], v.hit[g]
	} else {
		n := e.askers[asker].network
		caches, hit = e.clients[n], e.ownHit[e.metro[n]]
	}
	n := float64(caches * hit) // that have it: of so many, the largest of uniform numbers
	u := draw(e.seed, uint64(asker), uint64(f.at), uint64(f.pop))
	if n < 1 && u > n {
		return 0
	}
	return time.Duration(float64(e.ttl) * pow(draw(e.seed, 7, uint64(asker), uint64(f.at)), 1/max(n, 1)))
}
