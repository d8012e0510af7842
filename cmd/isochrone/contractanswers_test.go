package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
)

// bearer shows the key as RFC 6750 has it.
func (c *contract) bearer(t *testing.T, over wire) {
	without := call{}.with("X-API-Key", "")
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} { // RFC 9110 section 11.1: in any case
		c.accepted(t, scheme, c.send(t, over, without.with("Authorization", scheme+c.key)), contractPayload, "application/json")
	}
	for _, wrong := range []string{"Bearer", "Bearer ", "Bearer x", "Basic " + c.key, c.key, "Bearer " + c.key + "x", "Bearer " + c.key + " " + c.key} {
		c.send(t, over, without.with("Authorization", wrong)).problem(t, fmt.Sprintf("Authorization %.20q", wrong), 401)
	}
	if got := c.send(t, over, without).header.Values("WWW-Authenticate"); !strings.Contains(strings.Join(got, ", "), "Bearer") {
		t.Errorf("a 401 has WWW-Authenticate %q", got)
	}
}

// The fields of draft-ietf-httpapi-ratelimit-headers-10.
var (
	rateLimit       = regexp.MustCompile(`^"[^"]+";r=([0-9]+);t=([0-9]+)$`)
	rateLimitPolicy = regexp.MustCompile(`^"[^"]+";q=([0-9]+);w=60$`)
)

// quota uses up a quota and holds what answers say of it.
func (c *contract) quota(t *testing.T, over wire) {
	const limit = 7
	key := strings.TrimSpace(c.run(t, "key", "create", "--quota", strconv.Itoa(limit)))
	r := call{}.with("X-API-Key", key)
	eventually(t, "a new key to be known", func() error {
		if got := c.send(t, over, r.with("Content-Type", "")); got.status == 401 { // 415, but counted
			return fmt.Errorf("got %d: %s", got.status, got.body)
		}
		return nil
	})
	window, accepted, inWindow := "", 0, int64(0)
	for try := 0; ; try++ {
		got := c.send(t, over, r)
		left := rateLimit.FindStringSubmatch(got.header.Get("RateLimit"))
		policy := rateLimitPolicy.FindStringSubmatch(got.header.Get("RateLimit-Policy"))
		if left == nil || policy == nil || policy[1] != strconv.Itoa(limit) {
			t.Fatalf("a %d has the header %v", got.status, got.header)
		}
		remaining, _ := strconv.ParseInt(left[1], 10, 64)
		reset, _ := strconv.Atoi(left[2])
		if reset > 120 || remaining > limit {
			t.Errorf("a %d has RateLimit %v", got.status, left[0])
		}
		if got.status == 429 {
			got.problem(t, "over the quota", 429)
			if after, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || after < 1 || after > 120 || remaining != 0 {
				t.Errorf("a 429 has the header %v", got.header)
			}
			break
		}
		c.accepted(t, "within the quota", got, contractPayload, "application/json")
		now := got.header.Get("X-Isochrone-Window")
		if now != window {
			window, inWindow = now, 0
		}
		accepted++
		if inWindow++; remaining > limit-inWindow { // it is what this PoP has left, and may grow when the PoP takes more
			t.Errorf("%d are left after %d of %d", remaining, inWindow, limit)
		}
		if try > 2*limit {
			t.Fatalf("%d of a quota of %d were accepted", accepted, limit)
		}
	}
}

