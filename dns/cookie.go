package dns

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"

	"github.com/dchest/siphash"
)

// The sizes of DNS cookies (RFC 7873 section 4, RFC 9018 section 4), and how long a server's one is good, in seconds (RFC 9018
// section 4.3).
const (
	clientCookieSize = 8
	serverCookieSize = 16

	cookieLifetime = 3600
	cookieRenewal  = 1800
	cookieFuture   = 300
)

// cookieJar makes and checks server cookies as RFC 9018 says, so that servers that share an address and a secret know each
// other's.
type cookieJar struct {
	secrets [][2]uint64 // the first makes new cookies
}

// newCookieJar returns a jar with the secrets, or with one of its own if there are none.
func newCookieJar(secrets [][16]byte) cookieJar {
	if len(secrets) == 0 {
		var own [16]byte
		rand.Read(own[:])
		secrets = [][16]byte{own}
	}
	var jar cookieJar
	for _, s := range secrets {
		jar.secrets = append(jar.secrets, [2]uint64{binary.LittleEndian.Uint64(s[:]), binary.LittleEndian.Uint64(s[8:])})
	}
	return jar
}

// hash is the last part of a server cookie: SipHash-2-4 over client cookie, version, reserved, timestamp and client address.
func (j *cookieJar) hash(secret int, clientAndHead *[clientCookieSize + 8]byte, from netip.Addr) uint64 {
	var message [clientCookieSize + 8 + 16]byte
	n := copy(message[:], clientAndHead[:])
	if from.Is4() {
		a := from.As4()
		n += copy(message[n:], a[:])
	} else {
		a := from.As16()
		n += copy(message[n:], a[:])
	}
	return siphash.Hash(j.secrets[secret][0], j.secrets[secret][1], message[:n])
}

// check reports whether the option's server cookie is one that this server, or one with the same secret, has given to the client
// not long before now, in seconds since 1970. Times are compared as RFC 1982 compares numbers. Fresh says that it may be used
// again as it is.
func (j *cookieJar) check(option []byte, from netip.Addr, now uint32) (valid, fresh bool) {
	if len(option) != clientCookieSize+serverCookieSize || option[clientCookieSize] != 1 {
		return false, false
	}
	age := int32(now - binary.BigEndian.Uint32(option[clientCookieSize+4:]))
	if age > cookieLifetime || age < -cookieFuture {
		return false, false
	}
	head := (*[clientCookieSize + 8]byte)(option)
	for i := range j.secrets {
		var want [8]byte
		binary.LittleEndian.PutUint64(want[:], j.hash(i, head, from))
		if subtle.ConstantTimeCompare(want[:], option[clientCookieSize+8:]) == 1 {
			return true, i == 0 && age < cookieRenewal
		}
	}
	return false, false
}

// reply writes the option to send back, client and server cookie. It is the one that came if that is fresh.
func (j *cookieJar) reply(into *[clientCookieSize + serverCookieSize]byte, option []byte, from netip.Addr, now uint32, fresh bool) {
	if fresh {
		copy(into[:], option)
		return
	}
	copy(into[:clientCookieSize], option)
	into[8], into[9], into[10], into[11] = 1, 0, 0, 0
	binary.BigEndian.PutUint32(into[12:], now)
	binary.LittleEndian.PutUint64(into[16:], j.hash(0, (*[clientCookieSize + 8]byte)(into[:]), from))
}
