package main

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestContract holds the intake to its contract, in one world for all parts of it: to start one takes seconds.
func TestContract(t *testing.T) {
	t.Parallel()
	c := startContract(t, false)
	t.Run("versions", func(t *testing.T) {
		for _, over := range c.wires {
			t.Run(over.name, func(t *testing.T) {
				t.Parallel()
				t.Run("statuses", func(t *testing.T) { c.statuses(t, over) })
				t.Run("bytes", func(t *testing.T) { c.bytes(t, over) })
				t.Run("order", func(t *testing.T) { c.order(t, over) })
				t.Run("headers", func(t *testing.T) { c.oddHeaders(t, over) })
				t.Run("bearer", func(t *testing.T) { c.bearer(t, over) })
				t.Run("doubles", func(t *testing.T) { c.doubles(t, over) })
				t.Run("hash", func(t *testing.T) { c.hashes(t, over) })
				t.Run("quota", func(t *testing.T) { c.quota(t, over) })
				t.Run("idempotency", func(t *testing.T) { c.idempotency(t, over) })
				t.Run("receipts", func(t *testing.T) { c.receipts(t, over) })
			})
		}
	})
	t.Run("raw HTTP/1.1", c.raw)
	t.Run("raw HTTP/3", c.raw3)
	t.Run("programs of others", c.others)
	t.Run("early data", c.early) // edits the service: the last one
}

