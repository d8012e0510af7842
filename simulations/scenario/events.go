package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// Largest, in place of a PoP's name, is the PoP that has most clients when an event begins.
const Largest = "largest"

func (c *checker) timeline(s *Scenario) {
	if len(s.Timeline) > maxEvents {
		c.fault("timeline", "has %d events, at most %d are taken", len(s.Timeline), maxEvents)
		return
	}
	if len(s.Timeline) > 0 && s.Duration == 0 {
		c.fault("timeline", "the scenario has no duration in which something could happen")
	}
	before := Duration(0)
	for i := range s.Timeline {
		e, at := &s.Timeline[i], fmt.Sprintf("timeline[%d]", i)
		c.duration(at+".at", e.At, 0, max(0, time.Duration(s.Duration)))
		c.duration(at+".for", e.For, 0, maxDuration)
		if e.At < before {
			c.fault(at+".at", "%v is earlier than the event before it, at %v", e.At, before)
		}
		before = e.At
		if kinds := e.kinds(); len(kinds) != 1 {
			c.fault(at, "%d things happen in it (%v): want exactly one of %v", len(kinds), kinds, eventKinds)
			continue
		}
		c.event(at, e)
	}
}

// eventKinds are the keys of which an event has one.
var eventKinds = []string{"lose", "brown_out", "drain", "flap", "crowd", "partition", "flip", "edit", "rolling_upgrade", "etcd_away"}

// kinds returns the keys that an event has.
func (e *Event) kinds() []string {
	var kinds []string
	for i, given := range []bool{
		len(e.Lose) > 0, e.BrownOut != nil, len(e.Drain) > 0, e.Flap != nil, e.Crowd != nil, len(e.Partition) > 0, e.Flip != nil, e.Edit != "",
		e.Upgrade != nil, e.EtcdAway,
	} {
		if given {
			kinds = append(kinds, eventKinds[i])
		}
	}
	return kinds
}

// Kind returns the key of what happens: lose, brown_out, drain, flap, crowd, partition, flip, edit, rolling_upgrade or etcd_away.
func (e *Event) Kind() string {
	if kinds := e.kinds(); len(kinds) > 0 {
		return kinds[0]
	}
	return ""
}

func (c *checker) event(at string, e *Event) {
	switch {
	case e.BrownOut != nil:
		at, b := at+".brown_out", e.BrownOut
		c.named(at+".pop", b.PoP)
		c.duration(at+".delay", b.Delay, 0, time.Minute)
		within(c, at+".loss", b.Loss, 0, 1)
		within(c, at+".capacity", b.Capacity, 0, 1)
		if b.Delay == 0 && b.Loss == 0 && b.Capacity == 0 {
			c.fault(at, "changes nothing: want delay, loss or capacity")
		}
	case e.Flap != nil:
		at, f := at+".flap", e.Flap
		c.named(at+".pop", f.PoP)
		c.duration(at+".up", f.Up, time.Millisecond, maxDuration)
		c.duration(at+".down", f.Down, time.Millisecond, maxDuration)
	case e.Crowd != nil:
		at, k := at+".crowd", e.Crowd
		c.place(at+".near", k.Near)
		c.duration(at+".within", k.Within, time.Millisecond, 10*time.Second)
		within(c, at+".factor", k.Factor, 1, 1000)
		c.duration(at+".ramp", k.Ramp, 0, 24*time.Hour)
	case e.Flip != nil:
		within(c, at+".flip.part", e.Flip.Part, 0, 1)
	case e.Upgrade != nil:
		at, u := at+".rolling_upgrade", e.Upgrade
		within(c, at+".at_once", u.AtOnce, 1, MaxPoPs)
		c.duration(at+".pause", u.Pause, 0, 24*time.Hour)
		c.duration(at+".away", u.Away, 0, 24*time.Hour)
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"lose", e.Lose}, {"drain", e.Drain}, {"partition", e.Partition}} {
		for i := range list.names {
			c.named(fmt.Sprintf("%s.%s[%d]", at, list.key, i), list.names[i])
			once(c, at+"."+list.key, list.names, i)
		}
	}
}

// named checks the form of a name of a PoP, a cluster or a continent.
func (c *checker) named(path, name string) {
	if !nameForm.MatchString(name) && !slices.Contains(topology.Continents, name) {
		c.fault(path, "%q is not the name of a PoP such as sin1", name)
	}
}
