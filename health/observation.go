package health

import "time"

// Code is the kind of a failure, or of a warning about a success. It is one of those below; others are reported as Other.
type Code string

// The codes.
const (
	Timeout     Code = "timeout"     // no answer in time
	Refused     Code = "refused"     // nobody listens: a port unreachable, a connection refused
	Unreachable Code = "unreachable" // no route, no address
	Reset       Code = "reset"       // the connection broke
	Handshake   Code = "handshake"   // QUIC or TLS would not begin
	Certificate Code = "certificate" // it is not valid
	Expiring    Code = "expiring"    // the certificate is, soon
	Answered    Code = "answered"    // with another code or content than a service in order gives
	Syncing     Code = "syncing"     // a chain's node follows the chain from afar
	Lagging     Code = "lagging"     // a chain's head is behind the others'
	Lonely      Code = "lonely"      // a chain's node has no peers
	Flapping    Code = "flapping"    // it comes and goes: suppressed until it is steady
	Traffic     Code = "traffic"     // real requests fail
	Other       Code = "other"
)

// Steps are the times of a probe's parts. Zero is a step that was not taken, or not reached.
type Steps struct {
	Connect   time.Duration // TCP
	Handshake time.Duration // TLS, or QUIC as a whole
	Answer    time.Duration // from the request to the answer
}

// Observation is what one vantage saw of a target once.
type Observation struct {
	Target  Target
	OK      bool
	Passive bool          // seen in real traffic, not by a probe; never brings a target down by itself
	Code    Code          // of a failure; of a success that deserves a warning
	Reason  string        // evidence: the error or the code, in a few words
	Took    time.Duration // of the whole probe
	Steps   Steps
	At      time.Time
}
