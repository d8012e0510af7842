package health

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Code classes evidence, for metrics and for comparing what vantages see.
type Code string

// The codes.
const (
	CodeOK          Code = "ok"
	CodeTimeout     Code = "timeout"     // no answer in time
	CodeRefused     Code = "refused"     // nobody listens
	CodeUnreachable Code = "unreachable" // no route, or the network says so
	CodeTLS         Code = "tls"         // the handshake failed, or the certificate is wrong or has expired
	CodeStatus      Code = "status"      // another answer than a healthy one
	CodeBroken      Code = "broken"      // the connection ended, or what came makes no sense
	CodeBehind      Code = "behind"      // a cluster's chain has no peers, is syncing, or lags behind the others
	CodeLate        Code = "late"        // no answer yet, later than usual
	CodePassive     Code = "traffic"     // requests of clients failed
	CodeFlapping    Code = "flapping"    // it has come and gone too often to be believed
)

// Step is a part of a probe.
type Step struct {
	Name string        `json:"name"` // such as handshake, or response
	Took time.Duration `json:"took"`
}

// Observation is what one vantage saw of a target once.
type Observation struct {
	Target  Target
	OK      bool
	Code    Code
	Reason  string        // evidence: the error or the answer, in a few words
	Steps   []Step        // as far as the probe came
	Took    time.Duration // of the whole probe
	At      time.Time
	Burst   bool // made because of a suspicion, by two connections at once: what fails, or is late, is confirmed with it
	Passive bool // of clients' traffic: a failure is no more than a suspicion
	Late    bool // there is no answer yet: in calm no more than a suspicion
}

// Statement is what a vantage says of a target.
type Statement struct {
	Status   Status        // up or down
	Failures int           // in a row until now; a target that is up with some is suspected
	Code     Code          // of the newest observation that made a difference
	Reason   string        // of that, at most MaxReason octets
	Steps    []Step        // of that
	Took     time.Duration // of that
	Age      time.Duration // of Status when the report was made
}

// Suspects reports whether a vantage has seen a target fail that it does not hold to be down yet.
func (s Statement) Suspects() bool { return s.Status == Up && s.Failures > 0 }

// Report is all that a vantage has to say.
type Report struct {
	Vantage     string // as nodes are named, such as pop:sin1
	Region      string // the continent's code, or empty where it is not known
	Incarnation uint64 // when the vantage began, in nanoseconds since 1970 by its own clock
	Sequence    uint64 // of the report, from 1
	Key         []byte // Ed25519 public key of its reports by package direct; nil when it sends none
	Address     string // address and port where it takes reports of others; empty when it takes none
	Looks       []Kind // the kinds of target that the vantage looks at; none for all
	Serves      string // address and port at which a DNS node answers questions, for probes; empty for others
	Degraded    string // why a PoP cannot do all of its work, such as that no cluster can be reached; empty when it can
	Statements  map[Target]Statement
}

// Self is the target that a vantage is itself, if it is one that others look at.
func (r *Report) Self() (Target, bool) { return selfOf(r.Vantage) }

func selfOf(vantage string) (Target, bool) {
	kind, name, ok := strings.Cut(vantage, ":")
	return Target{Kind(kind), name}, ok && (Kind(kind) == PoP || Kind(kind) == DNS)
}

// The bounds of a report.
const (
	MaxReport     = 64 << 10 // octets
	MaxReason     = 120      // octets
	maxStatements = 10_000
	maxSteps      = 8
	maxNameBytes  = 100
)

// reportSchema is the version of the encoding: a node that does not know it takes the report for none.
const reportSchema = 1

// The encoding of a report is JSON with short names; what is usual is left out.
type (
	wireReport struct {
		Schema      int                      `json:"v"`
		Vantage     string                   `json:"n"`
		Region      string                   `json:"r,omitempty"`
		Incarnation uint64                   `json:"i"`
		Sequence    uint64                   `json:"q"`
		Key         []byte                   `json:"k,omitempty"`
		Address     string                   `json:"a,omitempty"`
		Serves      string                   `json:"d,omitempty"`
		Looks       []Kind                   `json:"l,omitempty"`
		Degraded    string                   `json:"g,omitempty"`
		Statements  map[string]wireStatement `json:"s"`
	}
	wireStatement struct {
		Down     bool       `json:"d,omitempty"`
		Failures int        `json:"f,omitempty"`
		Code     Code       `json:"c,omitempty"` // absent for ok
		Reason   string     `json:"e,omitempty"` // only of what fails
		Steps    []wireStep `json:"p,omitempty"` // likewise
		Took     int64      `json:"t,omitempty"` // ms
		Age      int64      `json:"a,omitempty"` // s
	}
	wireStep struct {
		Name string `json:"n"`
		Took int64  `json:"t"` // ms
	}
)