// early posts in early data (0-RTT), which an attacker can repeat: taken only where the service has an Idempotency-Key with each request
// (RFC 8470).
func (c *contract) early(t *testing.T) {
	section := func(more ...string) string {
		return frame(0x1, fieldSection(append([]string{":method", "POST", ":scheme", "https", ":authority", contractHost, ":path", contractPath,
			"x-api-key", c.key, "content-type", "application/json"}, more...)...)) + frame(0x0, contractPayload)
	}
	config := c.tls("h3")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	settings := "\x00" + frame(0x4, "")
	post := func(said string, dial func(*testing.T, string, *tls.Config) *raw3) (status int, body string, early bool) {
		t.Helper()
		l := dial(t, settings, config)
		status, body, err := l.ask(t.Context(), said)
		for errors.Is(err, quic.Err0RTTRejected) { // as a client does that was told after the handshake that it came too early
			if _, err = l.NextConnection(t.Context()); err == nil {
				l.control = l.uni(t, settings)
				status, body, err = l.ask(t.Context(), said)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		early = l.ConnectionState().Used0RTT
		eventually(t, "a post after the handshake", func() error {
			if status, body, err := l.ask(t.Context(), section("idempotency-key", "after the handshake")); err != nil || status != 202 {
				return fmt.Errorf("got %d %s, %v", status, body, err)
			}
			return nil
		})
		l.CloseWithError(0x100, "")
		return status, body, early
	}
	post(section(), c.dial3With)                                                                           // brings a ticket
	if status, body, early := post(section("idempotency-key", "k"), c.dial3With); early || status != 202 { // is sent again after the handshake
		t.Errorf("where no Idempotency-Key is needed: got %d %s, early %v", status, body, early)
	}

	c.edit(t, "idempotency_key: optional", "idempotency_key: required")
	eventually(t, "an Idempotency-Key to be needed", func() error {
		if got := c.send(t, c.wires[0], call{}); got.status != 400 {
			return fmt.Errorf("got %d %s", got.status, got.body)
		}
		return nil
	})
	post(section("idempotency-key", "k0"), c.dial3With) // the first connection since then
	if status, body, early := post(section("idempotency-key", "k1"), c.dial3Early); !early || status != 202 {
		t.Errorf("with an Idempotency-Key: got %d %s, early %v", status, body, early)
	}
	status, body, early := post(section(), c.dial3Early)
	for tries := 0; early && status == 400 && tries < 10; tries++ { // the PoP has looked at it after the handshake, which is as safe
		status, body, early = post(section(), c.dial3Early)
	}
	if !early || status != 425 {
		t.Errorf("without an Idempotency-Key: got %d %s, early %v", status, body, early)
	}
	c.send(t, c.wires[0], call{}.with("Early-Data", "1")).problem(t, "early data to a proxy", 425)
}

var traceparentForm = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)

// doubles sends what readers of JSON disagree on, and what is deeper than some of them go; and two keys.
func (c *contract) doubles(t *testing.T, over wire) {
	object := func(note string) string { return strings.Replace(contractPayload, "{", `{"note":`+note+",", 1) }
	for _, test := range []struct{ name, body string }{
		{"a field twice", `{"hash":"0xab","hash":"0xab","sender":"0x01","amount":"1"}`},
		{"a field twice, once in escapes", `{"hash":"0xab","h\u0061sh":"0xcd","sender":"0x01","amount":"1"}`},
		{"a field twice, deep inside", object(`{"a":{"b":1,"b":2}}`)},
		{"deeper than is allowed", object(strings.Repeat("[", 40) + strings.Repeat("]", 40))},
		{"much deeper", object(strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000))},
	} {
		for _, stream := range []bool{false, true} {
			c.send(t, over, call{body: test.body, stream: stream}).problem(t, fmt.Sprintf("%s, streamed %v", test.name, stream), 400)
		}
	}
	other := call{}.with("Authorization", "Basic eDp5") // of a proxy in between, say
	c.accepted(t, "a key, and what is none", c.send(t, over, other), contractPayload, "application/json")
	c.send(t, over, other.with("X-API-Key", c.key+"x").with("Authorization", "Bearer "+c.key)).problem(t, "two keys", 400)
}

// hashes holds X-Request-Hash and the headers that tell where a request is.
func (c *contract) hashes(t *testing.T, over wire) {
	got := c.send(t, over, call{})
	id := c.accepted(t, "a payload", got, contractPayload, "application/json")
	var told struct{ SHA256 string }
	if err := json.Unmarshal([]byte(got.body), &told); err != nil || got.header.Get("X-Request-Hash") != told.SHA256 || got.header.Get("X-Isochrone-Cluster") != "ap" {
		t.Errorf("got %v, %s", got.header, got.body)
	}
	window := got.header.Get("X-Isochrone-Window")
	if n, err := strconv.ParseInt(window, 10, 64); err != nil || n <= 0 || c.region.await(t, id).header.Get("X-Isochrone-Window") != window {
		t.Errorf("the client has the window %q, the cluster %v", window, c.region.await(t, id).header)
	}
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	if id = c.accepted(t, "a trace", c.send(t, over, call{}.with("Traceparent", trace)), contractPayload, "application/json"); id == "" {
		return
	}
	if got := c.region.await(t, id).header.Get("Traceparent"); !traceparentForm.MatchString(got) || got[:36] != trace[:36] || got[36:52] == trace[36:52] {
		t.Errorf("of the traceparent %s the cluster has %s", trace, got)
	}
}
