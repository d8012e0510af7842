package spill

import "time"

// Load is what a PoP tells of itself.
type Load struct {
	RequestsRPS float64       `json:"requests_rps"` // that come, accepted or not
	CapacityRPS float64       `json:"capacity_rps"` // what it does at most as far as it has shown; 0 until it was at its limit
	CPU         float64       `json:"cpu"`          // share of its processors that is in use, in 0..1
	QueueDelay  time.Duration `json:"queue_delay"`  // for a processor, at its worst
}

// When a PoP is full, whatever else is known of it, and from when on the use of its processors tells what it can do.
const (
	fullCPU     = 0.9
	tellingCPU  = 0.6
	fullDelay   = 20 * time.Millisecond
	leastOfThat = 0.1 // of what was stated: less is not believed, or nobody would be sent there to show otherwise
)

// Capacity returns what a PoP can do in requests a second: what the operator states, or what it has shown, whichever is less, or 0 when neither is
// known. It is less when the processors or the queue tell that the PoP is full earlier.
func (l Load) Capacity(statedRPS float64) float64 {
	capacity := statedRPS
	if capacity <= 0 || l.CapacityRPS > 0 && l.CapacityRPS < capacity {
		capacity = max(l.CapacityRPS, 0)
	}
	full := 0.0
	if l.CPU >= tellingCPU && l.CPU <= 1 {
		full = l.RequestsRPS * fullCPU / l.CPU
	}
	if l.QueueDelay >= fullDelay && (full == 0 || l.RequestsRPS < full) {
		full = l.RequestsRPS * fullCPU
	}
	if full > 0 && (capacity <= 0 || full < capacity) {
		return max(full, leastOfThat*capacity)
	}
	return capacity
}
