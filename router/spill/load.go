package spill

import (
	"math"
	"time"
)

// Load is what a PoP tells of itself.
type Load struct {
	RequestsRPS float64       `json:"requests_rps"` // that come, accepted or not
	ShedRPS     float64       `json:"shed_rps"`     // of these, refused for overload
	CapacityRPS float64       `json:"capacity_rps"` // what it did at most when it was at its limit last; 0 until it was
	CPU         float64       `json:"cpu"`          // share of its processors that is in use, in 0..1
	QueueDelay  time.Duration `json:"queue_delay"`  // for a processor, at its worst
}

// When a PoP is full, whatever else is known of it, and from when on the use of its processors tells what it can do.
const (
	fullCPU     = 0.9
	tellingCPU  = 0.6
	fullDelay   = 20 * time.Millisecond
	leastOfThat = 0.1 // of what was stated: with less to do, it is not the PoP that uses the processors; and less is not believed, or nobody would be sent there to show otherwise
	leastRPS    = 50  // likewise where nothing was stated
)

// shows returns what the load shows that the PoP can do at most, in requests a second, or 0 when it shows nothing. Requests that were shed have cost
// little, and do not count.
func (l Load) shows(statedRPS float64) float64 {
	accepted := max(l.RequestsRPS-l.ShedRPS, 0)
	least := leastOfThat * statedRPS
	if statedRPS <= 0 {
		least = leastRPS
	}
	full := 0.0
	if l.ShedRPS > 0.01*l.RequestsRPS && l.CapacityRPS > 0 {
		full = l.CapacityRPS
	}
	tell := func(rps float64) {
		if accepted >= least && (full == 0 || rps < full) {
			full = rps
		}
	}
	if l.CPU >= tellingCPU && l.CPU <= 1 {
		tell(accepted * fullCPU / l.CPU)
	}
	if l.QueueDelay >= fullDelay {
		tell(accepted * fullCPU)
	}
	if full > 0 {
		return max(full, leastOfThat*statedRPS)
	}
	return 0
}

// Memory is what PoPs have shown that they can do, in requests a second, by name. What is shown holds at once when it is less, and else is
// approached slowly: a PoP that was full does not get all back because it is no longer full. It is a leader's; one who does not have it
// begins with what PoPs have ever shown, which is careful. The zero Memory is ready.
type Memory map[string]float64

// How fast what a PoP can do is held to grow again, and from when on anything: where nothing is stated, it has not been near that for long.
const (
	growth    = 0.05 // a minute
	forgotten = 16   // times what the PoP gets
	anything  = 1e12 // requests a second
)

// Take takes what a PoP shows after a time, and returns what it can do: at most what is stated, or 0 when nothing is known.
func (m Memory) Take(pop string, l Load, statedRPS float64, passed time.Duration) float64 {
	known, before := m[pop]
	shows := l.shows(statedRPS)
	switch {
	case !before && shows > 0:
		known = shows
	case !before && l.CapacityRPS > 0:
		known = l.CapacityRPS // it has shown that some time
	case !before:
		return max(statedRPS, 0)
	default:
		known *= math.Pow(1+growth, max(passed.Minutes(), 0))
		if shows > 0 {
			known = min(known, shows)
		}
	}
	if statedRPS > 0 && known >= statedRPS || statedRPS <= 0 && known > forgotten*max(l.RequestsRPS, leastRPS) {
		known = anything // but not forgotten altogether: that it was full once is no news
	}
	m[pop] = known
	if known == anything || statedRPS > 0 && known > statedRPS {
		return max(statedRPS, 0)
	}
	return known
}
