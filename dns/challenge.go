package dns

import (
	"maps"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

// Challenges of ACME (RFC 8555 section 8.4) come and go while a certificate is got. They are no part of the index, which would have to be
// made anew each time: the full path looks for them where the index has no name. The fast path does not know them.

// challengeTTL is their time to live in seconds: a CA that asks again gets the next one.
const challengeTTL = 1

// challengeLabel stands in front of the name that a challenge is for.
const challengeLabel = "_acme-challenge."

// challenges are those of one snapshot. It is immutable.
type challenges struct {
	from  map[string]*topology.Challenge
	index *index
	nodes map[string]*challengeNode // by name on the wire
}

type challengeNode struct {
	node
	expires time.Time
}

// newChallenges makes the names of challenges, below names of ours that exist: others would exist without those above them. A name that the
// zone has itself stays what it is there, be it a CNAME record to where somebody else answers.
func newChallenges(from map[string]*topology.Challenge, x *index) *challenges {
	c := &challenges{from: from, index: x, nodes: map[string]*challengeNode{}}
	for of, challenge := range from {
		name := challengeLabel + of + "."
		wire := wireName(name)
		z := x.zoneOf(wire)
		if z == nil || wire == "" || z.nodes[wire] != nil || z.nodes[parent(wire)] == nil {
			continue
		}
		n := &challengeNode{expires: challenge.Expires, node: node{
			zone: z, name: name, wire: wire, sets: map[uint16][]dns.RR{}, types: []uint16{dns.TypeTXT},
		}}
		n.put(&dns.TXT{Hdr: z.header(name, dns.TypeTXT, challengeTTL), Txt: []string{challenge.Value}})
		c.nodes[wire] = n
	}
	return c
}

// renewed returns the challenges of a snapshot, made anew only if they are others or their zones are.
func (c *challenges) renewed(from map[string]*topology.Challenge, x *index) *challenges {
	switch {
	case len(from) == 0 || x == nil:
		return nil
	case c != nil && c.index == x && maps.Equal(c.from, from):
		return c
	}
	return newChallenges(from, x)
}

// has reports whether a question is for a challenge, expired or not.
func (c *challenges) has(q *inquiry) bool {
	return c != nil && q.kind == usual && c.nodes[string(q.name())] != nil
}

// find returns the challenge of a name on the wire, or nil.
func (c *challenges) find(wire string, now time.Time) *node {
	if c == nil {
		return nil
	}
	if n := c.nodes[wire]; n != nil && now.Before(n.expires) {
		return &n.node
	}
	return nil
}
