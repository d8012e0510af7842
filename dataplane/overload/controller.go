package overload

import "time"

// Gains of the controller, for a delay measured in targets.
const (
	proportional = 0.02 // of what the delay is over the target, at each look
	differential = 0.05 // of what it has grown since the last look
	maxExcess    = 10.0 // targets; more makes no difference
	maxShare     = 0.95 // something is always let in, so that the delay can be measured
	burst        = 3    // looks with a delay over the target, and not as many with one below it, before anything is shed
)

// controller finds the share to shed from the delay of what was let in: a proportional-integral controller, as that of PIE
// (RFC 8033 section 4.2), with its burst allowance (section 4.4). It has no clock: it is asked once in each interval. The zero
// value sheds nothing.
type controller struct {
	share  float64 // in 0..maxShare
	excess float64 // of the last look
	over   int     // looks with too long a delay, less those without
}

// look takes the delay of the last interval and returns the share to shed in the next one, in 0..0.95.
func (c *controller) look(delay, target time.Duration) float64 {
	excess := min(float64(delay-target)/float64(target), maxExcess)
	grown := excess - c.excess
	c.excess = excess
	if excess > 0 {
		c.over = min(c.over+1, burst)
	} else {
		c.over = max(c.over-1, 0)
	}
	if c.share == 0 && c.over < burst {
		return 0
	}
	change := proportional*excess + differential*grown
	if c.share < 0.1 { // small shares change in small steps, so that the share does not swing about nothing
		change /= 2
	}
	c.share = min(max(c.share+change, 0), maxShare)
	if c.share < 0.002 && excess <= 0 {
		c.share = 0
	}
	return c.share
}
