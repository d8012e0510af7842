package forward

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// envelopePath is where clusters take envelopes, below an endpoint.
const envelopePath = "/api/v1/envelopes"

// target is an endpoint's URL, taken apart.
type target struct {
	url     string // as the topology has it
	secure  bool
	host    string // without its port
	address string // host and port to connect to
	name    string // as a Host field has it
	path    string
}

func parseTarget(endpoint string) (target, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return target{}, err
	}
	t := target{url: endpoint, secure: u.Scheme == "https", host: u.Hostname(), name: u.Host}
	if u.Scheme != "http" && !t.secure || t.host == "" {
		return target{}, fmt.Errorf("%.200q is no URL with http or https and a host", endpoint)
	}
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[t.secure]
	}
	t.address = net.JoinHostPort(t.host, port)
	t.path = strings.TrimSuffix(u.EscapedPath(), "/") + envelopePath
	for _, part := range []string{t.name, t.path} {
		if !isVisible(part) {
			return target{}, fmt.Errorf("%.200q cannot stand in a request", endpoint)
		}
	}
	return t, nil
}

// field is a header field of a request, its name in lower case as HTTP/2 wants it.
type field struct{ name, value string }

// standing returns the fields that all requests to an endpoint have.
func (t *target) fields(token string) []field {
	fields := []field{{"user-agent", "isochrone"}, {"x-edge-validated", "1"}}
	if token != "" && isValue(token) {
		fields = append(fields, field{"authorization", "Bearer " + token})
	}
	return fields
}

// head1 returns the beginning of all HTTP/1.1 requests to an endpoint.
func (t *target) head1(token string) []byte {
	b := append([]byte("POST "), t.path...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), t.name...), "\r\n"...)
	for _, f := range t.fields(token) {
		b = append(append(append(append(b, f.name...), ": "...), f.value...), "\r\n"...)
	}
	return b
}

// errUnsendable is of an envelope that no request can be made of.
var errUnsendable = errors.New("its request id cannot stand in a header field")

// appendHead1 appends the head of an envelope's HTTP/1.1 request. The hash is that of the envelope whose body follows: the two come from
// one place in memory, and nothing else is ever sent with it.
func appendHead1(b, begin []byte, j *job) []byte {
	e := j.item.Envelope
	b = append(b, begin...)
	b = append(append(b, "content-type: "...), contentType(e)...)
	b = append(append(b, "\r\nx-request-id: "...), e.ID...)
	b = hex.AppendEncode(append(b, "\r\nx-request-hash: "...), e.SHA256[:])
	b = strconv.AppendInt(append(b, "\r\nx-isochrone-window: "...), e.Window, 10)
	if parent, ok := j.parent(); ok {
		b = append(append(b, "\r\ntraceparent: "...), parent[:]...)
	}
	b = strconv.AppendInt(append(b, "\r\ncontent-length: "...), int64(len(e.Body)), 10)
	return append(b, "\r\n\r\n"...)
}

// contentType is that of the client, unless what it sent cannot be sent on.
func contentType(e *spool.Envelope) string {
	if e.ContentType == "" || !isValue(e.ContentType) {
		return "application/json"
	}
	return e.ContentType
}

// parentOf makes the traceparent of a request to a cluster of that of the client's request: the same trace, and a span of its own.
// W3C Trace Context level 1, section 3.2: version, trace id, parent id and flags in lower-case hex.
func parentOf(received string) (parent [55]byte, ok bool) {
	if len(received) != len(parent) {
		return parent, false
	}
	for i := range parent {
		c := received[i]
		if i == 2 || i == 35 || i == 52 {
			if c != '-' {
				return parent, false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return parent, false
		}
		parent[i] = c
	}
	if received[:2] != "00" || strings.Trim(received[3:35], "0") == "" {
		return parent, false
	}
	var span [8]byte
	binary.BigEndian.PutUint64(span[:], rand.Uint64()|1) // not all zero
	hex.Encode(parent[36:52], span[:])
	return parent, true
}

// isValue reports whether a text may be the value of a header field: no control characters, no spaces around it (RFC 9110 section 5.5).
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == strings.Trim(s, " \t")
}

// isVisible reports whether a text has nothing but visible ASCII characters, and some.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}
