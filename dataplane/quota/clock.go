package quota

import "time"

// ahead is for how many windows after the present one slices are taken.
const ahead = 2

// clock is what a PoP knows of the present window. All times are of one monotonic clock.
type clock struct {
	number   int64     // the newest that it has heard of; 0 before the first
	rest     bool      // nothing is granted in it
	anchored bool      // it heard of the window as soon as it was opened
	seen     time.Time // when it heard of it first
	heard    time.Time // when it heard last
	highest  int64     // in which it has admitted
}

// position is where a PoP stands. It is immutable.
type position struct {
	number int64
	rest   bool
	news   bool      // the store is in reach
	ends   time.Time // the window, as far as this PoP knows
	until  time.Time // is another position to be asked for
}

// hear takes the number of the present window, which the store told at some time before now and after the asking began.
func (c *clock) hear(number int64, rest bool, asked, now time.Time) {
	if number < c.number {
		return // an answer that was overtaken, or a store that has lost its data: it is told (see Ledger.request)
	}
	if number > c.number {
		c.anchored = c.number > 0 && !c.heard.IsZero() && now.Sub(c.heard) < fresh
		c.number, c.seen = number, now
	}
	c.rest = rest
	if asked.After(c.heard) {
		c.heard = asked
	}
}

// at returns where the PoP stands, or nothing when it must not admit: it does not know in which window it is.
func (c *clock) at(now time.Time) *position {
	if c.number == 0 {
		return nil
	}
	news, passed := now.Sub(c.heard) < fresh, int64(now.Sub(c.seen)/Window)
	if !news && (passed > ahead || passed > 0 && !c.anchored) {
		return nil
	}
	p := &position{number: c.number, rest: c.rest, news: news, ends: c.seen.Add(Window), until: c.heard.Add(fresh)}
	if !news {
		p.number += passed
		p.ends = c.seen.Add(time.Duration(passed+1) * Window)
		p.until = p.ends
	}
	p.number = max(p.number, c.highest)
	p.rest = p.rest && p.number == c.number
	c.highest = p.number
	return p
}

// due reports whether the PoP has watched the newest window for all of its length.
func (c *clock) due(now time.Time) bool { return c.number > 0 && now.Sub(c.seen) >= Window }
