package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Sections are parts of the store, such as topology/, each with the slash.
type Sections []string

// sections are what a snapshot is made of.
var sections = Sections{"topology/", "overrides/", "keys/", "secrets/", "dnssec/", "acme/challenges/"}

// momentary are what nodes follow besides: the reports of vantages, the shares of PoPs and what nodes announce by BGP, which are true for as long
// as somebody says so, and change far more often.
var momentary = Sections{"reports/", "shares/", "announces/"}

// SectionsOf returns what a kind of node follows: of what a snapshot is made of no more than it needs, and what is of the moment. A DNS node
// has no use for keys, of which there may be many, and a PoP none for the signing of zones and the challenges of ACME. All other kinds follow
// everything.
func SectionsOf(kind string) Sections {
	of := sections
	switch kind {
	case "dns":
		of = Sections{"topology/", "overrides/", "secrets/", "dnssec/", "acme/challenges/"}
	case "pop":
		of = Sections{"topology/", "overrides/", "keys/", "secrets/"}
	}
	return append(slices.Clone(of), momentary...)
}

// Have reports whether a key, without the root, is in one of the sections.
func (s Sections) Have(key string) bool {
	return slices.ContainsFunc(s, func(section string) bool { return strings.HasPrefix(key, section) })
}

// Update is what a feed tells: what has changed, or all there is. Keys are without the root. Values must not be changed.
type Update struct {
	Revision int64             // of the store, up to which this tells all
	Whole    bool              // what is not in Put is not stored
	Put      map[string][]byte // nil and empty alike
	Delete   []string
	Sum      *Sum // of all that is stored now, if the feed knows it: the follower checks it
}

// Feed tells a follower what is stored, until ctx ends or it fails; the error says why. It calls take with all there is, unless it
// knows how that differs from what the follower has, whose sum it is given; then with every change, and every few seconds with an empty
// update while nothing changes, so that the follower knows that it is still there. What one transaction changed is in one update. An
// error of take ends the feed, and is returned. Take does not keep the feed waiting for long.
type Feed func(ctx context.Context, has Sum, take func(Update) error) error

// Sum tells contents of the store apart: it is that of the SHA-256 of each key with its value, which are combined so that the order does
// not matter and a change costs as much as it is large. It finds what got lost, and is no protection against who may write to the store.
// That of nothing is zero.
type Sum [sha256.Size]byte

// unknown is the sum of a follower that cannot tell what it has: no contents have it.
var unknown = Sum{0: 1}

// SumOf returns the sum of one value.
func SumOf(key string, value []byte) (s Sum) {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key)))) // so that it is clear where the value begins
	h.Write([]byte(key))
	h.Write(value)
	h.Sum(s[:0])
	return s
}

// Combine adds what has another sum, or takes it away if it has been added before.
func (s *Sum) Combine(other Sum) {
	for i, b := range other {
		s[i] ^= b
	}
}

// String returns the sum in hex.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler, in hex.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Sum) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(s) {
		return fmt.Errorf("a sum of %d characters: want %d of hex", len(text), hex.EncodedLen(len(s)))
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// contents knows what a follower has, by the sums of the values.
type contents struct {
	sums map[string]Sum
	sum  Sum // of all
}

// put takes a value and reports whether it is another one than before.
func (c *contents) put(key string, value []byte) bool {
	sum := SumOf(key, value)
	before, there := c.sums[key]
	if there && before == sum {
		return false
	}
	if there {
		c.sum.Combine(before)
	}
	c.sum.Combine(sum)
	c.sums[key] = sum
	return true
}

// delete forgets a value and reports whether there was one.
func (c *contents) delete(key string) bool {
	sum, there := c.sums[key]
	if there {
		c.sum.Combine(sum)
		delete(c.sums, key)
	}
	return there
}
