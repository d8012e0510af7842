package topology

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// MaxChallenges bounds the challenges that are in force at once; of more, the first by name count.
const MaxChallenges = 1000

// maxChallengeLife is how far from now a challenge may expire when it is written; nobody checks it later.
const maxChallengeLife = 24 * time.Hour

// Challenge is what an ACME server looks for to see that a name is ours: the TXT record of _acme-challenge below it (RFC 8555 section 8.4). It
// stands under acme/challenges/NAME and is public.
type Challenge struct {
	Schema  int       `yaml:"schema" json:"schema"`
	Value   string    `yaml:"value" json:"value"`     // SHA-256 of the key authorization, in base64url without padding
	Expires time.Time `yaml:"expires" json:"expires"` // from when on it is not served, should nobody delete it
}

// NewChallenge returns a challenge that is served until it expires: at most a day from now.
func NewChallenge(value string, life time.Duration, now time.Time) *Challenge {
	return &Challenge{Schema: FirstSchema, Value: value, Expires: now.Add(min(life, maxChallengeLife)).UTC().Truncate(time.Second)}
}

// ParseChallenge reads and checks the challenge of a name.
func ParseChallenge(name string, text []byte) (*Challenge, []Fault) {
	s, d := new(Challenge), decoder{}
	if d.decode(text, "acme.challenges."+name, s); len(d.faults) > 0 {
		return nil, d.faults
	}
	if faults := d.locate(checkChallenge(name, s)); len(faults) > 0 {
		return nil, faults
	}
	return s, nil
}

func checkChallenge(name string, s *Challenge) []Fault {
	c := &checker{path: "acme.challenges." + name}
	if c.faults = checkSchema(c.path+".schema", s.Schema); IsTooNew(s.Schema) {
		return c.faults
	}
	c.domain("", name)
	if len(s.Value) != 43 || strings.ContainsFunc(s.Value, func(r rune) bool { return !isBase64URL(r) }) {
		c.fault("value", "%.50q is no digest: want the 43 characters of a SHA-256 in base64url (RFC 8555 section 8.4)", s.Value)
	}
	if s.Expires.IsZero() {
		c.fault("expires", "is missing: want a time such as 2026-01-02T15:04:05Z")
	}
	return c.faults
}

func isBase64URL(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// putChallenge takes a stored challenge.
func (a *Assembler) putChallenge(name string, value []byte) {
	c, faults := ParseChallenge(name, value)
	a.challenges[name] = parsed[*Challenge]{value: c, faults: faults}
}

// challenged fills in the challenges of a snapshot: the very map of the last one, unless something has changed.
func (a *Assembler) challenged(next *Snapshot) {
	challenges := map[string]*Challenge{}
	for _, name := range slices.Sorted(maps.Keys(a.challenges)) {
		c := a.challenges[name]
		next.Ignored = append(next.Ignored, c.faults...)
		switch {
		case c.value == nil:
		case len(challenges) == MaxChallenges:
			next.Ignored = append(next.Ignored, Fault{Path: "acme.challenges." + name, Message: "is one too many: at most 1000 are served at once"})
		default:
			challenges[name] = c.value
		}
	}
	if next.Challenges = a.last.Challenges; !maps.Equal(challenges, next.Challenges) {
		next.Challenges = challenges
	}
}