// statuses tries each fault alone.
func (c *contract) statuses(t *testing.T, over wire) {
	for _, test := range []struct {
		name string
		call
		want int
	}{
		{"another path", call{path: "/"}, 404},
		{"below the path", call{path: contractPath + "/"}, 404},
		{"the path in capitals", call{path: "/API/V1/INGEST"}, 404},
		{"a path with escapes that is another", call{path: "/api/v1/ingest%2F"}, 404},
		{"a long path", call{path: "/" + strings.Repeat("a", 8<<10)}, 404},
		{"GET", call{method: "GET"}, 405},
		{"HEAD", call{method: "HEAD"}, 405},
		{"OPTIONS", call{method: "OPTIONS"}, 405},
		{"PUT", call{method: "PUT"}, 405},
		{"DELETE", call{method: "DELETE"}, 405},
		{"a method of one's own", call{method: "BREW"}, 405},
		{"another host", call{host: "www.example.net"}, 421},
		{"no key", call{header: map[string]string{"X-API-Key": ""}}, 401},
		{"another key", call{header: map[string]string{"X-API-Key": "iso_aaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}, 401},
		{"a key cut short", call{header: map[string]string{"X-API-Key": c.key[:len(c.key)-1]}}, 401},
		{"a key and more", call{header: map[string]string{"X-API-Key": c.key + "a"}}, 401},
		{"a key in capitals", call{header: map[string]string{"X-API-Key": strings.ToUpper(c.key)}}, 401},
		{"the id of a key", call{header: map[string]string{"X-API-Key": strings.Split(c.key, "_")[1]}}, 401},
		{"a very long key", call{header: map[string]string{"X-API-Key": strings.Repeat("k", 4096)}}, 401},
		{"too long, announced", call{announced: contractMax + 1}, 413},
		{"much too long, announced", call{announced: 1 << 40}, 413},
		{"too long, streamed", call{stream: true, body: padded(contractMax + 1)}, 413},
		{"text", call{header: map[string]string{"Content-Type": "text/plain"}}, 415},
		{"no type", call{header: map[string]string{"Content-Type": ""}}, 415},
		{"another charset", call{header: map[string]string{"Content-Type": "application/json; charset=latin1"}}, 415},
		{"a type that is none", call{header: map[string]string{"Content-Type": "application/json;;"}}, 415},
		{"compressed", call{header: map[string]string{"Content-Encoding": "gzip"}}, 415},
		{"no JSON", call{body: "hello"}, 400},
		{"empty", call{body: " "}, 400},
		{"an array", call{body: "[" + contractPayload + "]"}, 400},
		{"a field that lacks", call{body: `{"hash":"0xab","sender":"0x01"}`}, 400},
		{"an Idempotency-Key that is too long", call{header: map[string]string{"Idempotency-Key": strings.Repeat("k", 256)}}, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := c.try(t.Context(), over, test.call)
			for tries := 0; err != nil && test.announced > 0 && tries < 20; tries++ { // the answer may be lost to a client that goes on sending
				got, err = c.try(t.Context(), over, test.call)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.protocol != over.name {
				t.Errorf("the answer is one of %s", got.protocol)
			}
			if test.method == "HEAD" {
				if got.body != "" || got.status != 405 {
					t.Errorf("got %d, %q", got.status, got.body)
				}
			} else {
				got.problem(t, test.name, test.want)
			}
			if allow := got.header.Get("Allow"); (allow == "POST") != (got.status == 405) {
				t.Errorf("a %d has Allow %q", got.status, allow)
			}
			if got.status == 401 && got.header.Get("WWW-Authenticate") == "" {
				t.Error("a 401 has no WWW-Authenticate")
			}
			if strings.Contains(got.body, c.key) || strings.Contains(got.body, c.key[13:]) {
				t.Errorf("the answer shows the key: %s", got.body)
			}
		})
	}
	c.accepted(t, "the host with a port", c.send(t, over, call{host: contractHost + ":8443"}), contractPayload, "application/json")
	c.accepted(t, "the host in capitals, with a dot", c.send(t, over, call{host: "INTAKE.Isochrone.test."}), contractPayload, "application/json")
	c.accepted(t, "the address", c.send(t, over, call{host: c.at}), contractPayload, "application/json")
	c.accepted(t, "a query", c.send(t, over, call{path: contractPath + "?a=b"}), contractPayload, "application/json")
	if alt := c.send(t, over, call{path: "/"}).header.Get("Alt-Svc"); (over.name == "HTTP/3.0") == strings.HasPrefix(alt, `h3=":`) {
		t.Errorf("got Alt-Svc %q", alt)
	}
}

// padded returns a good payload of n octets.
func padded(n int) string {
	const head, tail = `{"hash":"0xab","sender":"0x01","amount":"1","note":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

// bytes sends payloads that a careless intake would change.
func (c *contract) bytes(t *testing.T, over wire) {
	object := func(note string) string { return strings.Replace(contractPayload, "{", `{"note":`+note+",", 1) }
	var all sync.WaitGroup
	for _, test := range []struct {
		name, body, contentType string
		refused                 bool
	}{
		{"as it is", contractPayload, "", false},
		{"a trailing newline", contractPayload + "\n", "", false},
		{"CRLF", strings.ReplaceAll(contractPayload, ",", ",\r\n") + "\r\n\r\n", "", false},
		{"odd spacing", " \t{ \"hash\" :\"0xab\"\n,  \"sender\":\t\"0x01\" ,\r\"amount\" : \"1\" }   ", "", false},
		{"fields in another order", `{"amount":"1","sender":"0x01","zebra":1,"hash":"0xab","alpha":2}`, "", false},
		{"Unicode", object(`"żółć 漢字 🙂 \u0000 é vs e\u0301 "`), "", false},
		{"line separators", object("\"\u2028\u2029\u00a0\ufeff\""), "", false},
		{"escapes that need not be", object(`"\u0041\/\u00e9\b\f\n\r\t\"\\"`), "", false},
		{"HTML", object(`"<script>&amp;'</script>"`), "", false},
		{"a field name with escapes", `{"h\u0061sh":"0xab","sender":"0x01","amount":"1"}`, "", false},
		{"numbers with odd forms", object(`[-0, 0.10, 1E+2, 1e-7, 123456789012345678]`), "", false},
		{"nested", object(`{"a":[[{"b":[]}],{}]}`), "", false},
		{"of exactly the longest", padded(contractMax), "", false},
		{"a type with parameters", contractPayload, `application/json; charset="UTF-8"`, false},
		{"a type in capitals", contractPayload, "Application/JSON;charset=utf-8", false},
		{"a type of its own", contractPayload, "application/vnd.example+json", false},

		{"a byte order mark", "\ufeff" + contractPayload, "", true},
		{"no UTF-8", object("\"\xff\xfe\""), "", true},
		{"an overlong form", object("\"\xc0\xaf\""), "", true},
		{"half a surrogate pair", object("\"\xed\xa0\x80\""), "", true},
		{"a control character", object("\"\x01\""), "", true},
		{"a NUL after it", contractPayload + "\x00", "", true},
		{"two objects", contractPayload + contractPayload, "", true},
		{"a comma too many", strings.Replace(contractPayload, "}", ",}", 1), "", true},
		{"single quotes", strings.ReplaceAll(contractPayload, `"`, "'"), "", true},
		{"a comment", contractPayload + "// x", "", true},
		{"NaN", object("NaN"), "", true},
		{"a leading zero", object("01"), "", true},
		{"cut short", contractPayload[:len(contractPayload)-1], "", true},
		{"a required field that is null", `{"hash":null,"sender":"0x01","amount":"1"}`, "", true},
	} {
		all.Go(func() {
			r := call{body: test.body}
			if test.contentType != "" {
				r = r.with("Content-Type", test.contentType)
			}
			for _, r.stream = range []bool{false, true} {
				what := fmt.Sprintf("%s, streamed %v", test.name, r.stream)
				got, err := c.try(t.Context(), over, r)
				switch {
				case err != nil:
					t.Errorf("%s: %v", what, err)
				case test.refused:
					got.problem(t, what, 400)
				default:
					c.accepted(t, what, got, test.body, cmp.Or(test.contentType, "application/json"))
				}
			}
		})
	}
	all.Wait()
}

// order tries two faults at a time: the answer is that of the first in the documented order.
func (c *contract) order(t *testing.T, over wire) {
	scoped := strings.TrimSpace(c.run(t, "key", "create", "--from", "192.0.2.0/24"))
	spent := strings.TrimSpace(c.run(t, "key", "create", "--quota", "1"))
	for _, key := range []string{scoped, spent} {
		eventually(t, "a new key to be known", func() error {
			if got := c.send(t, over, call{}.with("X-API-Key", key)); got.status == 401 {
				return fmt.Errorf("got %d: %s", got.status, got.body)
			}
			return nil
		})
	}
	faults := []struct {
		name   string
		status int
		on     string // two on the same thing exclude each other
		add    func(*call)
	}{
		{"path", 404, "path", func(r *call) { r.path = "/x" }},
		{"method", 405, "method", func(r *call) { r.method = "PUT" }},
		{"host", 421, "host", func(r *call) { r.host = "www.example.net" }},
		{"early data", 425, "early", func(r *call) { *r = r.with("Early-Data", "1") }},
		{"length", 413, "body", func(r *call) { r.body = padded(contractMax + 1) }},
		{"key", 401, "key", func(r *call) { *r = r.with("X-API-Key", "iso_aaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") }},
		{"scope", 403, "key", func(r *call) { *r = r.with("X-API-Key", scoped) }},
		{"quota", 429, "key", func(r *call) { *r = r.with("X-API-Key", spent) }},
		{"type", 415, "type", func(r *call) { *r = r.with("Content-Type", "text/plain") }},
		{"encoding", 415, "encoding", func(r *call) { *r = r.with("Content-Encoding", "br") }},
		{"stream", 413, "body", func(r *call) { r.body, r.stream = padded(contractMax+1), true }},
		{"body", 400, "body", func(r *call) { r.body = "{" }},
	}
	for i, first := range faults {
		for _, second := range faults[i:] {
			if first.on == second.on && first.name != second.name {
				continue
			}
			var r call
			second.add(&r)
			first.add(&r)
			got := c.send(t, over, r)
			for tries := 0; got.status != first.status && r.header["X-API-Key"] == spent && tries < 3; tries++ { // a new minute has begun
				got = c.send(t, over, r)
			}
			got.problem(t, first.name+" before "+second.name, first.status)
		}
	}
}

// oddHeaders sends what clients and proxies in between may send besides.
func (c *contract) oddHeaders(t *testing.T, over wire) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	for name, header := range map[string]map[string]string{
		"what proxies add":       {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "Via": "1.1 x", "X-Request-Hash": "00", "X-Request-Id": "mine"},
		"what browsers add":      {"Cookie": "a=b", "Origin": "https://example.net", "Sec-Fetch-Mode": "cors", "Accept-Encoding": "gzip, br"},
		"what the PoP adds":      {"X-Edge-Validated": "0", "X-Isochrone-Pop": "fra1", "X-Isochrone-Window": "1", "X-Isochrone-Cluster": "eu"},
		"an identity encoding":   {"Content-Encoding": "identity"},
		"Expect":                 {"Expect": "100-continue"},
		"no trace that is right": {"Traceparent": "00-xyz"},
		"an early hint":          {"Priority": "u=1, i", "Te": "trailers"},
	} {
		c.accepted(t, name, c.send(t, over, call{header: header}), contractPayload, "application/json")
	}
	id := c.accepted(t, "a trace", c.send(t, over, call{}.with("Traceparent", trace)), contractPayload, "application/json")
	if id == "" {
		return
	}
	if got := c.region.await(t, id).header.Get("X-Request-Id"); got != id {
		t.Errorf("the cluster has X-Request-Id %q", got)
	}
	big := call{}.with("X-Big", strings.Repeat("b", 1<<20))
	got, err := c.try(t.Context(), over, big)
	if err == nil && got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of a megabyte: got %d", got.status)
	}
	c.accepted(t, "after it", c.send(t, over, call{}), contractPayload, "application/json")
}
