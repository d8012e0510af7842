package peer

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Path is below what PoPs call each other.
const Path = "/api/v1/peer/"

// headerName is that of the field that shows who calls, in the form in which exchange.Header has it.
const headerName = "X-Isochrone-Peer"

// Fresh is how far the clocks of two PoPs may be apart, with the time that a call is on its way.
const Fresh = 30 * time.Second

const (
	version   = "v1"
	nonceSize = 16
	maxHeader = 320 // octets of the field
	minSecret = 20  // octets
	maxKeys   = 3   // secrets at a time
)

// Errors of calls that are refused. ErrStranger stands for all that is wrong with the field, but for its time.
var (
	ErrStranger = errors.New("the call is not of a PoP that has the secret")
	ErrStale    = errors.New("the call is too old or of the future: set the clocks of both PoPs")
	ErrAgain    = errors.New("the call has been made before")
)

// ParseSecrets reads the secret that PoPs share: one, two or three lines, of at least 20 octets each. Calls are made with the first, and taken
// with all, so that PoPs may learn of a change at different times. An error does not tell the secret.
func ParseSecrets(text []byte) ([][]byte, error) {
	var secrets [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(line) < minSecret {
			return nil, fmt.Errorf("a line of it has %d octets: want at least %d", len(line), minSecret)
		}
		secrets = append(secrets, line)
	}
	if len(secrets) == 0 || len(secrets) > maxKeys {
		return nil, fmt.Errorf("it has %d lines: want one secret a line, at most %d", len(secrets), maxKeys)
	}
	return secrets, nil
}

// NewSecret makes a secret at random.
func NewSecret() []byte {
	random := make([]byte, sha256.Size)
	rand.Read(random) // never fails
	return []byte(base64.RawURLEncoding.EncodeToString(random))
}

// pass is what the field says.
type pass struct {
	from, to string
	time     int64 // Unix time in milliseconds, of the caller's clock
	nonce    [nonceSize]byte
	body     [sha256.Size]byte // hash of the body
	mac      [sha256.Size]byte
}

// String returns the field's value.
func (p *pass) String() string {
	encode := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{version, p.from, p.to, strconv.FormatInt(p.time, 10), encode(p.nonce[:]), encode(p.body[:]), encode(p.mac[:])}, " ")
}

// sum returns the HMAC of a call.
func (p *pass) sum(secret []byte, method, path string) (mac [sha256.Size]byte) {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "isochrone peer call %s\n%s\n%s\n%s\n%s\n%d\n%x\n%x\n", version, method, path, p.from, p.to, p.time, p.nonce, p.body)
	h.Sum(mac[:0])
	return mac
}

// newPass makes the field for a call.
func newPass(secret []byte, from, to, method, path string, body []byte, now time.Time) *pass {
	p := &pass{from: from, to: to, time: now.UnixMilli(), body: sha256.Sum256(body)}
	rand.Read(p.nonce[:]) // never fails
	p.mac = p.sum(secret, method, path)
	return p
}

// parsePass reads the field. The error wraps ErrStranger.
func parsePass(text string) (*pass, error) {
	fail := func(what string) (*pass, error) {
		return nil, fmt.Errorf("%w: %s: want %s with seven parts", ErrStranger, what, headerName)
	}
	if text == "" {
		return fail("it shows nothing")
	}
	if len(text) > maxHeader {
		return fail("what it shows is too long")
	}
	parts := strings.Split(text, " ")
	if len(parts) != 7 || parts[0] != version {
		return fail("what it shows is of another version, or malformed")
	}
	p := &pass{from: parts[1], to: parts[2]}
	for _, name := range parts[1:3] {
		if !isName(name) {
			return fail("it names no PoP")
		}
	}
	var err error
	if p.time, err = strconv.ParseInt(parts[3], 10, 64); err != nil || p.time < 0 || strconv.FormatInt(p.time, 10) != parts[3] {
		return fail("its time is no number of milliseconds")
	}
	for i, into := range [][]byte{p.nonce[:], p.body[:], p.mac[:]} {
		part := parts[4+i]
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(decoded) != len(into) || strings.ContainsAny(part, "\r\n") { // which base64 lets pass
			return fail("a part of it is no base64url of the right length")
		}
		copy(into, decoded)
	}
	return p, nil
}

// isName reports whether a text can be the name of a PoP: letters, digits and hyphens, at most 63.
func isName(text string) bool {
	return text != "" && len(text) <= 63 && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// verify checks who has made a call, and when. Whether it was made before is up to nonces.
func (p *pass) verify(secrets [][]byte, to, method, path string, now time.Time) error {
	good := false
	for _, secret := range secrets {
		mac := p.sum(secret, method, path)
		good = hmac.Equal(mac[:], p.mac[:]) || good
	}
	if !good || p.to != to {
		return ErrStranger
	}
	if off := now.Sub(time.UnixMilli(p.time)).Abs(); off > Fresh {
		return fmt.Errorf("%w: they are %v apart", ErrStale, off.Round(time.Millisecond))
	}
	return nil
}
