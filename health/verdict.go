package health

import (
	"time"
)

// Kind is the kind of a target.
type Kind string

// The kinds of target.
const (
	PoP     Kind = "pop"
	Cluster Kind = "cluster"
)

// Target is what is observed: a PoP or a cluster, by its name in the topology.
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
	Unknown Status = "unknown"
	Up      Status = "up"
	Down    Status = "down"
)

// Observation is what one vantage saw of a target once.
type Observation struct {
	Target Target
	OK     bool
	Reason string        // evidence: the error or the code, in a few words
	Took   time.Duration // of the whole probe
	At     time.Time
}

// Verdict is what is held to be true of a target, with the evidence.
type Verdict struct {
	Status   Status        `json:"status"`
	Reason   string        `json:"reason"`    // of the observation that decided, or of the latest one that agrees
	Since    time.Time     `json:"since"`     // when Status became what it is
	Seen     time.Time     `json:"seen"`      // of the latest observation
	LastTook time.Duration `json:"last_took"` // of the latest observation, in nanoseconds
}

// Verdicts holds the verdict of every target that has one. It is immutable once published; reading a missing target gives
// the zero Verdict, whose status counts as unknown.
type Verdicts map[Target]Verdict

// IsDown reports whether the target is held to be dead.
func (v Verdicts) IsDown(t Target) bool { return v[t].Status == Down }
