package health

import (
	"maps"
	"slices"
	"time"
)

// Kind is the kind of a target.
type Kind string

// The kinds of target.
const (
	PoP     Kind = "pop"
	Cluster Kind = "cluster"
	DNS     Kind = "dns" // a node that answers questions
)

// Target is what is observed, by its name in the topology, or a DNS node by its own.
type Target struct {
	Kind Kind
	Name string
}

// String returns kind and name, such as pop/sin1.
func (t Target) String() string { return string(t.Kind) + "/" + t.Name }

// Status is what is held to be true of a target.
type Status string

// The statuses. Unknown is the status of a target before its first observations; it counts as well. Degraded is that of a PoP which is well as
// far as others see, and says itself that it cannot do all of its work: it is answered when there is no better one.
const (
	Unknown  Status = "unknown"
	Up       Status = "up"
	Degraded Status = "degraded"
	Down     Status = "down"
)

// Verdict is what is held to be true of a target, with the evidence.
type Verdict struct {
	Status    Status            `json:"status"`
	Reason    string            `json:"reason"`              // the evidence that decided, or the latest that agrees, with who says so
	Since     time.Time         `json:"since"`               // when Status became what it is, as far as this node knows
	Seen      time.Time         `json:"seen"`                // when somebody who is alive last held to what he says about it
	LastTook  time.Duration     `json:"last_took"`           // of a vantage's observation that agrees, in nanoseconds
	Suspected bool              `json:"suspected,omitempty"` // somebody has seen it fail, and the others have not looked yet or see it otherwise
	Votes     Votes             `json:"votes,omitzero"`
	Regions   map[string]Status `json:"regions,omitempty"`  // of those regions that have vantages enough for a verdict of their own
	Recovered time.Time         `json:"recovered,omitzero"` // when this node saw it come back from down; zero when it has not
}

// Votes count the vantages that were heard about a target.
type Votes struct {
	Up   int `json:"up"`
	Down int `json:"down"`
}

// Verdicts holds the verdict of every target that has one. It is immutable once published; reading a missing target gives
// the zero Verdict, whose status counts as unknown.
type Verdicts map[Target]Verdict

// IsDown reports whether the target is held to be dead, by the world as a whole.
func (v Verdicts) IsDown(t Target) bool { return v[t].Status == Down }

// In returns the status of a target for the clients of a region, a continent's code: the region's own where it has one.
func (v Verdict) In(region string) Status {
	if own, ok := v.Regions[region]; ok && v.Status != Degraded {
		return own
	}
	return v.Status
}

// Says reports whether two verdicts come to the same for those who are answered by them.
func (v Verdict) Says(o Verdict) bool {
	return v.Status == o.Status && v.Recovered.Equal(o.Recovered) && maps.Equal(v.Regions, o.Regions)
}

// Same reports whether verdicts come to the same for those who are answered by them.
func (v Verdicts) Same(o Verdicts) bool {
	return maps.EqualFunc(v, o, Verdict.Says)
}

// Targets returns the targets that have verdicts, in order.
func (v Verdicts) Targets() []Target {
	return slices.SortedFunc(maps.Keys(v), compareTargets)
}
