package health

import (
	"fmt"
	"time"
)

// Kind is the kind of a target.
type Kind string

// The kinds of target.
const (
	PoP     Kind = "pop"
	Cluster Kind = "cluster"
	DNS     Kind = "dns" // a DNS node of our own
)

// Target is what is observed: a PoP or a cluster by its name in the topology, or a DNS node by its name.
type Target struct {
	Kind Kind
	Name string
}

// String returns kind and name, such as pop/sin1.
func (t Target) String() string { return string(t.Kind) + "/" + t.Name }

// Status is what is held to be true of a target.
type Status string

// The statuses. Unknown is the status of a target before its first observations; it counts as well.
const (
	Unknown  Status = "unknown"
	Up       Status = "up"
	Degraded Status = "degraded" // it answers, but says that it cannot do all of its work: others are better
	Down     Status = "down"
)

// Votes are the vantages that were asked of a target.
type Votes struct {
	Up   int `json:"up"`
	Down int `json:"down"` // for good: by two failures in a row, or because the target flaps
	Of   int `json:"of"`   // all whose word counts; those who are neither up nor down know nothing yet
}

// RegionVerdict is what is held to be true of a target for clients of one region, when the vantages there are enough to say so.
type RegionVerdict struct {
	Status Status    `json:"status"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Votes  Votes     `json:"votes"`
}

// Verdict is what is held to be true of a target, with the evidence.
type Verdict struct {
	Status   Status        `json:"status"`
	Reason   string        `json:"reason"`    // of the observations that decided, with the votes
	Since    time.Time     `json:"since"`     // when Status became what it is
	Seen     time.Time     `json:"seen"`      // of the latest observation
	LastTook time.Duration `json:"last_took"` // the median of the votes' own medians of successful probes, in nanoseconds

	Code      Code                     `json:"code,omitempty"` // what kind of failure decided
	Votes     Votes                    `json:"votes"`
	Suspected bool                     `json:"suspected,omitempty"` // a vantage has seen a first failure, and the others look
	Shedding  bool                     `json:"shedding,omitempty"`  // it says itself that it refuses requests because it is overloaded
	Regions   map[string]RegionVerdict `json:"regions,omitempty"`   // by continent; where a region has none, Status holds there

	Recovered time.Time `json:"recovered,omitzero"` // when this node saw it come back from down; zero when it has not
}

// Verdicts holds the verdict of every target that has one. It is immutable once published; reading a missing target gives
// the zero Verdict, whose status counts as unknown.
type Verdicts map[Target]Verdict

// IsDown reports whether the target is held to be dead, by the world as a whole.
func (v Verdicts) IsDown(t Target) bool { return v[t].Status == Down }

// In returns the status of a target for clients of a region (a continent's code; "" when not known): the region's own where it has one,
// else that of the world.
func (v Verdicts) In(t Target, region string) Status {
	return v[t].In(region)
}

// In returns the status for clients of a region, as Verdicts.In does.
func (v Verdict) In(region string) Status {
	if r, ok := v.Regions[region]; ok {
		return r.Status
	}
	if v.Status == "" {
		return Unknown
	}
	return v.Status
}

// Agreed tells how many of the vantages that were asked are of the mind of the verdict, such as "5 of 7"; nothing where fewer than two were.
func (v *Verdict) Agreed() string {
	if v.Votes.Of < 2 {
		return ""
	}
	agree := v.Votes.Up
	if v.Status == Down {
		agree = v.Votes.Down
	}
	return fmt.Sprintf("%d of %d", agree, v.Votes.Of)
}

// SameStatus reports whether two sets of verdicts have the same effect: the same status for each target in each region.
func (v Verdicts) SameStatus(other Verdicts) bool {
	if len(v) != len(other) {
		return false
	}
	for t, a := range v {
		b, ok := other[t]
		if !ok || a.Status != b.Status || !a.Recovered.Equal(b.Recovered) || len(a.Regions) != len(b.Regions) {
			return false
		}
		for name, r := range a.Regions {
			if s, ok := b.Regions[name]; !ok || s.Status != r.Status {
				return false
			}
		}
	}
	return true
}
