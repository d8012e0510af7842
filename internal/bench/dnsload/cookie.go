package main

import (
	"encoding/hex"
	"math/rand/v2"

	"github.com/miekg/dns"
)

const (
	clientCookieBytes = 8
	minServerCookie   = 8  // RFC 7873 section 4.2
	maxServerCookie   = 32 //
	cookieTries       = 64 // answers in which a flow looks for the server's cookie
)

// cookie is a client's DNS cookie (RFC 7873), and the server's, once it has been learnt of an answer. A nil cookie learns nothing.
type cookie struct {
	client [clientCookieBytes]byte
	server []byte
	tries  int
}

func newCookie(random *rand.PCG) *cookie {
	c := &cookie{}
	r := random.Uint64()
	for i := range c.client {
		c.client[i] = byte(r >> (8 * i))
	}
	return c
}

// learn takes the server's cookie out of one of the first answers; a server that knows no cookies is not asked for ever.
func (c *cookie) learn(packet []byte) {
	if c == nil || c.server != nil || c.tries == cookieTries {
		return
	}
	c.tries++
	var msg dns.Msg
	if msg.Unpack(packet) != nil || msg.IsEdns0() == nil {
		return
	}
	for _, option := range msg.IsEdns0().Option {
		sent, ok := option.(*dns.EDNS0_COOKIE)
		if !ok {
			continue
		}
		both, err := hex.DecodeString(sent.Cookie)
		if n := len(both) - clientCookieBytes; err == nil && n >= minServerCookie && n <= maxServerCookie &&
			[clientCookieBytes]byte(both) == c.client {
			c.server = both[clientCookieBytes:]
		}
	}
}
