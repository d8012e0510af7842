package flow

import (
	"fmt"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// plan puts the events of the scenario on the clock.
func (e *engine) schedule() error {
	for i, event := range e.scenario.Timeline {
		at, until := time.Duration(event.At), time.Duration(event.At)+time.Duration(event.For)
		undo := func(do func()) {
			if event.For > 0 {
				e.when(until, do)
			}
		}
		if err := e.one(i, event, at, until, undo); err != nil {
			return fmt.Errorf("timeline[%d]: %w", i, err)
		}
	}
	return nil
}

func (e *engine) one(i int, event scenario.Event, at, until time.Duration, undo func(func())) error {
	pops := func(names []string) error {
		for _, name := range names {
			if name != "largest" && e.index(name) < 0 {
				return fmt.Errorf("there is no PoP %q", name)
			}
		}
		return nil
	}
	switch {
	case event.Lose != nil:
		e.when(at, func() {
			for _, name := range event.Lose {
				e.lose(e.index(name), undo)
			}
		})
		return pops(event.Lose)
	case event.Drain != nil:
		e.when(at, func() {
			for _, name := range event.Drain {
				p := e.index(name)
				e.drain(p, true)
				undo(func() { e.drain(p, false) })
			}
		})
		return pops(event.Drain)
	case event.BrownOut != nil:
		e.when(at, func() { e.brownOut(e.index(event.BrownOut.PoP), event.BrownOut, undo) })
		return pops([]string{event.BrownOut.PoP})
	case event.Flap != nil:
		e.when(at, func() { e.flap(e.index(event.Flap.PoP), event.Flap, until) })
		return pops([]string{event.Flap.PoP})
	case event.Crowd != nil:
		return nil // it is in the classes
	case event.Partition != nil:
		return e.partition(event.Partition, at, undo)
	case event.Flip != nil:
		e.when(at, func() {
			e.flips = append(e.flips, flip{i, event.Flip.Part})
			e.note("routes of %.0f %% of clients change", event.Flip.Part*100)
			e.converge()
			undo(func() {
				e.flips = withoutFlip(e.flips, i)
				e.note("routes are as before")
				e.converge()
			})
		})
	case event.Edit != "":
		return e.edit(event.Edit, at)
	case event.Upgrade != nil:
		e.when(at, func() { e.upgrade(event.Upgrade, 0) })
	case event.EtcdAway:
		e.when(at, func() {
			e.note("etcd is away")
			e.etcd++
			undo(func() { e.etcd--; e.note("etcd is back") })
		})
	}
	return nil
}

func withoutFlip(flips []flip, event int) (rest []flip) {
	for _, f := range flips {
		if f.event != event {
			rest = append(rest, f)
		}
	}
	return rest
}

// index returns the number of a PoP, by its name or as the one that has most clients now; -1 for none.
func (e *engine) index(name string) int {
	most := 0
	for p, pop := range e.pops {
		if pop.name == name {
			return p
		}
		if e.clientsAt[p] > e.clientsAt[most] {
			most = p
		}
	}
	if name == "largest" {
		return most
	}
	return -1
}

func (e *engine) lose(p int, undo func(func())) {
	e.note("%s dies", e.pops[p].name)
	e.kill(p, lost, hostDead)
	undo(func() {
		e.note("%s is back", e.pops[p].name)
		e.revive(p, lost)
	})
}

// drain has operators send a PoP's clients elsewhere: the override is in force within a moment, and the PoP has clients who are connected come anew.
func (e *engine) drain(p int, on bool) {
	name := e.pops[p].name
	if e.drains[p] = on; on {
		e.note("%s is drained", name)
		e.overrides = withOverride(e.overrides, name, &topology.Override{Kind: topology.Drain, PoP: name, Reason: "scenario",
			Expires: scenario.Now.Add(e.until + time.Hour)})
	} else {
		e.note("%s is drained no more", name)
		e.overrides = withOverride(e.overrides, name, nil)
	}
	e.reach()
	e.disturb()
	e.decide()
}

// withOverride returns a copy with another override of a PoP, or without.
func withOverride(all map[string]*topology.Override, pop string, one *topology.Override) map[string]*topology.Override {
	next := map[string]*topology.Override{}
	for name, o := range all {
		next[name] = o
	}
	delete(next, pop)
	if one != nil {
		next[pop] = one
	}
	return next
}

// probed is the delay from which on probes of a PoP time out.
const probed = time.Second

func (e *engine) brownOut(p int, b *scenario.BrownOut, undo func(func())) {
	e.note("%s is in a brown-out", e.pops[p].name)
	delay := time.Duration(b.Delay)
	e.delay[p] += delay
	e.loss[p] += b.Loss
	if b.Capacity > 0 {
		e.left[p] *= b.Capacity
	}
	if delay >= probed {
		e.since[p]++
		since := e.since[p]
		e.when(e.now+e.delayOf(brownOut, p), func() {
			if e.since[p] == since && !e.down[p] {
				e.fall(p)
			}
		})
	}
	e.disturb()
	undo(func() {
		e.note("the brown-out of %s is over", e.pops[p].name)
		e.delay[p] -= delay
		e.loss[p] = max(0, e.loss[p]-b.Loss)
		if b.Capacity > 0 {
			e.left[p] /= b.Capacity
		}
		if delay >= probed {
			e.since[p]++
			e.recover(p)
		}
		e.disturb()
	})
}

// flap has a PoP die and come back until a time, or the end.
func (e *engine) flap(p int, f *scenario.Flap, until time.Duration) {
	if until <= e.now {
		until = e.until
	}
	var die func()
	die = func() {
		if e.now >= until {
			return
		}
		e.note("%s dies", e.pops[p].name)
		e.kill(p, lost, hostDead)
		e.when(e.now+time.Duration(f.Down), func() {
			e.note("%s is back", e.pops[p].name)
			e.revive(p, lost)
			e.when(e.now+time.Duration(f.Up), die)
		})
	}
	die()
}

// partition cuts PoPs, clusters or continents off.
func (e *engine) partition(names []string, at time.Duration, undo func(func())) error {
	for _, name := range names {
		continent, pop, cluster := -1, e.index(name), -1
		for i, c := range topology.Continents {
			if c == name {
				continent = i
			}
		}
		for i, c := range e.clusters {
			if c.name == name {
				cluster = i
			}
		}
		switch {
		case continent >= 0:
			e.when(at, func() { e.cutOff(continent, true); undo(func() { e.cutOff(continent, false) }) })
		case cluster >= 0:
			e.when(at, func() { e.unreach(cluster, true); undo(func() { e.unreach(cluster, false) }) })
		case pop >= 0:
			e.when(at, func() {
				e.note("%s is cut off", name)
				e.kill(pop, isolated, hostDead)
				undo(func() { e.note("%s is reached again", name); e.revive(pop, isolated) })
			})
		default:
			return fmt.Errorf("%q is no continent, PoP or cluster", name)
		}
	}
	return nil
}

// unreach has PoPs reach a cluster no more; etcd is in the first one.
func (e *engine) unreach(cluster int, on bool) {
	e.note("%s is cut off: %v", e.clusters[cluster].name, on)
	e.away[cluster] = on
	e.hops()
	if cluster == 0 {
		if on {
			e.etcd++
		} else {
			e.etcd--
		}
	}
}

// cutOff has a continent and the rest of the world reach each other no more. In both, verdicts on the other's PoPs follow.
func (e *engine) cutOff(continent int, on bool) {
	r := continent + 1
	e.note("%s is cut off: %v", topology.Continents[continent], on)
	e.cut[r] = on
	e.reach()
	e.disturb()
	fault := region
	if !on {
		fault = comesBack
	}
	e.when(e.now+e.delayOf(fault, continent), func() {
		if e.cut[r] == on && e.parted[r] != on {
			e.parted[r] = on
			e.note("verdicts of regions: %s apart: %v", topology.Continents[continent], on)
			e.disturb()
			e.decide()
		}
	})
}

// upgrade restarts a group of PoPs, and then the next one: they are drained for a while, away, and back.
func (e *engine) upgrade(u *scenario.Upgrade, from int) {
	if from >= len(e.pops) {
		e.note("all PoPs are upgraded")
		return
	}
	to := min(from+max(u.AtOnce, 1), len(e.pops))
	for p := from; p < to; p++ {
		e.drain(p, true)
	}
	drained := e.ttl + 10*time.Second
	e.when(e.now+drained, func() {
		for p := from; p < to; p++ {
			e.kill(p, restarting, hostDead)
		}
	})
	e.when(e.now+drained+time.Duration(u.Away), func() {
		for p := from; p < to; p++ {
			e.revive(p, restarting)
			e.drain(p, false)
		}
	})
	e.when(e.now+drained+time.Duration(u.Away)+time.Duration(u.Pause), func() { e.upgrade(u, to) })
}
