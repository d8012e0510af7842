package topology

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Override is a temporary operator's decision about one object. It takes effect on top of the topology in force, even
// while a newer topology is invalid. Of several of one kind about one object that is in effect which was created last.
type Override struct {
	Schema  int           `yaml:"schema" json:"schema"`
	Kind    OverrideKind  `yaml:"kind" json:"kind"`
	PoP     string        `yaml:"pop,omitempty" json:"pop,omitempty"`         // the PoP or …
	Cluster string        `yaml:"cluster,omitempty" json:"cluster,omitempty"` // … the cluster it is about
	Verdict ForcedVerdict `yaml:"verdict,omitempty" json:"verdict,omitempty"` // of kind force
	Share   *float64      `yaml:"share,omitempty" json:"share,omitempty"`     // of kind pin: of the PoP's clients, 0..1
	Reason  string        `yaml:"reason" json:"reason"`                       // at most 500 characters
	Author  string        `yaml:"author" json:"author"`                       // at most 200 characters
	Created time.Time     `yaml:"created" json:"created"`
	Expires time.Time     `yaml:"expires" json:"expires"`
}

// OverrideKind is what an override does.
type OverrideKind string

// The kinds of override.
const (
	Drain OverrideKind = "drain" // no new clients, or no envelopes while there is another cluster; stronger than a forced verdict
	Force OverrideKind = "force" // a verdict in place of health's
	Pin   OverrideKind = "pin"   // the share of its clients that a PoP keeps, in place of the computed one
)

// ForcedVerdict is the verdict of an override of kind force.
type ForcedVerdict string

// The verdicts that can be forced.
const (
	ForceUp   ForcedVerdict = "up"
	ForceDown ForcedVerdict = "down"
)

const (
	maxReason = 500
	maxAuthor = 200
)

// InEffect reports whether the override has not ended at a time.
func (o *Override) InEffect(now time.Time) bool { return now.Before(o.Expires) }

// String tells what was decided by whom, until when and why, such as "drained by ops until 2030-01-31T18:00:00Z: power works".
func (o *Override) String() string {
	what := "drained"
	switch o.Kind {
	case Force:
		what = "forced " + string(o.Verdict)
	case Pin:
		what = fmt.Sprintf("pinned to %.4g %%", 100*o.share())
	}
	return fmt.Sprintf("%s by %s until %s: %s", what, o.Author, o.Expires.UTC().Format(time.RFC3339), o.Reason)
}

func (o *Override) share() float64 {
	if o.Share == nil { // not valid
		return 1
	}
	return *o.Share
}

// Decision is what operators have decided about one object: of each kind the override that counts, or nil.
type Decision struct{ Drain, Force, Pin *Override }

// Drained reports whether the object gets no new work.
func (d Decision) Drained() bool { return d.Drain != nil }

// Verdict returns the forced verdict, and false if none is.
func (d Decision) Verdict() (ForcedVerdict, bool) {
	if d.Force == nil {
		return "", false
	}
	return d.Force.Verdict, true
}

// Share returns the pinned share, and false if none is.
func (d Decision) Share() (float64, bool) {
	if d.Pin == nil {
		return 1, false
	}
	return d.Pin.share(), true
}

// Decisions are those overrides of a snapshot that are in effect at a time. They are immutable.
type Decisions struct {
	pops, clusters map[string]Decision
	until          time.Time
}

