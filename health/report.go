package health

import (
	"slices"
	"strings"
	"time"
)

// Vantage is a node that probes.
type Vantage struct {
	Name   string // such as pop:sin1 (store.NodeName)
	Region string // the code of a continent (topology.Continents); "" when not known
	Looks  Kinds  // at what kinds of target; none for all
}

// Kinds is a set of kinds of target.
type Kinds uint8

// KindsOf returns the set of some kinds.
func KindsOf(kinds ...Kind) (set Kinds) {
	for _, k := range kinds {
		if i := slices.Index(kindNumbers, k); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// sees reports whether a vantage looks at targets of a kind.
func (v Vantage) sees(k Kind) bool { return v.Looks == 0 || v.Looks&KindsOf(k) != 0 }

// Statement is what one vantage says of one target: the outcome of its own rise, fall and damping. Times are local ones of whoever holds
// the statement: ages travel, and the receiver subtracts them from the time of arrival, so that no clock is compared with another's.
type Statement struct {
	Target     Target
	Status     Status        // Up, Down (two failures in a row, or suppressed), or Unknown
	Failures   int           // in a row, at present; one of a target that is up is a suspicion
	Late       bool          // a probe is under way that takes longer than probes of this target do: a suspicion, too
	Suppressed bool          // it is down because it flaps
	Code       Code          // of the latest failure; of a success that deserves a warning
	Reason     string        // evidence, at most MaxReason octets in a report
	Steps      Steps         // of the latest probe
	Took       time.Duration // median of recent successful probes; 0 when there was none
	Since      time.Time     // when Status became what it is
	Seen       time.Time     // when the latest observation was made
}

// Suspects reports whether the statement asks the other vantages of the target to look at once.
func (s *Statement) Suspects() bool { return s.Status != Down && (s.Late || s.Failures > 0) }

// Load is how busy a PoP is, for spill.
type Load struct {
	RPS   float64       // requests a second
	CPU   float64       // of all cores, 0..1
	Queue time.Duration // delay of the queue, median
}

// Self is what a node says of itself.
type Self struct {
	Degraded string // why it cannot do all of its work, such as "no cluster can be reached"; "" when it can
	Shedding bool   // it refuses requests because it is overloaded
	Load     Load
}

// Report is what one vantage says at one time. Incarnation and Sequence order the reports of a vantage: the incarnation is a number that
// is higher at each start (nanoseconds since 1970, but at least one more than the last that was used), the sequence grows with each
// report that is sent, by whatever way.
type Report struct {
	Vantage
	Incarnation int64
	Sequence    uint64
	Key         string // of what it sends directly: Ed25519, in unpadded base64url; "" when it sends nothing
	Address     string // and port where it takes reports of others; "" when it takes none
	Serves      string // address and port where a DNS node answers, for probes
	Full        bool   // it has all statements; otherwise those that it lacks are as they were
	Self        Self
	Hosts       []Hosted // PoPs of the same process, which have no report of their own, by name: all of them, if they are well or not
	Statements  []Statement
}

// Hosted is what a PoP says of itself that runs in a process of several ("isochrone up"), whose report stands for all of them.
type Hosted struct {
	PoP      string
	Degraded string // as in Self
	Shedding bool
}

// mayHost reports whether a vantage can have PoPs in its process: nobody else may speak for one.
func (r *Report) mayHost() bool { return strings.HasPrefix(r.Name, "up:") }

// sameSelf reports whether two reports say the same of their nodes, as far as verdicts depend on it.
func (r *Report) sameSelf(other *Report) bool {
	return r.Self.Degraded == other.Self.Degraded && r.Self.Shedding == other.Self.Shedding && slices.Equal(r.Hosts, other.Hosts)
}
