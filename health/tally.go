package health

import "fmt"

// Tally counts what real requests have met at a target. The zero Tally has counted none. It is not safe for concurrent use.
type Tally struct {
	Well, Failed uint64
	Failure      string // the latest one, in a few words
}

// mixed is the share of failures below which requests say nothing against a target, and above which they say nothing for it.
const mixed = 0.1

// Observation returns what the requests say of a target, as a passive observation: that it is well if all of them were, and that it is not if a
// tenth or more were not. Otherwise, and where there were none, there is none.
func (t *Tally) Observation(of Target) (o Observation, ok bool) {
	o = Observation{Target: of, Passive: true, OK: t.Failed == 0}
	switch all := t.Well + t.Failed; {
	case all == 0 || t.Failed > 0 && float64(t.Failed) < mixed*float64(all):
		return o, false
	case o.OK:
		o.Reason = "real requests succeed"
	default:
		o.Code, o.Reason = Traffic, fmt.Sprintf("%d of %d real requests failed: %s", t.Failed, all, t.Failure)
	}
	return o, true
}