// Decide returns what is in effect of overrides, which are keyed by name, at a time. Of two that were created at once the one
// counts whose name comes last in the alphabet.
func Decide(overrides map[string]*Override, now time.Time) Decisions {
	if len(overrides) == 0 {
		return Decisions{}
	}
	d := Decisions{pops: map[string]Decision{}, clusters: map[string]Decision{}}
	names := map[*Override]string{}
	newer := func(o, than *Override) bool {
		if than == nil || !o.Created.Equal(than.Created) {
			return than == nil || o.Created.After(than.Created)
		}
		return names[o] > names[than]
	}
	for name, o := range overrides {
		if !o.InEffect(now) {
			continue
		}
		names[o] = name
		if d.until.IsZero() || o.Expires.Before(d.until) {
			d.until = o.Expires
		}
		of, target := d.pops, o.PoP
		if o.Cluster != "" {
			of, target = d.clusters, o.Cluster
		}
		decision := of[target]
		switch {
		case o.Kind == Drain && newer(o, decision.Drain):
			decision.Drain = o
		case o.Kind == Force && newer(o, decision.Force):
			decision.Force = o
		case o.Kind == Pin && newer(o, decision.Pin):
			decision.Pin = o
		}
		of[target] = decision
	}
	return d
}

// PoP returns what is decided about a PoP.
func (d Decisions) PoP(name string) Decision { return d.pops[name] }

// Cluster returns what is decided about a cluster.
func (d Decisions) Cluster(name string) Decision { return d.clusters[name] }

// Until returns when the first of the overrides ends, so that there are other decisions, and false when none does.
func (d Decisions) Until() (time.Time, bool) { return d.until, !d.until.IsZero() }

// ParseOverride reads and checks an override.
func ParseOverride(name string, text []byte) (*Override, []Fault) {
	o, d := new(Override), decoder{}
	if d.decode(text, "overrides."+name, o); len(d.faults) > 0 {
		return nil, d.faults
	}
	if faults := d.locate(checkOverride(name, o)); len(faults) > 0 {
		return nil, faults
	}
	return o, nil
}

func checkOverride(name string, o *Override) []Fault {
	c := &checker{path: "overrides." + name}
	if c.faults = checkSchema(c.path+".schema", o.Schema); IsTooNew(o.Schema) {
		return c.faults
	}
	c.label(name)
	oneOf(c, "kind", o.Kind, Drain, Force, Pin)
	switch {
	case (o.PoP == "") == (o.Cluster == ""):
		c.fault("", "want one of pop and cluster")
	case o.Kind == Pin && o.Cluster != "":
		c.fault("cluster", "a share is pinned of a PoP: want pop instead")
	}
	switch {
	case o.Kind == Force:
		oneOf(c, "verdict", o.Verdict, ForceUp, ForceDown)
	case o.Verdict != "":
		c.fault("verdict", "%q belongs to an override of kind force, not %s", o.Verdict, o.Kind)
	}
	switch {
	case o.Kind == Pin && o.Share == nil:
		c.fault("share", "is missing: want the share of its clients that the PoP keeps, 0..1")
	case o.Kind == Pin:
		within(c, "share", *o.Share, 0, 1)
	case o.Share != nil:
		c.fault("share", "%v belongs to an override of kind pin, not %s", *o.Share, o.Kind)
	}
	if strings.TrimSpace(o.Reason) == "" {
		c.fault("reason", "is missing: say why, for everyone who wonders")
	}
	c.short("reason", o.Reason, maxReason)
	c.short("author", o.Author, maxAuthor)
	if o.Expires.IsZero() {
		c.fault("expires", "is missing: an override ends by itself")
	}
	return c.faults
}

// short checks the length of a text.
func (c *checker) short(field, text string, most int) {
	if n := utf8.RuneCountInString(text); n > most {
		c.fault(field, "has %d characters, at most %d are taken", n, most)
	}
}

// warnings tells when the override is about nothing that a topology has.
func (o *Override) warnings(name string, t *Topology) []Fault {
	path := "overrides." + name
	switch {
	case o.PoP != "" && t.PoPs[o.PoP] == nil:
		return []Fault{{Path: path + ".pop", Message: fmt.Sprintf("has no effect: there is no PoP %s", o.PoP)}}
	case o.Cluster != "" && t.Clusters[o.Cluster] == nil:
		return []Fault{{Path: path + ".cluster", Message: fmt.Sprintf("has no effect: there is no cluster %s", o.Cluster)}}
	}
	return nil
}
