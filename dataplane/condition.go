package dataplane

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/forward"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
)

// How long something lasts before a PoP says it of itself, and how long it is over before the PoP takes it back. What refuses clients is told at
// once, what sheds them only when it is no short peak.
const (
	cutOffAfter, reachedAfter = 3 * time.Second, 5 * time.Second
	refusesAfter, takesAfter  = time.Second, 5 * time.Second
	shedsAfter, calmAfter     = 10 * time.Second, 20 * time.Second
)

const (
	shedding = 0.02 // share of the requests of a second that is shed, from which on the PoP counts as shedding
	calm     = 0.005
	roomAt   = 0.95 // of its bounds, to which a spool that was full has to empty
)

// Signs are what a PoP finds about itself at one time.
type Signs struct {
	CutOff    string  // why envelopes cannot be delivered from here though they could from elsewhere, or of no service; empty if they can
	Refuses   string  // why the spool takes nothing; empty if it does
	Filled    float64 // how full it is, of its bounds, 0..1
	ShedShare float64 // of the requests of the last second, 0..1
}

// Signs looks at what matters to others. Lost are the clusters that this PoP's own probes do not reach. It may be called every second.
func (p *PoP) Signs(lost map[string]bool) Signs {
	held := p.config.Spool.Stats()
	s := Signs{ShedShare: p.front.Overload().Load().ShedShare, Refuses: refuses(held), Filled: filled(held)}
	if snap := p.config.Snapshot(); snap != nil {
		s.CutOff = cutOff(p.offers(snap), p.forward.Reach(lost))
	}
	return s
}

// Seen returns what envelopes have met at clusters since it was asked last, as passive observations. One alone should ask.
func (p *PoP) Seen() []health.Observation { return p.forward.Seen() }

func refuses(held spool.Stats) string {
	switch {
	case held.Failing:
		return "the disk of its spool does not take what is written"
	case held.Full():
		return fmt.Sprintf("its spool is full: %d envelopes, %d MB", held.Pending, (held.Bytes+held.DeadBytes)>>20)
	}
	return ""
}

// filled returns how full a spool is, of its bounds.
func filled(held spool.Stats) float64 {
	return max(share(int64(held.Pending), int64(held.Max)), share(held.Bytes+held.DeadBytes, held.MaxBytes))
}

func share(of, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return float64(of) / float64(all)
}

// cutOff tells of the services that a PoP offers whose clusters cannot be reached from it. A service whose clusters are dead for everybody counts
// only if there is no other: no PoP is better for its clients, and those of other services should not have to go elsewhere.
func cutOff(o *offers, reach map[string]forward.Reach) string {
	var here, dead []string
	some := false
	for name := range o.services {
		switch r, has := reach[name]; {
		case !has:
		case r.Here:
			some = true
		case r.Elsewhere:
			here = append(here, name)
		default:
			dead = append(dead, name)
		}
	}
	switch {
	case len(here) > 0:
		slices.Sort(here)
		return "no cluster of " + strings.Join(here, ", ") + " can be reached from it"
	case len(dead) > 0 && !some:
		return "no cluster can be reached"
	}
	return ""
}

// Condition is what a PoP says of itself, by the signs of late: what they say must last before it is said, and be over for a while before it is
// taken back. The zero Condition is that of a PoP that is well.
type Condition struct {
	cutOff, refuses, sheds lasting
	degraded               string
}

// Degraded is why the PoP cannot do all of its work, as it was said last.
func (c *Condition) Degraded() string { return c.degraded }

// Take takes the signs of now, and returns why the PoP cannot do all of its work, empty if it can, and whether it sheds.
func (c *Condition) Take(s Signs, now time.Time) (degraded string, sheds bool) {
	refused := s.Refuses
	if refused == "" && s.Filled > roomAt {
		refused = c.refuses.why // it had no room a moment ago, and has little
	}
	shed := ""
	if s.ShedShare >= shedding || s.ShedShare > calm && c.sheds.why != "" {
		shed = "sheds"
	}
	reasons := []string{c.refuses.take(refused, now, refusesAfter, takesAfter), c.cutOff.take(s.CutOff, now, cutOffAfter, reachedAfter)}
	reasons = slices.DeleteFunc(reasons, func(why string) bool { return why == "" })
	c.degraded = strings.Join(reasons, "; ")
	return c.degraded, c.sheds.take(shed, now, shedsAfter, calmAfter) != ""
}

// lasting is something that is said once it has lasted, and until it has been over for a while.
type lasting struct {
	why     string // what is said; empty for nothing
	changed time.Time
	pending bool // the signs have contradicted what is said since changed
}

// take takes what the signs say now, and returns what is said. While something is said, it stays as it was said first.
func (l *lasting) take(sign string, now time.Time, after, over time.Duration) string {
	if (sign == "") == (l.why == "") {
		l.pending = false
		return l.why
	}
	if !l.pending {
		l.pending, l.changed = true, now
	}
	wait := after
	if l.why != "" {
		wait = over
	}
	if now.Sub(l.changed) >= wait {
		l.pending, l.why = false, sign
	}
	return l.why
}
