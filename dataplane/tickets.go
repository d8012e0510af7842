package dataplane

import (
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// tickets gives each handshake a configuration with the present keys of session tickets (RFC 8446 section 4.6.1). A configuration
// is made once for each set of keys. It is safe for concurrent use.
type tickets struct {
	base *tls.Config
	keys func() [][32]byte // the first one is for new tickets
	now  atomic.Pointer[ticketed]
}

type ticketed struct {
	keys   [][32]byte
	config *tls.Config
}

// withTickets returns a configuration like base that follows the keys. Nil stands for keys of this process alone.
func withTickets(base *tls.Config, keys func() [][32]byte) *tls.Config {
	if keys == nil {
		keys = new(ownKeys).current
	}
	t := &tickets{base: base, keys: keys}
	config := base.Clone()
	config.GetConfigForClient = t.config
	return config
}

func (t *tickets) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	keys := t.keys()
	if now := t.now.Load(); now != nil && slices.Equal(now.keys, keys) {
		return now.config, nil
	}
	fresh := &ticketed{slices.Clone(keys), t.base.Clone()}
	if len(keys) > 0 {
		fresh.config.SetSessionTicketKeys(fresh.keys)
	} else {
		fresh.config.SessionTicketsDisabled = true
	}
	t.now.Store(fresh)
	return fresh.config, nil
}

// ownKeys are keys that live as long as the process. crypto/tls has such too, but for each configuration apart, and QUIC makes one
// for each connection.
type ownKeys struct {
	mu   sync.Mutex
	keys [][32]byte
	made time.Time // the first one
}

// ownKeyAge is for how long a key makes tickets; for as long again it opens them.
const ownKeyAge = 24 * time.Hour

func (o *ownKeys) current() [][32]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); o.keys == nil || now.Sub(o.made) > ownKeyAge {
		var key [32]byte
		rand.Read(key[:])
		o.keys = append([][32]byte{key}, o.keys[:min(1, len(o.keys))]...)
		o.made = now
	}
	return o.keys
}