// Encode returns the report as it is stored and sent. Of one that is too large, the evidence is left out.
func (r *Report) Encode() []byte {
	text := r.encode(true)
	if len(text) > MaxReport {
		text = r.encode(false)
	}
	return text
}

func (r *Report) encode(evidence bool) []byte {
	w := wireReport{
		Schema: reportSchema, Vantage: r.Vantage, Region: r.Region, Incarnation: r.Incarnation, Sequence: r.Sequence, Key: r.Key,
		Address: r.Address, Serves: r.Serves, Looks: r.Looks, Degraded: clip(r.Degraded), Statements: map[string]wireStatement{},
	}
	for t, s := range r.Statements {
		one := wireStatement{Down: s.Status == Down, Failures: s.Failures, Took: s.Took.Milliseconds(), Age: int64(s.Age / time.Second)}
		if s.Code != CodeOK {
			one.Code = s.Code
		}
		if evidence && (one.Down || one.Failures > 0) {
			one.Reason = clip(s.Reason)
			for _, step := range s.Steps[:min(len(s.Steps), maxSteps)] {
				one.Steps = append(one.Steps, wireStep{step.Name, step.Took.Milliseconds()})
			}
		}
		w.Statements[t.String()] = one
	}
	text, err := json.Marshal(w)
	if err != nil {
		panic(err) // text and numbers can be written
	}
	return text
}

// clip shortens evidence, which may be anything that a server has said.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= MaxReason {
		return text
	}
	end := MaxReason - len("…")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

var errReport = errors.New("not a report")

// DecodeReport reads what Encode has written. Whoever sent it may have written anything.
func DecodeReport(text []byte) (*Report, error) {
	if len(text) > MaxReport {
		return nil, fmt.Errorf("%w: %d octets, at most %d are taken", errReport, len(text), MaxReport)
	}
	var w wireReport
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", errReport, err)
	}
	switch {
	case w.Schema != reportSchema:
		return nil, fmt.Errorf("%w: schema %d, this node knows %d", errReport, w.Schema, reportSchema)
	case w.Vantage == "" || len(w.Vantage) > maxNameBytes || len(w.Region) > 2 || len(w.Address) > maxNameBytes || len(w.Serves) > maxNameBytes || len(w.Key) > 64 || len(w.Looks) > 8:
		return nil, fmt.Errorf("%w: name of %d octets, region of %d", errReport, len(w.Vantage), len(w.Region))
	case len(w.Statements) > maxStatements:
		return nil, fmt.Errorf("%w: %d statements, at most %d are taken", errReport, len(w.Statements), maxStatements)
	}
	r := &Report{
		Vantage: w.Vantage, Region: w.Region, Incarnation: w.Incarnation, Sequence: w.Sequence, Key: w.Key, Address: w.Address, Serves: w.Serves, Looks: w.Looks,
		Degraded: clip(w.Degraded), Statements: make(map[Target]Statement, len(w.Statements)),
	}
	for name, one := range w.Statements {
		kind, target, ok := strings.Cut(name, "/")
		if !ok || target == "" || len(name) > maxNameBytes {
			return nil, fmt.Errorf("%w: %.100q is no target", errReport, name)
		}
		s := Statement{
			Status: Up, Failures: max(one.Failures, 0), Code: cmp.Or(one.Code, CodeOK), Reason: clip(one.Reason),
			Took: duration(one.Took, time.Millisecond), Age: duration(one.Age, time.Second),
		}
		if len(s.Code) > 20 {
			s.Code = CodeBroken
		}
		if one.Down {
			s.Status = Down
		}
		for _, step := range one.Steps[:min(len(one.Steps), maxSteps)] {
			s.Steps = append(s.Steps, Step{clip(step.Name), duration(step.Took, time.Millisecond)})
		}
		r.Statements[Target{Kind(kind), target}] = s
	}
	return r, nil
}

// duration is what somebody says that something took: not less than nothing, and no more than ten years.
func duration(n int64, unit time.Duration) time.Duration {
	return time.Duration(min(max(n, 0), int64(10*365*24*time.Hour/unit))) * unit
}

// Newer reports whether a report is newer than another one of the same vantage, or nil.
func (r *Report) Newer(than *Report) bool {
	return than == nil || cmp.Or(cmp.Compare(r.Incarnation, than.Incarnation), cmp.Compare(r.Sequence, than.Sequence)) > 0
}

func compareTargets(a, b Target) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}
