package certs

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"
)

// Keys of session tickets (RFC 8446 section 4.6.1) are shared by all PoPs, so that a client resumes at another one, and are replaced again
// and again. There are three generations: PoPs seal tickets with the current one, and open those of all three, so that it does not matter
// when a PoP learns of a rotation, as long as it is not two behind.
//
// They are shared by all services too. crypto/tls does not bind a ticket to the name that was asked for, so a ticket of one service
// resumes at another, if a client tries. Here that gains it nothing: a session grants nothing, since each request shows its API key, and
// what may come in early data is decided by the request's service. Were clients known by certificates, which a ticket carries over, a
// ticket of one service would let them in at another: keys would then have to be derived for each service.

// RotationPeriod is how long a generation of keys seals tickets. A ticket is good for as long as its key can be had: one to two periods,
// which is less than the seven days of crypto/tls. Who gets hold of the keys can read what was resumed (its early data above all) for as
// far back; sessions without early data still have a key exchange of their own.
const RotationPeriod = 8 * time.Hour

// Generations are the keys of tickets that PoPs share.
type Generations struct {
	Rotated                 time.Time // when Current became it
	Next, Current, Previous [32]byte
}

// NewGenerations makes keys.
func NewGenerations(now time.Time) Generations {
	g := Generations{Rotated: now.UTC().Truncate(time.Second)}
	for _, key := range []*[32]byte{&g.Next, &g.Current, &g.Previous} {
		fill(key)
	}
	return g
}

// Rotate returns the keys of the next generation.
func (g Generations) Rotate(now time.Time) Generations {
	next := Generations{Rotated: now.UTC().Truncate(time.Second), Current: g.Next, Previous: g.Current}
	fill(&next.Next)
	return next
}

// Due reports whether the current keys have been in use for a period, or are of a time that is far from now.
func (g Generations) Due(now time.Time, period time.Duration) bool {
	age := now.Sub(g.Rotated)
	return age >= period || age < -period
}

func fill(key *[32]byte) { rand.Read(key[:]) } // never fails: crypto/rand ends the program before

// generationsText is the form in which generations are sealed.
type generationsText struct {
	Rotated  time.Time `json:"rotated"`
	Next     []byte    `json:"next"`
	Current  []byte    `json:"current"`
	Previous []byte    `json:"previous"`
}

// Marshal returns the text to seal, which ParseGenerations reads.
func (g Generations) Marshal() []byte {
	text, err := json.Marshal(generationsText{g.Rotated, g.Next[:], g.Current[:], g.Previous[:]})
	if err != nil {
		panic(err) // only for years beyond 9999
	}
	return text
}

// ParseGenerations reads keys of tickets. An error tells nothing of them.
func ParseGenerations(text []byte) (Generations, error) {
	var t generationsText
	if len(text) > 4096 || json.Unmarshal(text, &t) != nil {
		return Generations{}, fmt.Errorf("keys of session tickets: %d bytes that are not JSON as the leader writes it", len(text))
	}
	g := Generations{Rotated: t.Rotated}
	for _, key := range []struct {
		name string
		from []byte
		to   *[32]byte
	}{{"next", t.Next, &g.Next}, {"current", t.Current, &g.Current}, {"previous", t.Previous, &g.Previous}} {
		if copy(key.to[:], key.from); len(key.from) != len(key.to) || *key.to == ([32]byte{}) {
			return Generations{}, fmt.Errorf("keys of session tickets: %s has %d bytes: want 32 random ones", key.name, len(key.from))
		}
	}
	return g, nil
}

// ticketKeys are the keys in use.
type ticketKeys struct {
	Generations
	own  bool // of this process alone
	keys [][32]byte
}

func newTicketKeys(g Generations, own bool) *ticketKeys {
	return &ticketKeys{g, own, [][32]byte{g.Current, g.Next, g.Previous}}
}

func ownTickets(now time.Time) *ticketKeys { return newTicketKeys(NewGenerations(now), true) }

// TicketKeys returns the keys of session tickets: the first seals, all open. It is made for tls.Config.SetSessionTicketKeys. They may be
// others at any time, and then the slice is another one, whose first element has another address; it must not be changed.
func (s *Source) TicketKeys() [][32]byte { return s.tickets.Load().keys }

// Tickets takes the keys that all PoPs share, as the leader has sealed them. With broken ones, and with none (nil), what was in use stays:
// keys of this process alone before the first, which are renewed at times.
func (s *Source) Tickets(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == nil {
		return
	}
	g, err := ParseGenerations(text)
	if s.tell("tickets", err); err != nil {
		return
	}
	if now := s.tickets.Load(); now.own || now.Generations != g {
		s.tickets.Store(newTicketKeys(g, false))
		s.config.Log.Debug("keys of session tickets taken", "rotated", g.Rotated)
	}
}

// renewOwnTickets rotates keys that are of this process alone.
func (s *Source) renewOwnTickets(now time.Time) {
	if t := s.tickets.Load(); t.own && t.Due(now, RotationPeriod) {
		s.tickets.Store(newTicketKeys(t.Rotate(now), true))
	}
}
