package flow

import "math"

// serviceTime is how long a PoP works on a post, in seconds: what the whole pipeline to 202 takes, most of it one sync of the disk.
const serviceTime = 1e-3

// wait returns the mean time in seconds that a post waits at a PoP before it is worked on, for so many posts a second of Poisson arrivals, and the
// part of them that is refused. The PoP is a queue of c servers with constant service time, c of them so that they do its capacity: Sakasegawa's
// approximation of M/M/c ("An approximation formula Lq ≈ α·ρ^β/(1-ρ)", 1977), halved for constant service (exact for c = 1, Pollaczek and
// Khinchine). The queue has a bound: nobody waits longer than maxWait, the rest is refused.
func wait(load, capacity float64) (seconds, refused float64) {
	if capacity <= 0 || load <= 0 {
		return 0, 0
	}
	rho := load / capacity
	if rho > 1 {
		refused = 1 - 1/rho
	}
	service, c := serviceTime, float64(capacity*serviceTime)
	if c < 1 {
		service, c = 1/capacity, 1
	}
	if rho >= 1 {
		return maxWait, refused
	}
	queued := pow(rho, math.Sqrt(float64(2*(c+1)))-1) / float64(c*(1-rho))
	return min(float64(float64(service*queued)/2), maxWait), 0
}

// maxWait bounds the queue of a PoP, in seconds.
const maxWait = 0.05
